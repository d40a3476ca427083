"""What a person sees of a training run: a bar with the latest figures, a line a validation."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from csr_qdrant.cli.output import Output, Progress, table
from csr_qdrant.trainer.config import TrainConfig

if TYPE_CHECKING:
    from csr_qdrant.trainer import Listeners, StepReport, Validation


class Watch:
    """Follows a run on stderr, and in TensorBoard if a folder is given; use it in `with`."""

    def __init__(self, out: Output, config: TrainConfig, tensorboard: Path | None = None) -> None:
        """Raise MissingExtraError if TensorBoard is wanted but not installed."""
        self._out, self._config = out, config
        self._board: Any = None
        if tensorboard is not None:
            from csr_qdrant.trainer.tensorboard import TensorBoardLog

            self._board = TensorBoardLog(tensorboard)
        self._stack = ExitStack()
        self._progress: Progress | None = None
        self._measured = ""

    def __enter__(self) -> Self:
        """Show the bar."""
        if self._board is not None:
            self._stack.callback(self._board.close)
        if (minutes := self._config.minutes) is not None:
            total, unit = 60 * minutes, "s"
        elif self._config.epochs is not None:  # how many steps that is shows once data are read
            total, unit = 100, "%"
        else:
            total, unit = self._config.steps, "steps"
        bar = self._out.progress("training", max(1, round(total)), unit)
        self._progress = self._stack.enter_context(bar)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._stack.__exit__(kind, error, trace)

    @property
    def listeners(self) -> "Listeners":
        """What `fit` calls."""
        from csr_qdrant.trainer import Listeners

        return Listeners(on_step=self._step, on_validation=self._validation)

    def _step(self, report: "StepReport") -> None:
        if self._board is not None:
            self._board.on_step(report)
        if self._progress is not None and self._progress.total:
            done = report.step
            if self._config.minutes is not None or self._config.epochs is not None:
                done = round(report.progress * self._progress.total)
            note = f"loss {report.loss:.3f}, {report.dead:,} dead{self._measured}"
            self._progress.update(done, note)

    def _validation(self, validation: "Validation") -> None:
        if self._board is not None:
            self._board.on_validation(validation)
        best = validation.at[-1]
        self._measured = f", recall@10 {best.recall:.3f}, postings {best.postings:.4f} N"
        at = "; ".join(
            f"k={m.k}: recall@10 {m.recall:.3f}, postings {m.postings:.4f} N" for m in validation.at
        )
        self._out.note(f"step {validation.step:,}: {at}")


def validation_views(validation: dict[str, Any]) -> list[Any]:
    """Return one validation, as `Validation.to_json` gives it: a heading and a table."""
    columns = ("k", "recall@10", "FVU", "postings a query", "longest list")
    rows = [
        (
            measured["k"],
            f"{measured['recall']:.3f}",
            f"{measured['fvu']:.3f}",
            f"{measured['postings']:.4f} N",
            f"{100 * measured['longest_list']:.1f} %",
        )
        for measured in validation["at"]
    ]
    heading = (
        f"held-out rows after {validation['step']:,} steps, of N documents; "
        f"{100 * validation['dead']:.1f} % of the latents are dead"
    )
    return [heading, table(columns, rows)]
