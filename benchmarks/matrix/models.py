"""What some systems must learn first, kept in the benchmark's folder, so a run goes on there."""

import hashlib
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csr_qdrant.atomic import replaced_file
from csr_qdrant.benchmarks.dims_systems import Components
from csr_qdrant.benchmarks.matrix.config import KS, BenchConfig
from csr_qdrant.benchmarks.matrix.task import BenchTask
from csr_qdrant.benchmarks.neighbours import Matrix, unit_rows
from csr_qdrant.encoder import Encoder, check_k
from csr_qdrant.errors import CsrError
from csr_qdrant.linear import LinearAdapter

TRAINED_ROWS = 1_000_000  # of a larger collection, PCA and adapters see a sample

Watch = Callable[[str], AbstractContextManager[Any]]  # gives a training's listeners, by its name


class Coder(NamedTuple):
    """An encoder, and what it is called."""

    label: str  # "", or what tells it from others
    ks: tuple[int, ...]  # active latents of documents
    encoder: Encoder
    train_s: float


class Shortener(NamedTuple):
    """Something that makes shorter or other dense vectors."""

    supervision: str | None
    apply: Callable[[Matrix, int], Matrix]  # (n, d), size -> (n, size)
    train_s: float
    fingerprint: str


@dataclass(frozen=True)
class Models:
    """Learns from a task's vectors, each thing once."""

    task: BenchTask
    config: BenchConfig
    folder: Path
    watch: Watch
    tell: Callable[[str], None] = lambda step: None

    def coders(self) -> list[Coder]:
        """Return the encoders: those that were given, or else one a kind of supervision."""
        if self.config.encoder:
            return [self._given(path) for path in self.config.encoder]
        return [self._trained(kind) for kind in self._kinds()]

    def adapters(self, method: str) -> list[Shortener]:
        """Return linear adapters trained by `method`: `mrl`, or `adapter` from supervision."""
        kinds = self._kinds() if method == "mrl" else [k for k in self._kinds() if k]
        return [self._adapter(method, kind) for kind in kinds]

    def pca(self) -> Shortener:
        """Return the projection onto principal components of the centred vectors."""
        path = self.folder / f"pca-{self._identity()}.npz"
        if not path.exists():
            self.tell("finding principal components")
            started = time.perf_counter()
            found = Components.of(self._sample())
            seconds = time.perf_counter() - started
            path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(path) as temporary, temporary.open("wb") as file:
                np.savez(file, mean=found.mean, axes=found.axes, seconds=seconds)
        with np.load(path) as saved:
            components = Components(saved["mean"], saved["axes"])
            seconds = float(saved["seconds"])
        digest = hashlib.sha256(components.axes.tobytes() + components.mean.tobytes())
        return Shortener(None, components.project, seconds, digest.hexdigest()[:16])

    def _kinds(self) -> list[str | None]:
        known = self.task.supervision if self.config.supervised else None
        return [None] if known is None else [None, known]

    def _trained(self, kind: str | None) -> Coder:
        from csr_qdrant.trainer import TrainConfig, fit

        name = "alone" if kind is None else kind
        folder = self.folder / f"encoder-{name}-{self._identity()}"
        if not folder.exists():
            # A killed run goes on from its checkpoint.
            checkpoint = folder.with_suffix(".checkpoint")
            checkpoint.parent.mkdir(parents=True, exist_ok=True)
            settings = TrainConfig(
                k=self.config.k or KS, minutes=self.config.minutes, seed=self.config.seed
            )
            with self.watch(f"training an encoder ({name})") as listeners:
                encoder = fit(
                    self.task.vectors,
                    settings,
                    labels=self.task.labels if kind == "labels" else None,
                    pairs=self.task.pairs if kind == "pairs" else None,
                    device=self.config.device,
                    checkpoint=checkpoint,
                    listeners=listeners,
                    info={"embedder": self.task.embedder},
                )
            encoder.save(folder)
            checkpoint.unlink(missing_ok=True)
        encoder = Encoder.load(folder)
        ks = tuple(sorted(self.config.k or KS))
        return Coder(kind or "", ks, encoder, encoder.info["seconds"])

    def _given(self, path: Path) -> Coder:
        encoder, d = Encoder.load(path), self.task.vectors.shape[1]
        if encoder.d != d:
            raise CsrError(
                f"{path} encodes vectors of {encoder.d} dimensions, got {d}: give an encoder that "
                "was trained on such vectors"
            )
        if encoder.embedder and self.task.embedder and encoder.embedder != self.task.embedder:
            self.tell(
                f"{path} was trained on vectors of {encoder.embedder}, these are of "
                f"{self.task.embedder}: its figures may say little"
            )
        names = [each.resolve().name for each in self.config.encoder]
        label = path.resolve().name if len(names) > 1 else ""
        if names.count(label) > 1:
            label = str(path)
        trained = encoder.info.get("training", {}).get("k") or (encoder.k,)
        ks = tuple(sorted(self.config.k or trained))
        check_k(ks[-1], encoder.h)
        return Coder(label, ks, encoder, float(encoder.info.get("seconds") or 0.0))

    def _adapter(self, method: str, kind: str | None) -> Shortener:
        from csr_qdrant.trainer.linear import fit_linear
        from csr_qdrant.trainer.linear_config import LinearConfig

        folder = self.folder / f"{method}-{kind or 'alone'}-{self._identity()}"
        if not folder.exists():
            what = "MRL adapter" if method == "mrl" else "dense adapter"
            self.tell(f"training the {what} ({kind or 'alone'})")
            d = self.task.vectors.shape[1]
            sizes = (*self.config.sizes(d), d) if method == "mrl" else None
            settings: dict[str, Any] = {"method": method, "dims": sizes, "seed": self.config.seed}
            fit_linear(
                self.task.vectors,
                LinearConfig(**settings),
                labels=self.task.labels if kind == "labels" else None,
                pairs=self.task.pairs if kind == "pairs" else None,
                device=self.config.device,
            ).save(folder)
        adapter = LinearAdapter.load(folder)
        return Shortener(kind, adapter.apply, adapter.info["seconds"], adapter.fingerprint)

    def _sample(self) -> Matrix:
        vectors = self.task.vectors
        if len(vectors) <= TRAINED_ROWS:
            return vectors
        rows = np.linspace(0, len(vectors) - 1, TRAINED_ROWS, dtype=np.int64)
        return np.asarray(vectors[rows])

    def _identity(self) -> str:
        """Return what tells models of other settings or other vectors apart."""
        config = self.config
        task = self.task.fingerprint, self.task.supervision_fingerprint
        said = [*task, config.minutes, config.k, config.seed, config.dims]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:8]


def first_dimensions(rows: Matrix, dims: int) -> Matrix:
    """Return the first `dims` dimensions at norm 1, (n, dims)."""
    return unit_rows(rows[:, :dims])
