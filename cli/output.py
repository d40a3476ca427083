"""The one place that commands write to: data on stdout, everything else on stderr."""

import json
import math
import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import typer

from csr_qdrant import logs

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

PLAIN_SECONDS = 10.0  # between two lines of progress where stderr is no terminal
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_WIDE = 100_000  # columns of a pipe or a file: nothing is wrapped or cut there


class Output:
    """Where one command writes; `as_json` puts JSON on stdout instead of texts and tables."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        """Write JSON to stdout with `as_json`; with `quiet` only data, warnings and errors."""
        self.as_json = as_json
        self.quiet = quiet

    def result(self, value: Any, *views: "RenderableType") -> None:
        """Write one result: `value` as a JSON document, or else the views one below the other."""
        if self.as_json:
            typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False))
            return
        for view in views:
            self._view(view)

    def row(self, value: Any, *views: "RenderableType") -> None:
        """Write one of many results as soon as it is there: a line of JSON, or else the views."""
        if self.as_json:
            typer.echo(json.dumps(plain(value), ensure_ascii=False, allow_nan=False))
            return
        for view in views:
            self._view(view)

    def note(self, text: str) -> None:
        """Tell the user something on stderr that is no data."""
        if not self.quiet:
            self._tell("info", text)

    def warn(self, text: str) -> None:
        """Warn the user on stderr, quiet or not."""
        self._tell("warning", text)

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question on stderr; anything but yes, or no terminal, means no."""
        if not sys.stdin.isatty():
            return False
        return typer.confirm(question, default=False, err=True)

    @contextmanager
    def progress(
        self, label: str, total: int | None = None, unit: str = "rows"
    ) -> Iterator["Progress"]:
        """Show how far a loop is: a bar on a terminal, otherwise a line every ten seconds."""
        if self.quiet or logs.as_json() or not sys.stderr.isatty():
            lines = _Lines(self, label, total, unit)
            yield lines
            lines.finish()
            return
        bar = _Bar(self._stderr, label, total, unit)
        with bar.live:
            yield bar

    def _view(self, view: "RenderableType") -> None:
        if isinstance(view, str):
            typer.echo(clean(view))
        else:
            _console(sys.stdout.isatty(), stderr=False).print(view)

    @cached_property
    def _stderr(self) -> "Console":
        # The one console of progress bars too, so that notes appear above a running bar.
        return _console(sys.stderr.isatty(), stderr=True)

    def tell_progress(self, text: str, fields: Mapping[str, Any]) -> None:
        """Say on stderr how far a loop is: the text, or with CSR_LOG=json its numbers too."""
        if not self.quiet:
            self._tell("info", text, fields)

    def _tell(self, level: str, text: str, fields: Mapping[str, Any] | None = None) -> None:
        if logs.as_json():
            typer.echo(logs.log_line(level, text, fields), err=True)
            return
        from rich.text import Text

        text = f"Warning: {text}" if level == "warning" else text
        self._stderr.print(Text(clean(text)), soft_wrap=True)


class Progress(ABC):
    """How far a loop is; `done` counts up to `total` (None: not known)."""

    def __init__(self, label: str, total: int | None, unit: str) -> None:
        """Start at zero."""
        self.label, self.total, self.unit = label, total, unit
        self.done = 0

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count `count` more; `note` stands beside the figures (a loss, a rate)."""
        self.update(self.done + count, note)

    @abstractmethod
    def update(self, done: int, note: str = "") -> None:
        """Set the count."""


class _Lines(Progress):
    def __init__(self, output: Output, label: str, total: int | None, unit: str) -> None:
        super().__init__(label, total, unit)
        self._output = output
        self._started = self._said = time.monotonic()
        self._note = ""

    def update(self, done: int, note: str = "") -> None:
        self.done, self._note = done, note or self._note
        if time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            self._say()

    def finish(self) -> None:
        if self._said > self._started:  # short loops say nothing at all
            self._say()

    def _say(self) -> None:
        parts = [f"{self.label}: {self.done:,}"]
        if self.total:
            parts[0] += f" of {self.total:,} {self.unit} ({100 * self.done / self.total:.0f} %)"
        else:
            parts[0] += f" {self.unit}"
        seconds = time.monotonic() - self._started
        parts.append(f"{seconds:.0f} s")
        numbers = {"task": self.label, "done": self.done, "total": self.total, "unit": self.unit}
        self._output.tell_progress(
            ", ".join([*parts, *filter(None, [self._note])]),
            {**numbers, "seconds": round(seconds, 3)},
        )


class _Bar(Progress):
    def __init__(self, console: "Console", label: str, total: int | None, unit: str) -> None:
        from rich import progress as rich

        super().__init__(label, total, unit)
        self.live = rich.Progress(
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TextColumn(unit),
            rich.TimeElapsedColumn(),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[note]}", markup=False),
            console=console,
            redirect_stdout=False,  # data must not land on stderr
        )
        self._task = self.live.add_task(label, total=total, note="")

    def update(self, done: int, note: str = "") -> None:
        self.done = done
        self.live.update(self._task, completed=done)
        if note:
            self.live.update(self._task, note=note)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str = "") -> "Table":
    """Return a table; columns whose cells are all numbers or dashes are set to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        numeric = all(_looks_numeric(row[index]) for row in rows)
        made.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(clean(str(cell))) for cell in row))
    return made


def plain(value: Any) -> Any:
    """Return `value` as JSON types: dataclasses and named tuples as objects, NaN as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def clean(text: str) -> str:
    """Return `text` with control characters made visible: data must not steer the terminal."""
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def _console(terminal: bool, *, stderr: bool) -> "Console":
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            raise  # it is called while the error is handled; `errors.py` knows what to do

    width = None if terminal else _WIDE
    return PlainConsole(stderr=stderr, width=width, markup=False, highlight=False, emoji=False)


def _looks_numeric(cell: Any) -> bool:
    text = str(cell).replace(",", "").strip("–-+ %×")
    return not text or text.replace(".", "", 1).isdigit()
