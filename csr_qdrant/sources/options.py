"""How to read a source: which fields and which accompanying files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csr_qdrant.errors import ConfigError
from csr_qdrant.ids import ID_KEY

ROW_NUMBER = "#"  # as `id_field`: the row numbers are the ids
ID_FIELDS = (ID_KEY, "id")
TEXT_FIELD = "text"
TITLE_FIELD = "title"
VECTOR_FIELDS = ("vector", "embedding", "embeddings")


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Which fields of a source mean what; None lets the format decide."""

    id_field: str | None = None  # "#": row numbers
    text_field: str | None = None
    vector_field: str | None = None
    payload_fields: Sequence[str] | None = None  # None: everything else; (): nothing
    ids: Path | None = None  # .npy, .txt or .jsonl: one id a row
    payload: Path | None = None  # .jsonl: one object a row

    def __post_init__(self) -> None:
        """Check that the settings do not contradict each other."""
        if self.text_field is not None and self.vector_field is not None:
            raise ConfigError("a source gives texts or vectors: choose a text or a vector field")
        if isinstance(self.payload_fields, str):
            raise ConfigError(
                f"payload fields must be a list of names, got the text {self.payload_fields!r}"
            )
        if self.payload_fields is not None and ID_KEY in self.payload_fields:
            raise ConfigError(f"{ID_KEY!r} is reserved for ids: leave it out of the payload fields")

    def refuse(self, path: Path, *names: str) -> None:
        """Raise ConfigError if one of the options `names` is set: `path`'s format has no use."""
        for name in names:
            if getattr(self, name) is not None:
                kind = path.suffix or "this kind of source"
                raise ConfigError(f"{name} means nothing for {kind}, got it for {path}: drop it")

    def as_text(self) -> str:
        """Return the options as text that is equal for equal options."""
        fields = asdict(self)
        fields["payload_fields"] = self.payload_fields and list(self.payload_fields)
        # Which files there are; where they lie may be written in several ways.
        fields |= {"ids": self.ids is not None, "payload": self.payload is not None}
        return json.dumps(fields, sort_keys=True)

    def chosen_payload(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of `row` that the payload fields name; all of it if none are named."""
        if self.payload_fields is None:
            return dict(row)
        return {name: row[name] for name in self.payload_fields if name in row}
