"""What a migration is going to do, and what is refused before anything is written."""

from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from csr_qdrant.deployment.attach_bad import check_bad_rows
from csr_qdrant.deployment.attach_journal import KEY as ATTACH_KEY
from csr_qdrant.deployment.migrate_config import MigrateConfig, MigratePlan
from csr_qdrant.deployment.migrate_earlier import phase_of, refuse_itself
from csr_qdrant.deployment.migrate_journal import KEY
from csr_qdrant.deployment.migrate_setup import dense_bytes, target_setup
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.stores.base import Datatype, Json, Schema
from csr_qdrant.stores.layout import COSINE, DenseVector, choose_dense
from csr_qdrant.stores.whole_points import NewPlace, Setup, WholePoints, setting_name

LEFT_BEHIND = (KEY, ATTACH_KEY)  # other runs' progress
T = TypeVar("T", bound=str)


class Recorded(NamedTuple):
    """What csr-qdrant recorded of a source; of the new encoder if its codes are made with one."""

    schema: Schema
    identity: Identity


@dataclass(frozen=True, kw_only=True)
class Task:
    """A plan with all that carrying it out takes."""

    plan: MigratePlan
    setup: Setup  # of the copy
    schema: Schema  # of the copy
    metadata: Json  # csr-qdrant's own, without the journal
    exists: bool  # an earlier run has made the copy

    @property
    def settings(self) -> Json:
        """What must be the same in every run of one migration."""
        plan = self.plan
        same = ("source", "vector", "encoded", "keep", "name", "k", "datatype", "fingerprint")
        return {key: getattr(plan, key) for key in same}


def plan_migrate(
    source: WholePoints, place: NewPlace, encoder: Encoder | None, config: MigrateConfig
) -> MigratePlan:
    """Return what migrating is going to do; nothing is written. Raises as `task_of` does."""
    return task_of(source, place, encoder, config).plan


def task_of(
    source: WholePoints, place: NewPlace, encoder: Encoder | None, config: MigrateConfig
) -> Task:
    """Return the plan of a migration with what it takes; nothing is written.

    Raises ConfigError or CsrError for everything that can be told beforehand: another encoder
    than recorded, vectors of other dimensions, a name in use, a target that is not the unfinished
    copy of this source, an alias that stands for something else.
    """
    check_bad_rows(config.bad_rows)
    refuse_itself(source, place)
    recorded = _recorded(source, encoder, config)
    dense = _dense(source, recorded, encoder, config)
    known = None if recorded is None else recorded.schema
    name = _same("the name", config.name, known.code_name if known else None, "csr")
    identity = _identity(recorded, encoder, config)
    datatype: Datatype = "f32"
    datatype = _same("datatype", config.datatype, known.datatype if known else None, datatype)
    _check_name(source, recorded, dense, name)
    given = source.setup()
    setup = target_setup(given, dense, name, datatype, config.keep)
    exists = place.exists()
    alias_from = None if config.alias is None else _check_alias(source, place, config.alias)
    count = source.size()
    left_out = (*given.left_out, *place.left_out(setup))
    server = (each for each in map(setting_name, given.server) if each not in left_out)
    settings = ("hnsw", "quantization", "optimizers")
    plan = MigratePlan(
        source=source.location,
        target=place.location,
        vector=None if dense is None else dense.name,
        encoded=dense is not None and _made_anew(recorded),
        keep=config.keep,
        name=name,
        k=identity.k,
        datatype=datatype,
        fingerprint=identity.fingerprint,
        points=count,
        dense=tuple(sorted(setup.vectors)),
        sparse=tuple(sorted(setup.sparse)),
        indexes=tuple(sorted(setup.indexes)),
        configured=(*(each for each in settings if getattr(setup, each)), *server),
        left_out=left_out,
        dense_bytes=count * dense_bytes(setup),
        alias=config.alias,
        alias_from=alias_from,
        phase=None,
    )
    own = {key: each for key, each in source.metadata().items() if key not in LEFT_BEHIND}
    task = Task(
        plan=plan,
        setup=setup,
        schema=_schema(plan, recorded, dense, identity),
        metadata={**(own if recorded else {}), **identity.to_metadata()},
        exists=exists,
    )
    if not exists:
        return task
    return replace(
        task, plan=replace(plan, phase=phase_of(place, task.settings, setup, config.alias))
    )


