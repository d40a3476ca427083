"""Migrate: a copy of a collection with codes, beside the old one, and an alias that moves over.

    new collection -> copy -> verify -> counts and a sample -> alias, if told

The source is only read, and stays. Every step may be repeated, and progress lies in the copy's
own metadata, so a run that was killed goes on where it stopped, also from another machine.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from csr_qdrant.collection import ENCODER_FOLDER
from csr_qdrant.deployment.attach_codes import Coder
from csr_qdrant.deployment.attach_passes import OnPoints
from csr_qdrant.deployment.migrate_checks import Task, plan_migrate, task_of
from csr_qdrant.deployment.migrate_compare import tolerances
from csr_qdrant.deployment.migrate_config import MigrateConfig, MigratePlan, MigrateReport
from csr_qdrant.deployment.migrate_journal import KEY, first_record
from csr_qdrant.deployment.migrate_passes import Passes
from csr_qdrant.deployment.migrate_points import Maker
from csr_qdrant.deployment.migrate_run import Run
from csr_qdrant.encoder import Encoder
from csr_qdrant.stores.whole_points import NewPlace, WholePoints
from csr_qdrant.telemetry import span

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

__all__ = ["MigrateConfig", "MigratePlan", "MigrateReport", "migrate", "plan_migrate"]


def migrate(
    source: "str | Path | tuple[QdrantClient, str] | WholePoints",
    target: "str | Path | tuple[QdrantClient, str] | NewPlace",
    encoder: Encoder | None = None,
    config: MigrateConfig | None = None,
    on_points: OnPoints = lambda phase, done, total: None,
) -> MigrateReport:
    """Copy a collection into a new one that has codes, and move an alias to it if told.

    Args:
        source: folder of Qdrant Edge, or a client and the name of a collection; it is only read.
        target: folder, or client and name, that must not be there, unless as the copy of an
            earlier run from the same source with the same settings.
        encoder: trained on such vectors; a copy is kept beside an Edge target. None: the one that
            lies beside an Edge source; not needed to copy codes without dense vectors.
        config: settings.
        on_points: called with the phase (`copy` or `verify`), points done in it and in all.

    Others may go on writing to the source meanwhile. The guarantee is eventual: the verifying
    pass reads every point of the source once and makes the copy's equal to what it read, then
    removes from the copy what the source no longer has. What is written to the source after it
    was read there is missing from the copy until the next run. So: once nobody writes to the
    source any more, one more run leaves the copy equal to it. For no write to be lost, stop
    writers before the run that moves the alias, or let them write to both.

    A run on a finished copy verifies again: whatever differs in the copy, also what others wrote
    there, is overwritten or removed. Once an alias stands for the copy it is in use, and no run
    changes its points any more.

    Raises:
        ConfigError, CsrError: before anything is written: see `plan_migrate`.
        CsrError: an engine failed, or the copy is not complete and the alias stays where it is.
            What was written stays, and the next run goes on from there.
    """
    place = _place(target)
    opened = _opened(source)
    try:
        return _migrate(opened, place, encoder, config or MigrateConfig(), on_points)
    finally:
        if opened is not source:
            opened.close()


def _opened(source: "str | Path | tuple[QdrantClient, str] | WholePoints") -> WholePoints:
    if isinstance(source, str | Path):
        from csr_qdrant.stores.whole_points_edge import EdgePoints

        return EdgePoints.open(source)
    if isinstance(source, tuple):
        from csr_qdrant.stores.whole_points_server import ServerPoints

        return ServerPoints.open(*source)
    return source


def _place(target: "str | Path | tuple[QdrantClient, str] | NewPlace") -> NewPlace:
    if isinstance(target, str | Path):
        from csr_qdrant.stores.whole_points_edge import EdgePlace

        return EdgePlace(target)
    if isinstance(target, tuple):
        from csr_qdrant.stores.whole_points_server import ServerPlace

        return ServerPlace(*target)
    return target


def own_encoder(source: WholePoints, given: Encoder | None) -> Encoder | None:
    """Return the encoder given, or else the one that lies beside the source, if there is one."""
    if given is not None or source.folder is None:
        return given
    kept = source.folder / ENCODER_FOLDER
    return Encoder.load(kept) if kept.exists() else None


def _migrate(
    source: WholePoints,
    place: NewPlace,
    encoder: Encoder | None,
    config: MigrateConfig,
    on_points: OnPoints,
) -> MigrateReport:
    encoder = own_encoder(source, encoder)
    task = task_of(source, place, encoder, config)
    started = time.perf_counter()
    target = place.open() if task.exists else _create(place, task, encoder)
    try:
        run = Run(task, source, target, place, config, started)
        passes = _passes(task, source, target, encoder, config, on_points)
        with span("migrate", points=task.plan.points):
            return run.carry_out(passes)
    finally:
        target.close()


def _create(place: NewPlace, task: Task, encoder: Encoder | None) -> WholePoints:
    def fill(folder: Path) -> None:
        if encoder is not None:
            encoder.save(folder / ENCODER_FOLDER)

    metadata = {**task.metadata, KEY: first_record(task.settings)}
    return place.create(task.setup, task.schema, metadata, fill)


def _passes(
    task: Task,
    source: WholePoints,
    target: WholePoints,
    encoder: Encoder | None,
    config: MigrateConfig,
    on_points: OnPoints,
) -> Passes:
    plan = task.plan
    coder = None
    if plan.encoded and encoder is not None:
        coder = Coder(encoder, plan.k, config.device)
    allowed = tolerances(task.setup.vectors)
    maker = Maker(coder, plan.vector or "", plan.name, plan.keep == "none", allowed)

    def heard(phase: str, done: int, total: int) -> None:
        on_points(phase, done, max(total, plan.points))

    return Passes(source, target, maker, config, heard)
