"""Recall of retrieval between images and captions, by CLIP_benchmark's protocol.

A query counts 1 if any right result is among its k first, else 0 (LAION-AI/CLIP_benchmark,
`metrics/zeroshot_retrieval.py`): of a caption, its one image (`image_retrieval_recall@k`); of an
image, any of its captions (`text_retrieval_recall@k`). That is `hit_rate_at_k` of mteb, not its
`recall_at_k`. Vectors are compared by cosine.

An image's captions are not independent of each other: intervals resample images, each with all of
its queries, and so do intervals of the difference of two systems.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from csr_qdrant.benchmarks.matrix.statistics import Comparison, compared, mean_interval
from csr_qdrant.benchmarks.metrics import Floats, Interval, Rows
from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours, exact_neighbours
from csr_qdrant.errors import ConfigError

Judge = Callable[[Neighbours], Mapping[str, Floats]]

KS = (1, 5, 10)
TO_IMAGE, TO_TEXT = "image_retrieval_recall", "text_retrieval_recall"


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """What a search in one direction found, query by query."""

    values: Mapping[str, Floats]  # by measure, such as `image_retrieval_recall@5`: (m,) of 0 and 1
    clusters: Rows  # (m,) the image that each query belongs to

    def intervals(self, *, seed: int = 0) -> dict[str, Interval]:
        """Return each measure's mean and its 95 % bootstrap interval over images."""
        return {
            name: mean_interval(values, self.clusters, seed=seed)
            for name, values in self.values.items()
        }

    def compared(self, baseline: "Hits", *, seed: int = 0) -> dict[str, Comparison]:
        """Compare with another system on the same queries, over images, measure by measure.

        Raises ConfigError if the measures or the queries are others.
        """
        if list(self.values) != list(baseline.values) or not np.array_equal(
            self.clusters, baseline.clusters
        ):
            raise ConfigError(
                f"systems are compared on the same queries and measures, got "
                f"{', '.join(self.values)} of {len(self.clusters)} queries and "
                f"{', '.join(baseline.values)} of {len(baseline.clusters)}"
            )
        return {
            name: compared(values, baseline.values[name], self.clusters, seed=seed)
            for name, values in self.values.items()
        }


def image_retrieval(found: Neighbours, image_of: Rows, *, ks: Sequence[int] = KS) -> Hits:
    """Judge searches by caption among images.

    Args:
        found: rows of images for each caption, best first, -1 where none was found.
        image_of: the row of each caption's image, (c,); results of the first captions only are
            judged by the first of these.
        ks: how many results count; as many must be there, or all images.
    """
    wanted = _asked(image_of, found)
    _check_depth(found, ks, int(np.max(image_of, initial=-1)) + 1)
    right = found.rows == wanted[:, None]
    return Hits(values=_recalls(TO_IMAGE, right, ks), clusters=wanted)


def text_retrieval(found: Neighbours, image_of: Rows, *, ks: Sequence[int] = KS) -> Hits:
    """Judge searches by image among captions; arguments as of `image_retrieval`.

    `found` has a row an image, in the order that `image_of` counts them.
    """
    images = np.arange(int(np.max(image_of, initial=-1)) + 1)
    wanted = _asked(images, found)
    _check_depth(found, ks, len(image_of))
    owners = np.where(found.rows >= 0, image_of[np.maximum(found.rows, 0)], -1)
    return Hits(values=_recalls(TO_TEXT, owners == wanted[:, None], ks), clusters=wanted)


def _recalls(name: str, right: npt.NDArray[np.bool_], ks: Sequence[int]) -> dict[str, Floats]:
    return {f"{name}@{k}": np.asarray(right[:, :k].any(axis=1), np.float64) for k in ks}


def _asked(wanted: Rows, found: Neighbours) -> Rows:
    if len(found.rows) > len(wanted):
        raise ConfigError(f"got {len(found.rows)} rows of results for {len(wanted)} queries")
    return wanted[: len(found.rows)]


def _check_depth(found: Neighbours, ks: Sequence[int], size: int) -> None:
    if not ks or min(ks) < 1 or found.rows.shape[1] < min(max(ks), size):
        raise ConfigError(
            f"recall needs k of at least 1 and as many results a query, got k = "
            f"{', '.join(map(str, ks)) or 'none'} and {found.rows.shape[1]} results"
        )


def judges(image_of: Rows, *, ks: Sequence[int] = KS) -> tuple[Judge, Judge]:
    """Return functions from results to measures: of searches by caption, and by image."""
    return (
        lambda found: image_retrieval(found, image_of, ks=ks).values,
        lambda found: text_retrieval(found, image_of, ks=ks).values,
    )


def exact_retrieval(
    images: Matrix, captions: Matrix, image_of: Rows, *, ks: Sequence[int] = KS
) -> tuple[Hits, Hits]:
    """Return the hits of exact search: by caption among images, and by image among captions.

    `images` (i, d) and `captions` (c, d) need not be normalised. In blocks: the matrix of all
    scores is never there. Equal scores stand by rising row number.
    """
    depth = max(ks, default=0)
    return (
        image_retrieval(exact_neighbours(captions, images, depth), image_of, ks=ks),
        text_retrieval(exact_neighbours(images, captions, depth), image_of, ks=ks),
    )
