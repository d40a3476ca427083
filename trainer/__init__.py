"""Training of CSR encoders, on torch; importing it loads no torch until something is used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from csr_qdrant.errors import MissingExtraError
from csr_qdrant.trainer.config import TrainConfig

if TYPE_CHECKING:
    from csr_qdrant.trainer.linear import fit_linear
    from csr_qdrant.trainer.linear_config import LinearConfig
    from csr_qdrant.trainer.loop import fit
    from csr_qdrant.trainer.reports import Listeners, StepReport
    from csr_qdrant.trainer.supervision import Pairs
    from csr_qdrant.trainer.validation import Validation

__all__ = [
    "LinearConfig",
    "Listeners",
    "Pairs",
    "StepReport",
    "TrainConfig",
    "Validation",
    "fit",
    "fit_linear",
]

_HOMES = {
    "LinearConfig": "csr_qdrant.trainer.linear_config",
    "Listeners": "csr_qdrant.trainer.reports",
    "Pairs": "csr_qdrant.trainer.supervision",
    "StepReport": "csr_qdrant.trainer.reports",
    "Validation": "csr_qdrant.trainer.validation",
    "fit": "csr_qdrant.trainer.loop",
    "fit_linear": "csr_qdrant.trainer.linear",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("torch", "train") from error
