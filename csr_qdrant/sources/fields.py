"""Which field of a row is its id, its text, its vector, its payload."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from csr_qdrant.errors import CsrError
from csr_qdrant.sources.files import listed
from csr_qdrant.sources.options import (
    ID_FIELDS,
    ROW_NUMBER,
    TEXT_FIELD,
    TITLE_FIELD,
    VECTOR_FIELDS,
    SourceOptions,
)
from csr_qdrant.sources.values import checked_text


@dataclass(frozen=True)
class Fields:
    """The names of the fields to read; either `vector` or `text` is given."""

    id: str | None  # None: row numbers
    vector: str | None
    text: str | None
    options: SourceOptions

    @classmethod
    def resolved(cls, found: Sequence[str], options: SourceOptions, name: str) -> "Fields":
        """Choose among the fields `found` in `name`; raises CsrError where one is missing."""
        identity = None
        if options.id_field != ROW_NUMBER:
            identity = _one_of(found, ID_FIELDS, options.id_field)
            if identity is None:
                hint = f"name the id field, {ROW_NUMBER!r} to use row numbers"
                raise _missing(name, "id", options.id_field or "id", found, hint)
        vector = text = None
        if options.text_field is None:
            vector = _one_of(found, VECTOR_FIELDS, options.vector_field)
        if vector is None and options.vector_field is None:
            text = _one_of(found, (TEXT_FIELD,), options.text_field)
        if vector is None and text is None:
            wanted = options.vector_field or options.text_field or "text or vector"
            raise _missing(name, "such", wanted, found, "name the text or the vector field")
        return cls(identity, vector, text, options)

    @property
    def kind(self) -> str:
        """`vectors` or `texts`, whichever the source gives."""
        return "texts" if self.vector is None else "vectors"

    def payload_names(self, found: Iterable[str]) -> list[str]:
        """Return which of the fields `found` belong to the payload.

        Unless they are named, ids and vectors do not; texts do, so that hits can be shown.
        """
        if self.options.payload_fields is not None:
            named = set(self.options.payload_fields)
            return [name for name in found if name in named]
        own = {self.id, self.vector, *VECTOR_FIELDS}
        return [name for name in found if name not in own]

    def missing_payload(self, found: Iterable[str]) -> list[str]:
        """Return the payload fields that were asked for but are not in `found`."""
        return sorted(set(self.options.payload_fields or ()) - set(found))

    def joined_text(self, row: Mapping[str, Any], where: str) -> str:
        """Return the row's text; a field `text` is preceded by its `title`, as in BEIR."""
        assert self.text is not None
        text = checked_text(row.get(self.text), f"{where} field {self.text!r}")
        title = row.get(TITLE_FIELD) if self.text == TEXT_FIELD else None
        if not title:
            return text
        return f"{checked_text(title, f'{where} field {TITLE_FIELD!r}')} {text}".rstrip()


def _one_of(found: Sequence[str], usual: Sequence[str], chosen: str | None) -> str | None:
    return next((name for name in (usual if chosen is None else (chosen,)) if name in found), None)


def _missing(name: str, kind: str, wanted: str, found: Sequence[str], hint: str) -> CsrError:
    return CsrError(f"{name} has no {kind} field {wanted!r} (found: {listed(found)}): {hint}")
