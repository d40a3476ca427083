"""Images of a source to vectors: threads decode and transform while the model runs."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.embedders.base import ImageEmbedder
from csr_qdrant.errors import ConfigError
from csr_qdrant.images import UndecodableError, decoded
from csr_qdrant.sources.images import ImageRow


class Skipped(NamedTuple):
    """An image without a vector."""

    id: str
    reason: str


class ImageBatch(NamedTuple):
    """Consecutive rows of a source, less those that were skipped."""

    rows: list[ImageRow]  # their data are dropped
    vectors: npt.NDArray[np.float32]  # (n, d)
    skipped: list[Skipped]


class _Prepared(NamedTuple):
    row: ImageRow
    value: Any  # what the embedder takes
    reason: str | None  # why there is none


class RowEmbedder:
    """Embeds rows of images in batches, decoding up to two batches ahead in `workers` threads."""

    def __init__(self, embedder: ImageEmbedder, batch_size: int = 64, workers: int = 4) -> None:
        """Raise ConfigError for sizes below 1."""
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        if workers < 1:
            raise ConfigError(f"workers must be at least 1, got {workers}")
        self._embedder, self._batch_size, self._workers = embedder, batch_size, workers

    def batches(self, rows: Iterable[ImageRow]) -> Iterator[ImageBatch]:
        """Yield the vectors of `rows`, in their order; images that do not decode are skipped.

        Only the last batch may be smaller than the others, and empty but for what was skipped.
        """
        kept: list[_Prepared] = []
        skipped: list[Skipped] = []
        for prepared in self._prepared(rows):
            if prepared.reason is not None:
                skipped.append(Skipped(prepared.row.id, prepared.reason))
                continue
            kept.append(prepared)
            if len(kept) == self._batch_size:
                yield self._batch(kept, skipped)
                kept, skipped = [], []
        if kept or skipped:
            yield self._batch(kept, skipped)

    def _batch(self, kept: list[_Prepared], skipped: list[Skipped]) -> ImageBatch:
        if kept:
            vectors = self._embedder.embed_prepared([each.value for each in kept])
        else:
            vectors = np.zeros((0, self._embedder.dimension), np.float32)
        return ImageBatch([each.row for each in kept], vectors, skipped)

    def _prepared(self, rows: Iterable[ImageRow]) -> Iterator[_Prepared]:
        with _pool(self._workers) as pool:
            ahead: deque[Future[_Prepared]] = deque()
            for row in rows:
                ahead.append(pool.submit(self._prepare, row))
                if len(ahead) > 2 * self._batch_size + self._workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def _prepare(self, row: ImageRow) -> _Prepared:
        bare = row._replace(data=b"")
        if row.refused is not None:
            return _Prepared(bare, None, row.refused)
        try:
            return _Prepared(bare, self._embedder.prepare(decoded(row.data)), None)
        except UndecodableError as error:
            return _Prepared(bare, None, str(error))


@contextmanager
def _pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        yield pool
    finally:  # what waits is not begun any more where the run stops early
        pool.shutdown(cancel_futures=True)
