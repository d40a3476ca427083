"""Training of CSR encoders, on torch."""

from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.loop import Listeners, StepReport, fit
from csr_qdrant.trainer.supervision import Pairs
from csr_qdrant.trainer.validation import Validation

__all__ = ["Listeners", "Pairs", "StepReport", "TrainConfig", "Validation", "fit"]