def _recorded(
    source: WholePoints, encoder: Encoder | None, config: MigrateConfig
) -> Recorded | None:
    schema = source.schema()
    if schema is None:
        return None
    identity = Identity.from_metadata(source.metadata(), source.location)
    if encoder is None or identity.fingerprint == encoder.fingerprint:
        return Recorded(schema, identity)
    codes = f"{source.location} has codes of encoder {identity.fingerprint}, got"
    if schema.dense_dim is None:
        raise CsrError(
            f"{codes} {encoder.fingerprint}, and no dense vectors to make new codes of: leave the "
            "encoder out"
        )
    if not schema.attached:
        # Their norms are lost where they are compared by cosine, and the encoder may need them.
        raise CsrError(
            f"{codes} {encoder.fingerprint}: it was made by `csr index`, so index its vectors "
            "again for other codes"
        )
    if not config.reencode:
        raise CsrError(
            f"{codes} {encoder.fingerprint}: give the encoder that made them, or ask for new codes "
            "in their place with reencode"
        )
    new = Identity.of(encoder, config.k, None)
    return Recorded(
        replace(schema, h=new.h), replace(new, embedder=new.embedder or identity.embedder)
    )


def _dense(
    source: WholePoints, recorded: Recorded | None, encoder: Encoder | None, config: MigrateConfig
) -> DenseVector | None:
    """Return the vector of the codes; None if the source has codes and no such vector."""
    wanted = config.vector
    if recorded is not None:
        known = recorded.schema.dense_name if recorded.schema.dense_dim is not None else None
        if known is None:
            if config.keep != "all" or wanted is not None:
                raise ConfigError(
                    f"{source.location} keeps no dense vectors beside its codes: leave out "
                    "vector, drop-dense and rescore"
                )
            return None
        wanted = _same("the dense vector", wanted, known, "")
    if encoder is None and _made_anew(recorded):
        raise ConfigError("an encoder is needed to make codes: give the one for these vectors")
    dense = choose_dense(source.layout(), wanted, source.location)
    if encoder is not None and dense.dimension != encoder.d:
        raise ConfigError(
            f"the vectors of {source.location} have {dense.dimension} dimensions, but the encoder "
            f"takes {encoder.d}: use an encoder that was trained on such vectors"
        )
    return dense


def _made_anew(recorded: Recorded | None) -> bool:
    """Tell whether codes are made of dense vectors as the engine keeps them, as `attach` does.

    `csr index` made its own of the vectors as they were given, and each point has one.
    """
    return recorded is None or recorded.schema.attached


def _same(what: str, given: T | None, recorded: T | None, default: T) -> T:
    if given is not None and recorded is not None and given != recorded:
        raise ConfigError(f"the source's codes have {what} {recorded!r}, got {given!r}: keep it")
    return next(each for each in (given, recorded, default) if each is not None)


def _identity(
    recorded: Recorded | None, encoder: Encoder | None, config: MigrateConfig
) -> Identity:
    if recorded is None:
        assert encoder is not None
        return Identity.of(encoder, config.k, None)
    if config.k is not None and config.k != recorded.identity.k:
        raise ConfigError(
            f"the source's codes have k = {recorded.identity.k}, got {config.k}: keep it"
        )
    return recorded.identity


def _check_name(
    source: WholePoints, recorded: Recorded | None, dense: DenseVector | None, name: str
) -> None:
    if not name:
        raise ConfigError("codes need a vector name: sparse vectors cannot be unnamed")
    layout = source.layout()
    taken = name in layout.dense or name in layout.multi
    if taken or (recorded is None and name in layout.sparse):
        kind = "sparse vectors of another origin" if name in layout.sparse else "other vectors"
        raise ConfigError(
            f"{source.location} has {kind} under the name {name!r} already: choose another name "
            "for the codes"
        )


def _check_alias(source: WholePoints, place: NewPlace, alias: str) -> str | None:
    leads = place.alias(alias)
    if leads not in (None, source.location, place.location):
        raise ConfigError(
            f"the alias {alias!r} stands for {leads}, not for {source.location}: choose another "
            "one, or move it yourself"
        )
    return leads


def _schema(
    plan: MigratePlan, recorded: Recorded | None, dense: DenseVector | None, identity: Identity
) -> Schema:
    """Return the copy's schema: our own collections stay ours, others are attached ones."""
    if recorded is not None and (dense is None or plan.keep != "none"):
        return recorded.schema
    kept = dense is not None and plan.keep != "none"
    if recorded is not None and not recorded.schema.attached:
        return replace(recorded.schema, dense_dim=None)
    return Schema(
        h=identity.h,
        datatype=plan.datatype,
        dense_dim=dense.dimension if dense is not None and kept else None,
        code_name=plan.name,
        dense_name=dense.name if dense is not None and kept else "",
        attached=True,
        unit_norm=dense is not None and dense.distance == COSINE,
    )
