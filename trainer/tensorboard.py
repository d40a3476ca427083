"""A training run as TensorBoard events: losses of steps, measures of validations."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from csr_qdrant.errors import MissingExtraError
from csr_qdrant.trainer.validation import Validation

if TYPE_CHECKING:
    from csr_qdrant.trainer.reports import Listeners, StepReport


class TensorBoardLog:
    """Writes what a run reports; pass `listeners` to `fit`, and `close` it at the end.

    A resumed run may write into the same folder: what was logged after its checkpoint is purged.
    """

    def __init__(self, folder: str | Path) -> None:
        """Log into `folder`, made at the first report; MissingExtraError without tensorboard."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard") from error
        self._make = SummaryWriter
        self._folder = str(folder)
        self._writer: Any = None

    @property
    def listeners(self) -> "Listeners":
        """The functions that `fit` calls."""
        from csr_qdrant.trainer.reports import Listeners

        return Listeners(on_step=self.on_step, on_validation=self.on_validation)

    def on_step(self, report: "StepReport") -> None:
        """Log the loss, its unweighted terms, the learning rate and the dead latents."""
        scalars = {"train/loss": report.loss, "train/lr": report.lr, "train/dead": report.dead}
        scalars |= {f"terms/{name}": value for name, value in report.terms.items()}
        self._write(scalars, report.step)

    def on_validation(self, validation: Validation) -> None:
        """Log the measures at each k."""
        scalars: dict[str, float] = {"validation/dead": validation.dead}
        for measured in validation.at:
            for name, value in measured._asdict().items():
                if name != "k":
                    scalars[f"{name}/k={measured.k}"] = value
        self._write(scalars, validation.step)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()

    def _write(self, scalars: dict[str, float], step: int) -> None:
        if self._writer is None:
            self._writer = self._make(self._folder, purge_step=step)
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)
