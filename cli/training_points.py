"""`csr train` from the dense vectors of a collection that exists, in a folder or on a server."""

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from csr_qdrant.atomic import remove_whole
from csr_qdrant.cli import ranks
from csr_qdrant.cli.opening import open_vectors
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.places import Place, ServerSettings, place_of
from csr_qdrant.cli.rows import SourceFields, about
from csr_qdrant.cli.supervision import Supervision
from csr_qdrant.cli.training_data import RunSettings, TrainingData
from csr_qdrant.errors import ConfigError, CsrError

if TYPE_CHECKING:
    from csr_qdrant.sources import CollectionVectors, Downloaded

SAMPLE = 500_000


@dataclass(frozen=True, kw_only=True)
class PointSettings:
    """Which vectors of a collection to learn from."""

    vector: str | None = field(
        default=None,
        metadata=about(
            "Dense vector of the collection, empty for the unnamed one. [default: the only one]",
            "NAME",
        ),
    )
    sample: int | None = field(
        default=SAMPLE,
        metadata=about("Points of the collection to draw, by --seed; none: all of them.", "N"),
    )
    label: str | None = field(
        default=None,
        metadata=about("Payload field with labels of points: integers or texts.", "FIELD"),
    )

    def __post_init__(self) -> None:
        """Check the sample."""
        if self.sample is not None and self.sample < 1:
            raise ConfigError(f"a sample needs at least 1 point, got {self.sample}")


class _Counted(NamedTuple):
    """Points of a collection that were counted and not read."""

    name: str
    rows: int
    kind: str = "vectors"

    def __len__(self) -> int:
        return self.rows


def place(path: Path | None, server: ServerSettings) -> Place | None:
    """Return the collection that the arguments name, None where `path` is a source of rows."""
    if path is None and not server.given:
        raise ConfigError(
            "nothing to learn from: give SOURCE, a file or a folder, or --url with --collection"
        )
    if path is None or server.given or _is_collection(path):
        return place_of(path, server)
    return None


def _is_collection(path: Path) -> bool:
    from csr_qdrant.stores.edge_folder import any_shard_folder

    try:
        any_shard_folder(path)
    except CsrError:
        return False
    return True


def check(
    place: Place | None,
    points: PointSettings,
    supervision: Supervision,
    fields: SourceFields,
    *,
    sweep: bool,
) -> None:
    """Raise ConfigError for options that do not apply to a collection, or to files."""
    if place is None:
        given = [name for name, value in vars(points).items() if value != _DEFAULTS[name]]
        if given:
            raise ConfigError(
                f"--{given[0]} is for vectors of a collection: name one with --url and "
                "--collection, or by its folder"
            )
        return
    ranks.refuse_several("downloads from a collection")
    if supervision.labels is not None:
        raise ConfigError("--labels is for files: name a payload field of a collection by --label")
    settings = {**vars(supervision), **vars(fields)}
    foreign = [name for name, value in settings.items() if value is not None]
    if foreign or sweep:
        flag = "--" + foreign[0].replace("_", "-") if foreign else "--sweep"
        raise ConfigError(f"{flag} is for files, got a collection: leave it out or train on a file")


_DEFAULTS = vars(PointSettings())


def read(
    out: Output,
    place: Place,
    points: PointSettings,
    run: RunSettings,
    seed: int,
    work: Path | None,
    *,
    restart: bool,
) -> TrainingData:
    """Download the vectors to `work`, going on with what lies there; None: only count them."""
    with closing(place), open_vectors(place, points.vector) as vectors:
        rows = vectors.count if points.sample is None else min(points.sample, vectors.count)
        if work is None:
            source: Any = _Counted(vectors.location, rows)
            return TrainingData(source, None, run.embedder, None, None, vectors.dimension)
        if vectors.normalised:
            out.note(f"{vectors.location} compares by cosine, so its vectors have L2 norm 1")
        if restart:
            remove_whole(work)
        found = _downloaded(out, vectors, points, seed, work, rows)
        return _data(out, vectors, points, run, found)


def _downloaded(
    out: Output,
    vectors: "CollectionVectors",
    points: PointSettings,
    seed: int,
    work: Path,
    rows: int,
) -> "Downloaded":
    from csr_qdrant.sources import download_vectors

    try:
        with out.progress("downloading", rows, "points") as progress:
            return download_vectors(
                vectors,
                work / "collection",
                sample=points.sample,
                seed=seed,
                label=points.label,
                on_rows=progress.update,
            )
    except KeyboardInterrupt:
        out.note(f"stopped; give the same command again to continue from {work}")
        raise


def _data(
    out: Output,
    vectors: "CollectionVectors",
    points: PointSettings,
    run: RunSettings,
    found: "Downloaded",
) -> TrainingData:
    from csr_qdrant.sources import ArraySource

    rows = len(found.vectors)
    if found.unlabelled:
        out.warn(
            f"{found.unlabelled:,} of {rows:,} points have no label in {points.label!r}: they are "
            "learned from without one"
        )
    if found.zero:
        out.warn(f"{found.zero:,} points are left out: their vectors are all zeros")
    remembered = {
        "vector": vectors.vector,
        "distance": vectors.distance,
        "points": vectors.count,
        "label": points.label,
        "unlabelled": found.unlabelled,
        "zero": found.zero,
    }
    source = ArraySource(found.vectors, name=vectors.location)
    return TrainingData(
        source, None, run.embedder, found.labels, None, vectors.dimension, remembered
    )
