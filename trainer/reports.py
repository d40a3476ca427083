"""What a run tells while it goes on, and to whom."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from csr_qdrant.trainer.validation import Validation


class StepReport(NamedTuple):
    """What a run tells every ten steps."""

    step: int  # steps done
    progress: float  # share of the run that is over, 0..1
    loss: float
    terms: dict[str, float]  # unweighted
    dead: int  # latents not active for `dead_after` steps
    lr: float


def _ignore(_: Any) -> None:
    pass


@dataclass(frozen=True)
class Listeners:
    """What to call as a run goes on."""

    on_step: Callable[[StepReport], None] = _ignore
    on_validation: Callable[[Validation], None] = _ignore
