"""Rows that a command reads: which fields and files of a source mean what, and its embedder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csr_qdrant.embedders import Embedder
    from csr_qdrant.sources import Source


def about(help: str, metavar: str | None = None) -> dict[str, Any]:
    """Return the metadata of a settings field: its help text, and what stands for its value."""
    return {"help": help, "metavar": metavar}


@dataclass(frozen=True, kw_only=True)
class SourceFields:
    """Which field of a row is its id, its text, its vector."""

    id_field: str | None = field(
        default=None,
        metadata=about(
            "Field of the ids; '#' stands for row numbers. [default: _id or id]", "NAME"
        ),
    )
    text_field: str | None = field(
        default=None, metadata=about("Field of the texts. [default: text]", "NAME")
    )
    vector_field: str | None = field(
        default=None, metadata=about("Field of the vectors. [default: vector or embedding]", "NAME")
    )
    ids: Path | None = field(
        default=None,
        metadata=about(
            "File of ids beside .npy, .npz or .safetensors: .npy, .txt or .jsonl.", "FILE"
        ),
    )

    def opened(self, path: Path, **more: Any) -> "Source":
        """Open the source at `path`, or raise CsrError; `more` goes to `open_source`."""
        from csr_qdrant.sources import open_source

        return open_source(path, **(vars(self) | more))


@dataclass(frozen=True, kw_only=True)
class SourceSettings(SourceFields):
    """The fields of a row, and what of it becomes payload."""

    payload_fields: tuple[str, ...] | None = field(
        default=None, metadata=about("Fields to keep as payload. [default: all others]", "NAME,…")
    )
    payload: Path | None = field(
        default=None,
        metadata=about("File of payloads beside .npy, .npz or .safetensors: .jsonl.", "FILE"),
    )


def embedder_for(source: "Source", uri: str | None, device: str | None = None) -> "Embedder | None":
    """Return the embedder of a source of texts, None for other kinds.

    Raises ConfigError if the texts have none.
    """
    from csr_qdrant.embedders import KNOWN, load_embedder
    from csr_qdrant.errors import ConfigError

    if source.kind != "texts":
        return None
    if uri is None:
        raise ConfigError(
            f"{source.name} holds texts, and no embedder is known that makes vectors of them: "
            f"pass --embedder, one of {KNOWN}"
        )
    return load_embedder(uri, device)
