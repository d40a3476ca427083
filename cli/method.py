"""What `csr train` trains, and the settings that each method takes."""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from csr_qdrant.cli.rows import about
from csr_qdrant.errors import ConfigError
from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.linear_config import LinearConfig


@dataclass(frozen=True, kw_only=True)
class _Linear:
    """The method, and the settings that TrainConfig lacks."""

    method: Literal["csr", "mrl", "adapter"] = field(
        default="csr",
        metadata=about(
            "An encoder, or what it is compared with: a Matryoshka adapter, a linear adapter."
        ),
    )
    dims: tuple[int, ...] | None = field(
        default=None,
        metadata=about("Sizes that mrl trains; default: 8, 16, 32, … and that of the vectors."),
    )
    temperature: float | None = field(
        default=None,
        metadata=about(
            "Of the loss of mrl and adapter; default: 0.05 with labels or pairs, else 0.1."
        ),
    )


@dataclass(frozen=True, kw_only=True)
class MethodSettings(TrainConfig, _Linear):
    """The settings of all methods; no object of this class is ever made."""

    @classmethod
    def from_settings(cls, preset: str | None = None, **given: Any) -> Any:
        """Return the TrainConfig or the LinearConfig of what was given.

        Raises ConfigError for settings that the method does not take.
        """
        method = given.pop("method", "csr")
        if preset is not None:
            given["preset"] = preset
        if method == "csr":
            refuse_foreign(method, [name for name in ("dims", "temperature") if name in given])
            return TrainConfig.from_settings(**given)
        known = {each.name for each in fields(LinearConfig)}
        refuse_foreign(method, [name for name in given if name not in known])
        return LinearConfig(method=method, **given)


def refuse_foreign(method: str, names: Iterable[str]) -> None:
    """Raise ConfigError if there are `names`: settings that `method` does not take."""
    flags = ["--" + name.replace("_", "-") for name in names]
    if flags:
        it = "it" if len(flags) == 1 else "them"
        raise ConfigError(f"--method {method} does not take {', '.join(flags)}: leave {it} out")
