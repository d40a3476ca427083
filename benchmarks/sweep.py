"""A grid of training settings: its points, and what their runs come to, as medians and a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import median
from typing import Any, NamedTuple

from csr_qdrant.errors import ConfigError
from csr_qdrant.trainer.config import TrainConfig

SOURCE = "source"  # the axis that is no setting of TrainConfig
LENGTHS = ("steps", "minutes", "epochs")  # a run has one of them
MEASURES = ("recall", "fvu", "postings", "longest_list", "dead")  # of a run at one k
COLUMNS = ("k", "recall@10", "FVU", "postings a query", "longest list", "dead", "steps", "seconds")

Run = Mapping[str, Any]  # an entry of `runs` in sweep.json, see docs/cli.md


class Point(NamedTuple):
    """One setting of every axis."""

    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A readable name, such as "h=2048,seed=0"."""
        return ",".join(f"{axis}={shown(value)}" for axis, value in self.values.items())

    def config(self, base: TrainConfig) -> TrainConfig:
        """Return `base` with the settings of this point.

        Raises ConfigError that names the point if they do not fit together.
        """
        changes = {axis: value for axis, value in self.values.items() if axis != SOURCE}
        if "k" in changes:
            changes["k"] = (changes["k"],)
        if changes.keys() & set(LENGTHS):  # the swept length replaces one of another kind
            changes = {"minutes": None, "epochs": None, **changes}
        try:
            return replace(base, **changes)
        except ConfigError as error:
            raise ConfigError(f"the sweep's point {self.name}: {error}") from error


@dataclass(frozen=True)
class Grid:
    """The values of each axis, in the order in which they were given.

    Raises ConfigError for an axis without values or with one twice, and for two kinds of length.
    """

    axes: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        """Check the axes."""
        for axis, values in self.axes.items():
            if not values or len(set(values)) < len(values):
                raise ConfigError(
                    f"--sweep {axis} takes different values, got "
                    f"{', '.join(map(shown, values)) or 'none'}"
                )
        if len(lengths := [axis for axis in LENGTHS if axis in self.axes]) > 1:
            raise ConfigError(f"a run has one length: sweep one of {' and '.join(lengths)}")

    def points(self) -> tuple[Point, ...]:
        """Return every combination; the last axis changes fastest."""
        names = tuple(self.axes)
        combined = product(*self.axes.values())
        return tuple(Point(dict(zip(names, each, strict=True))) for each in combined)


class Spread(NamedTuple):
    """One measure over seeds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarise one value or more."""
        return cls(median(values), min(values), max(values))

    def text(self, form: str = ".3f", unit: str = "", scale: float = 1.0) -> str:
        """Return "median unit", and "(low–high)" where they differ as they are printed."""
        middle, low, high = (format(scale * value, form) for value in self)
        return f"{middle}{unit}" if low == high else f"{middle}{unit} ({low}–{high})"


class Row(NamedTuple):
    """What one setting gives at one k, over its seeds."""

    setting: Mapping[str, Any]  # the axes but for seed and k
    k: int
    runs: int
    recall: Spread
    fvu: Spread
    postings: Spread  # a query, as a multiple of the corpus size N
    longest_list: Spread  # share of the documents
    dead: Spread  # share of the latents, at the run's largest k
    steps: Spread
    seconds: Spread

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers."""
        spreads = {n: v._asdict() for n, v in self._asdict().items() if isinstance(v, Spread)}
        return {"setting": dict(self.setting), "k": self.k, "runs": self.runs, **spreads}

    def cells(self) -> tuple[str, ...]:
        """Return the cells below the setting's own and `COLUMNS`."""
        return (
            *map(shown, self.setting.values()),
            str(self.k),
            self.recall.text(),
            self.fvu.text(),
            self.postings.text(".4f", " N"),
            self.longest_list.text(".1f", " %", 100),
            self.dead.text(".1f", " %", 100),
            self.steps.text(",.0f"),
            self.seconds.text(",.1f"),
        )


def summary(runs: Sequence[Run]) -> tuple[Row, ...]:
    """Return a row for each setting and k, in the order of the runs and with k rising.

    Runs that failed (those with an `error`) are left out.
    """
    groups: dict[tuple[tuple[str, Any], ...], dict[int, list[Run]]] = {}
    for run in runs:
        if "error" in run:
            continue
        setting = tuple((n, v) for n, v in run["point"].items() if n not in ("seed", "k"))
        for at in run["at"]:
            flat = {"dead": run["dead"], "steps": run["steps"], "seconds": run["seconds"], **at}
            groups.setdefault(setting, {}).setdefault(at["k"], []).append(flat)
    return tuple(
        _row(dict(setting), k, found)
        for setting, ks in groups.items()
        for k, found in sorted(ks.items())
    )


def _row(setting: Mapping[str, Any], k: int, found: Sequence[Run]) -> Row:
    names = (*MEASURES, "steps", "seconds")
    spreads = {name: Spread.of([run[name] for run in found]) for name in names}
    return Row(setting, k, len(found), **spreads)


def columns(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the headings of the table of `rows`."""
    return (*(rows[0].setting if rows else ()), *COLUMNS)


def document(title: str, grid: Grid, runs: Sequence[Run], planned: int, plot: str | None) -> str:
    """Return sweep.md: the table, what its figures mean, and the `plot` (a file's name).

    `planned` is the number of points; `runs` may be fewer while the sweep goes on.
    """
    rows = summary(runs)
    heads = columns(rows)
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *(row.cells() for row in rows)]
    swept = "; ".join(f"{axis} = {', '.join(map(shown, v))}" for axis, v in grid.axes.items())
    done = sum("error" not in run for run in runs)
    parts = [
        f"# {_escaped(title)}",
        f"{done} of {planned} runs: {_escaped(swept)}.",
        "\n".join(f"| {' | '.join(map(_escaped, line))} |" for line in lines),
        _meaning(grid),
        *(f"- {_escaped(run['name'])} failed: {run['error']}" for run in runs if "error" in run),
        *([f"![recall against postings]({plot})"] if plot else []),
    ]
    return "\n\n".join(parts) + "\n"


def _meaning(grid: Grid) -> str:
    text = (
        "recall@10: of the ten dense neighbours of held-out rows, the share that codes of k "
        "latents find. Postings: what a query touches, as a multiple of N documents."
    )
    if len(grid.axes.get("seed", ())) > 1:
        text += " Medians over seeds (lowest–highest); each seed holds out other rows."
    if SOURCE in grid.axes:
        text += " Each source is measured against its own dense vectors."
    return text


def shown(value: Any) -> str:
    """Return a value of an axis as a name or a cell shows it."""
    return "none" if value is None else str(value)


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
