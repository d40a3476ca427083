"""The systems of `dims`, trained ones too, one at a time: together they would fill memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from csr_qdrant.benchmarks import dims_systems as systems
from csr_qdrant.benchmarks.dims_systems import Made
from csr_qdrant.benchmarks.dims_task import DimsTask
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError
from csr_qdrant.trainer import TrainConfig, fit
from csr_qdrant.trainer.linear import fit_linear
from csr_qdrant.trainer.linear_config import LinearConfig

KINDS = ("dense", "truncation", "pca", "binary", "adapters", "csr")


@dataclass(frozen=True, kw_only=True)
class DimsConfig:
    """What to train and measure."""

    ks: tuple[int, ...] = (2, 4, 8, 16, 32)
    kinds: tuple[str, ...] = KINDS
    supervised: tuple[bool, ...] = (False, True)
    seeds: int = 3
    nested: bool = True  # one encoder for all k; else one for each
    training: Mapping[str, Any]  # settings of TrainConfig
    adapter: Mapping[str, Any] = field(default_factory=dict)  # settings of LinearConfig
    device: str | None = None

    def __post_init__(self) -> None:
        """Check names and numbers."""
        unknown = sorted(set(self.kinds) - set(KINDS))
        if unknown or not self.kinds:
            raise ConfigError(f"kinds are {', '.join(KINDS)}, got {', '.join(unknown) or 'none'}")
        if not self.ks or min(self.ks) < 1 or self.seeds < 1:
            raise ConfigError(f"need k and seeds above 0, got k {self.ks}, {self.seeds} seeds")

    def train_config(self, seed: int, ks: tuple[int, ...]) -> TrainConfig:
        """Return the settings of one training of codes."""
        return TrainConfig.from_settings(**{**self.training, "k": ks, "seed": seed})

    def dims(self, d: int) -> tuple[int, ...]:
        """Return the numbers of dimensions that codes are held against: 2 k and 8 k, below d."""
        return tuple(sorted({m * k for k in self.ks for m in (2, 8) if m * k < d}))


def made_by(task: DimsTask, config: DimsConfig) -> Iterator[tuple[Made, dict[str, Any]]]:
    """Yield each system's vectors or codes, one at a time, and what there is to say of them."""
    both = vectors(task)
    dims = config.dims(task.gallery.shape[1])
    if "dense" in config.kinds:
        yield systems.dense(*both), {}
    if "truncation" in config.kinds:
        yield from ((systems.truncated(*both, m), {}) for m in dims)
    if "pca" in config.kinds and dims:
        yield from ((made, {}) for made in systems.principal(*both, dims))
    if "binary" in config.kinds:
        yield from ((systems.binary(*both, centred=each), {}) for each in (False, True))
    for seed in range(config.seeds):
        for supervised in config.supervised:
            if supervised and task.supervision is None:
                continue
            if "adapters" in config.kinds:
                yield from adapted(task, config, seed, supervised)
            if "csr" in config.kinds:
                yield from coded(task, config, seed, supervised)


def vectors(task: DimsTask) -> tuple[Matrix, Matrix]:
    """Return the gallery and the queries."""
    return task.gallery, task.queries


def coded(
    task: DimsTask, config: DimsConfig, seed: int, supervised: bool
) -> Iterator[tuple[Made, dict[str, Any]]]:
    """Yield codes at each k, of one encoder or of one for each k."""
    groups = [config.ks] if config.nested else [(k,) for k in config.ks]
    for ks in groups:
        encoder = fit(
            task.gallery,
            config.train_config(seed, ks),
            labels=task.labels if supervised else None,
            pairs=task.pairs if supervised else None,
            device=config.device,
        )
        gallery, queries = (
            encoder.encode(rows, max(ks), device=config.device) for rows in vectors(task)
        )
        for k in ks:
            made = systems.codes(gallery, queries, k, task.supervision if supervised else None)
            yield made, {**_origin(encoder, seed), "postings": _postings(made)}


def _origin(encoder: Encoder, seed: int) -> dict[str, Any]:
    info = encoder.info
    dead = info["validations"][-1]["dead"] if info["validations"] else None
    return {"seed": seed, "steps": info["steps"], "seconds": info["seconds"], "dead": dead}


def _postings(made: Made) -> float:
    assert isinstance(made.gallery, SparseCodes)
    return round(systems.postings(made.queries, made.gallery), 4)


def adapted(
    task: DimsTask, config: DimsConfig, seed: int, supervised: bool
) -> Iterator[tuple[Made, dict[str, Any]]]:
    """Yield the MRL adapter at each number of dimensions and, supervised, the dense adapter."""
    d, supervision = task.gallery.shape[1], task.supervision if supervised else None
    sizes = config.dims(d)
    plans = [("MRL adapter", LinearConfig(**config.adapter, dims=(*sizes, d), seed=seed), sizes)]
    if supervised:
        whole = LinearConfig(**config.adapter, method="adapter", seed=seed)
        plans.append(("dense adapter", whole, (d,)))
    for name, settings, dims in plans:
        adapter = fit_linear(
            task.gallery,
            settings,
            labels=task.labels if supervised else None,
            pairs=task.pairs if supervised else None,
            device=config.device,
        )
        gallery, queries = (adapter.apply(rows, max(dims)) for rows in vectors(task))
        for m in dims:
            made = systems.floats(name, gallery[:, :m], queries[:, :m], supervision)
            made_from = {name: adapter.info[name] for name in ("steps", "seconds")}
            yield made, {"seed": seed, **made_from}
