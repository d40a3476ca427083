"""Tasks of images as the benchmark takes them: exact search gives the protocols' values."""

import numpy as np
import pytest

from csr_qdrant.benchmarks.image_bench import image_text_bench, labelled_bench
from csr_qdrant.benchmarks.image_text_metrics import exact_retrieval
from csr_qdrant.benchmarks.image_text_task import ImageTextVectors
from csr_qdrant.benchmarks.labelled_metrics import average_precision, knn_top1
from csr_qdrant.benchmarks.labelled_task import LabelledData, LabelledRows
from csr_qdrant.benchmarks.matrix.task import limited
from csr_qdrant.benchmarks.neighbours import exact_neighbours
from csr_qdrant.errors import ConfigError

RNG = np.random.default_rng(0)


def _rows(n: int) -> LabelledRows:
    labels = np.arange(n) % 6
    vectors = np.eye(6)[labels] + 0.7 * RNG.standard_normal((n, 6))
    return LabelledRows(name="rows", vectors=vectors.astype(np.float32), labels=labels)


def test_labelled_images() -> None:
    data = LabelledData(gallery=_rows(200), queries=_rows(60))
    task = labelled_bench("digits", data, ranks=(10, 25), knn=(20,))
    assert (task.kind, task.measure, task.depth, task.supervision) == (
        "labelled",
        "top1",
        25,
        "labels",
    )
    found = exact_neighbours(task.queries, task.vectors, task.depth)
    values = task.judge(found)
    assert task.measure in values
    labels, wanted = data.gallery.labels, data.queries.labels
    expected = average_precision(found, labels, wanted, 25)
    np.testing.assert_array_equal(values["map@25"], expected)
    np.testing.assert_array_equal(values["knn@20"], knn_top1(found, labels, wanted, 20))
    few = limited(task, 7)
    found = exact_neighbours(few.queries, few.vectors, few.depth)
    assert few.judge(found)["map@25"].tolist() == expected[:7].tolist()


def test_images_and_captions() -> None:
    image_of = np.repeat(np.arange(30), 5)
    images = RNG.standard_normal((30, 8)).astype(np.float32)
    captions = (images[image_of] + 2 * RNG.standard_normal((150, 8))).astype(np.float32)
    data = ImageTextVectors(name="set", images=images, captions=captions, image_of=image_of)
    both = image_text_bench("coco", data)
    for task, expected in zip(both, exact_retrieval(images, captions, image_of), strict=True):
        values = task.judge(exact_neighbours(task.queries, task.vectors, task.depth))
        assert task.measure is not None and task.measure.endswith("@5")
        assert task.measure in values and list(values) == list(expected.values)
        for name, hits in values.items():
            np.testing.assert_array_equal(hits, expected.values[name])
        few = limited(task, 12)
        part = few.judge(exact_neighbours(few.queries, few.vectors, few.depth))
        assert part[task.measure].tolist() == values[task.measure][:12].tolist()
    assert both[0].clusters is not None and both[0].clusters.tolist() == image_of.tolist()
    assert both[1].clusters is None  # an image is one query
    assert (both[0].name, both[1].name) == ("coco, text to image", "coco, image to text")
    with pytest.raises(ConfigError, match="recall is measured at 1, 5, 10, got 3"):
        image_text_bench("coco", data, by=3)
