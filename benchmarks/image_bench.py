"""Labelled images, and images with captions, as tasks of `csr bench`."""

from collections.abc import Sequence

from csr_qdrant.benchmarks.image_text_metrics import KS, TO_IMAGE, TO_TEXT, judges
from csr_qdrant.benchmarks.image_text_task import ImageTextVectors
from csr_qdrant.benchmarks.labelled_metrics import Vote, depth_of, labelled_judge
from csr_qdrant.benchmarks.labelled_task import LabelledData
from csr_qdrant.benchmarks.matrix.task import BenchTask
from csr_qdrant.errors import ConfigError


def labelled_bench(
    name: str,
    data: LabelledData,
    *,
    ranks: Sequence[int] = (10,),
    knn: Sequence[int] = (),
    vote: Vote = "uniform",
    embedder: str | None = None,
) -> BenchTask:
    """Return the task of finding rows of the query's class; see `labelled_judge` for the measures.

    Systems are compared by `top1`, and may learn from the gallery's labels.
    """
    labels, wanted = data.gallery.labels, data.queries.labels
    return BenchTask(
        name=name,
        kind="labelled",
        vectors=data.gallery.vectors,
        queries=data.queries.vectors,
        measure="top1",
        judge=labelled_judge(labels, wanted, ranks=ranks, knn=knn, vote=vote),
        depth=depth_of(ranks=ranks, knn=knn),
        embedder=embedder,
        labels=labels,
    )


def image_text_bench(
    name: str, data: ImageTextVectors, *, by: int = 5, embedder: str | None = None
) -> tuple[BenchTask, BenchTask]:
    """Return the tasks of finding images by caption, and captions by image.

    Systems are compared by recall at `by`, one of 1, 5 and 10 (arXiv 2503.01776 reports 5), and
    intervals are those over images.
    """
    if by not in KS:
        raise ConfigError(f"recall is measured at {', '.join(map(str, KS))}, got {by}")
    to_image, to_text = judges(data.image_of)
    texts_to_images = BenchTask(
        name=f"{name}, text to image",
        kind="image-text",
        vectors=data.images,
        queries=data.captions,
        measure=f"{TO_IMAGE}@{by}",
        judge=to_image,
        depth=max(KS),
        embedder=embedder,
        clusters=data.image_of,
    )
    images_to_texts = BenchTask(
        name=f"{name}, image to text",
        kind="image-text",
        vectors=data.captions,
        queries=data.images,
        measure=f"{TO_TEXT}@{by}",
        judge=to_text,
        depth=max(KS),
        embedder=embedder,
    )
    return texts_to_images, images_to_texts
