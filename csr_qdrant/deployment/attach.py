"""Attach: codes beside the dense vectors of a collection that is in use, without a copy of it.

    record, vector name -> backfill, until nothing is lacking -> verify -> counts and a sample

(`verify` is left out where all codes are of this run and nobody else could write.)

Only the sparse vector is written, and csr-qdrant's own metadata: payloads and other vectors stay
as they are. Every step may be repeated, and progress lies beside the points, so a run that was
killed goes on where it stopped, also from another machine.
"""

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr_qdrant.collection import ENCODER_FOLDER
from csr_qdrant.deployment.attach_bad import BadPoints, bad_points
from csr_qdrant.deployment.attach_checks import plan_attach, schema_of
from csr_qdrant.deployment.attach_codes import Coder
from csr_qdrant.deployment.attach_config import AttachConfig, AttachPlan, AttachReport
from csr_qdrant.deployment.attach_journal import attach_journal
from csr_qdrant.deployment.attach_passes import OnPoints, Passes
from csr_qdrant.deployment.journal import Journal
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.stores.writing import CodeWriter
from csr_qdrant.telemetry import span

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

BACKFILL_PASSES = 10  # against writers that add points faster than their codes can be written

__all__ = [
    "AttachConfig",
    "AttachPlan",
    "AttachReport",
    "attach",
    "attach_as_planned",
    "attach_on",
    "plan_attach",
]


def attach(
    target: str | Path | CodeWriter,
    encoder: Encoder,
    config: AttachConfig | None = None,
    on_points: OnPoints = lambda phase, done, total: None,
) -> AttachReport:
    """Give the points of a collection codes of their dense vectors, beside these.

    Args:
        target: folder of Qdrant Edge, a bare shard or one of csr-qdrant's layout, or an open
            writer, which stays open. For a server see `attach_on`.
        encoder: trained on such vectors. A copy is kept beside an Edge shard.
        config: settings.
        on_points: called with the phase (`backfill` or `verify`), points done in it and in all.

    Others may go on writing meanwhile. The guarantee is eventual: a point that is written without
    a code while this runs gets it if it is there before the last pass; a code that another
    writer adds is kept; a code whose dense vector changed meanwhile is mended if that was before
    `verify` came to it. Once nobody writes without codes any more, one more run, from its beginning
    to its end, leaves every point that can have a code with the right one. `CsrQdrant` writes both
    together.

    In a collection that compares by cosine, Qdrant keeps vectors at norm 1, and these are encoded.

    Raises:
        ConfigError, CsrError: before anything is written: see `plan_attach`.
        CsrError: the engine failed. What was written stays, and the next run goes on from there.
    """
    if isinstance(target, str | Path):
        from csr_qdrant.stores.edge_writer import EdgeCodeWriter

        with EdgeCodeWriter.open(target) as writer:
            return attach(writer, encoder, config, on_points)
    config = config or AttachConfig()
    return attach_as_planned(
        target, encoder, config, plan_attach(target, encoder, config), on_points
    )


def attach_on(
    client: "QdrantClient",
    name: str,
    encoder: Encoder,
    config: AttachConfig | None = None,
    on_points: OnPoints = lambda phase, done, total: None,
) -> AttachReport:
    """Do as `attach` does with the collection `name` of a server from 1.18 on."""
    from csr_qdrant.stores.server_writer import ServerCodeWriter

    with ServerCodeWriter.open(client, name) as writer:
        return attach(writer, encoder, config, on_points)


def attach_as_planned(
    target: CodeWriter,
    encoder: Encoder,
    config: AttachConfig,
    plan: AttachPlan,
    on_points: OnPoints = lambda phase, done, total: None,
) -> AttachReport:
    """Do as `attach` does, after `plan_attach` of the same open writer, encoder and settings.

    Raises ConfigError for a plan of others.
    """
    identity = Identity.of(encoder, config.k, None)
    ours = (target.location, identity.fingerprint, identity.k, config.name)
    if ours != (plan.location, plan.fingerprint, plan.k, plan.name):
        raise ConfigError(
            f"the plan is one for {plan.location}, encoder {plan.fingerprint}, k = {plan.k} and "
            f"the name {plan.name!r}, got {', '.join(map(repr, ours))}: plan again"
        )
    with span("attach", points=plan.points, lacking=plan.lacking):
        return _attach(target, encoder, config, plan, on_points)


def _attach(
    target: CodeWriter,
    encoder: Encoder,
    config: AttachConfig,
    plan: AttachPlan,
    on_points: OnPoints,
) -> AttachReport:
    started = time.perf_counter()
    _prepare(target, encoder, plan)
    passes = Passes(target, Coder(encoder, plan.k, config.device), plan, config, on_points)
    bad = _run(passes, attach_journal(target), config)
    sampled, wrong = passes.check_sample()
    seconds = time.perf_counter() - started
    if config.optimise:
        target.optimise()
    return AttachReport(
        plan=plan,
        written=passes.counts.written,
        rewritten=passes.counts.rewritten,
        removed=passes.counts.removed,
        without_code=passes.counts.without_code,
        bad=bad.count,
        bad_examples=tuple(bad.examples),
        points=target.count(plan.vector),
        coded=target.count(plan.vector) - target.count(plan.vector, plan.name),
        orphans=target.count(plan.name, plan.vector),
        sampled=sampled,
        sampled_wrong=wrong,
        unsettled=passes.counts.unsettled,
        seconds=seconds,
        optimise_seconds=time.perf_counter() - started - seconds,
    )


def _prepare(writer: CodeWriter, encoder: Encoder, plan: AttachPlan) -> None:
    """Record whose codes these are, then add their name: never a name without its record."""
    if writer.schema() is None:
        identity = Identity.of(encoder, plan.k, None)
        writer.record(schema_of(plan, encoder), identity.to_metadata())
    if writer.folder is not None and not (writer.folder / ENCODER_FOLDER).exists():
        encoder.save(writer.folder / ENCODER_FOLDER)
    writer.add_name(plan.name, plan.datatype)


def _run(passes: Passes, journal: Journal, config: AttachConfig) -> BadPoints:
    """Go over the points until all have been seen with the code that they should have."""
    try:
        with bad_points(config.bad_rows) as bad:
            _backfill(passes, journal, bad)
            if passes.plan.verifies:
                if journal.phase != "verify":
                    journal.enter("verify")
                passes.verify(bad, journal)
            if config.remove_orphans:
                passes.remove_orphans()
        journal.enter("done")
        return bad
    except BaseException:
        passes.writer.insist(False)  # nobody waits minutes for a run that has ended
        with suppress(CsrError):  # what went wrong first is what the user must hear of
            journal.write()
        raise
    finally:
        passes.writer.insist(True)


def _backfill(passes: Passes, journal: Journal, bad: BadPoints) -> None:
    """Write codes until a pass over all that lack one finds none to write.

    That last pass also tells which points cannot have a code.
    """
    offset: Any = journal.offset if journal.phase == "backfill" else None
    if offset is not None:
        passes.backfill(BadPoints(None), offset, journal)
    for number in range(1, BACKFILL_PASSES + 1):
        first = number == 1 and offset is None and journal.phase == "backfill"
        bad.restart()
        if not passes.backfill(bad, None, journal if first else None):
            break
