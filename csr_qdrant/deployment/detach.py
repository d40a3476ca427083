"""Detach: what `attach` added to a collection is removed, and nothing else."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr_qdrant.atomic import remove_whole
from csr_qdrant.collection import ENCODER_FOLDER
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.stores.writing import CodeWriter

if TYPE_CHECKING:
    from qdrant_client import QdrantClient


@dataclass(frozen=True, kw_only=True)
class DetachPlan:
    """What is removed, or has been."""

    location: str
    name: str  # the vector name of the codes
    vector: str  # the dense vectors, which stay; empty: the unnamed one
    fingerprint: str  # of the encoder
    codes: int  # points that have one

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def plan_detach(writer: CodeWriter) -> DetachPlan:
    """Return what detaching is going to remove; nothing is written.

    Raises ConfigError for a collection that csr-qdrant made itself, and for one without attached
    codes; CsrError for a server that cannot remove a vector name.
    """
    recorded = writer.schema()
    if recorded is None:
        raise ConfigError(f"{writer.location} has no codes that `csr attach` added: nothing to do")
    if not recorded.attached:
        raise ConfigError(
            f"{writer.location} was made by csr-qdrant, its codes are all it is for: delete the "
            "collection if you don't need it"
        )
    writer.check_features()
    codes = 0
    if recorded.code_name in writer.layout().sparse:  # an earlier run may have removed them
        codes = writer.count(recorded.code_name)
    return DetachPlan(
        location=writer.location,
        name=recorded.code_name,
        vector=recorded.dense_name,
        fingerprint=Identity.from_metadata(writer.metadata(), writer.location).fingerprint,
        codes=codes,
    )


def detach(target: str | Path | CodeWriter, *, optimise: bool = True) -> DetachPlan:
    """Remove the attached codes of a collection, their vector name and what was recorded of them.

    Args:
        target: folder of Qdrant Edge, or an open writer, which stays open. For a server see
            `detach_on`.
        optimise: let the embedded engine tidy up at the end.

    Returns what was removed; payloads, other vectors and other metadata stay. A run that was
    killed may be repeated. Raises ConfigError and CsrError as `plan_detach` does, and CsrError if
    the engine failed.
    """
    if isinstance(target, str | Path):
        from csr_qdrant.stores.edge_writer import EdgeCodeWriter

        with EdgeCodeWriter.open(target) as writer:
            return detach(writer, optimise=optimise)
    plan = plan_detach(target)
    target.remove_name(plan.name)
    # The record goes last: as long as there are codes, it says whose they are.
    if target.folder is not None:
        _remove_encoder(target.folder / ENCODER_FOLDER, plan.fingerprint)
    target.forget()
    if optimise:
        target.optimise()
    return plan


def detach_on(client: "QdrantClient", name: str) -> DetachPlan:
    """Do as `detach` does with the collection `name` of a server."""
    from csr_qdrant.stores.server_writer import ServerCodeWriter

    with ServerCodeWriter.open(client, name) as writer:
        return detach(writer)


def _remove_encoder(folder: Path, fingerprint: str) -> None:
    """Remove the copy of the encoder, unless another one lies there by now."""
    with suppress(CsrError, OSError):
        if not folder.exists() or Encoder.load(folder).fingerprint == fingerprint:
            remove_whole(folder)  # also what a killed run left of it
