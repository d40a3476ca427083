"""What is refused before anything is written to a collection of somebody else's."""

from csr_qdrant.collection import ENCODER_FOLDER
from csr_qdrant.deployment.attach_bad import check_bad_rows
from csr_qdrant.deployment.attach_config import AttachConfig, AttachPlan
from csr_qdrant.deployment.attach_journal import stored_phase
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.layout import COSINE, DenseVector, Layout, choose_dense
from csr_qdrant.stores.writing import CodeWriter


def plan_attach(writer: CodeWriter, encoder: Encoder, config: AttachConfig) -> AttachPlan:
    """Return what attaching is going to do; nothing is written.

    Raises ConfigError or CsrError for everything that can be told beforehand: a server that is too
    old, a vector that is not there or has other dimensions, a vector name in use for something
    else, another encoder or other settings than recorded, a file that cannot be written.
    """
    check_bad_rows(config.bad_rows)
    writer.check_features()
    layout, recorded = writer.layout(), writer.schema()
    if recorded is not None:
        _check_record(writer, recorded, encoder, config)
    dense = _dense(writer, layout, recorded, encoder, config)
    name = config.name
    _check_name(writer, layout, recorded, dense.name, name)
    if recorded is None:
        _check_encoder_folder(writer)
    identity = Identity.of(encoder, config.k, None)
    exists = name in layout.sparse
    points = writer.count(dense.name)
    lacking = writer.count(dense.name, name) if exists else points
    # All codes are going to be made in this run, of vectors that nobody can change meanwhile.
    certain = writer.exclusive and lacking == points
    return AttachPlan(
        location=writer.location,
        vector=dense.name,
        dimension=dense.dimension,
        distance=dense.distance,
        name=name,
        adds_name=not exists,
        k=identity.k,
        datatype=config.datatype or (recorded.datatype if recorded else "f32"),
        fingerprint=identity.fingerprint,
        points=points,
        lacking=lacking,
        orphans=writer.count(name, dense.name) if exists else 0,
        verifies=config.verify and not certain,
        phase=stored_phase(writer.metadata()) if recorded else None,
    )


def schema_of(plan: AttachPlan, encoder: Encoder) -> Schema:
    """Return what is recorded of a collection with attached codes."""
    return Schema(
        h=encoder.h,
        datatype=plan.datatype,
        dense_dim=plan.dimension,
        code_name=plan.name,
        dense_name=plan.vector,
        attached=True,
        unit_norm=plan.distance == COSINE,
    )


def _check_record(
    writer: CodeWriter, recorded: Schema, encoder: Encoder, config: AttachConfig
) -> None:
    if not recorded.attached:
        raise ConfigError(
            f"{writer.location} was made by csr-qdrant and holds codes already: there is nothing "
            "to attach"
        )
    identity = Identity.from_metadata(writer.metadata(), writer.location)
    if identity.fingerprint != encoder.fingerprint:
        raise CsrError(
            f"{writer.location} has codes of encoder {identity.fingerprint} attached, got "
            f"{encoder.fingerprint}: use the first one, or remove its codes with `csr detach`"
        )
    for what, theirs, ours in (
        ("the name", recorded.code_name, config.name),
        ("the dense vector", recorded.dense_name, config.vector),
        ("datatype", recorded.datatype, config.datatype),
        ("k =", identity.k, encoder.k if config.k is None else config.k),
    ):
        if ours is not None and theirs != ours:
            raise ConfigError(
                f"codes were attached to {writer.location} with {what} {theirs!r}, got {ours!r}: "
                "keep the setting, or remove them with `csr detach`"
            )


def _dense(
    writer: CodeWriter,
    layout: Layout,
    recorded: Schema | None,
    encoder: Encoder,
    config: AttachConfig,
) -> DenseVector:
    wanted = config.vector
    if wanted is None and recorded is not None:
        wanted = recorded.dense_name
    dense = choose_dense(layout, wanted, writer.location)
    if dense.dimension != encoder.d:
        raise ConfigError(
            f"the vectors of {writer.location} have {dense.dimension} dimensions, but the encoder "
            f"takes {encoder.d}: use an encoder that was trained on such vectors"
        )
    return dense


def _check_name(
    writer: CodeWriter, layout: Layout, recorded: Schema | None, dense: str, name: str
) -> None:
    if not name:
        raise ConfigError("codes need a vector name: sparse vectors cannot be unnamed")
    taken = name in layout.dense or name in layout.multi or name == dense
    if taken or (name in layout.sparse and recorded is None):
        kind = "sparse vectors of another origin" if name in layout.sparse else "other vectors"
        raise ConfigError(
            f"{writer.location} has {kind} under the name {name!r} already: choose another name "
            "for the codes"
        )


def _check_encoder_folder(writer: CodeWriter) -> None:
    if writer.folder is None:
        return
    place = writer.folder / ENCODER_FOLDER
    if place.exists():
        raise ConfigError(f"the encoder would be kept as {place}: move away what is there")
