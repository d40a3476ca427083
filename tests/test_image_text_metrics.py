"""Image-text retrieval against CLIP_benchmark's formulae over the full matrix of scores."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from csr_qdrant.benchmarks.image_text_metrics import (
    KS,
    exact_retrieval,
    image_retrieval,
    judges,
    text_retrieval,
)
from csr_qdrant.benchmarks.metrics import Floats, Rows
from csr_qdrant.benchmarks.neighbours import Matrix, Neighbours, exact_neighbours
from csr_qdrant.errors import ConfigError


class _Set(NamedTuple):
    images: Matrix
    captions: Matrix
    image_of: Rows


def _set(images: int, seed: int = 0, noise: float = 2.5) -> _Set:
    """Return images of five to seven captions each, in no order."""
    rng = np.random.default_rng(seed)
    image_of = rng.permutation(np.repeat(np.arange(images), rng.integers(5, 8, images)))
    vectors = rng.standard_normal((images, 16))
    captions = vectors[image_of] + noise * rng.standard_normal((len(image_of), 16))
    return _Set((3 * vectors).astype(np.float32), captions.astype(np.float32), image_of)


def _full_matrix(data: _Set, k: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Return hits as CLIP_benchmark defines them: recall above 0 in the matrix of all pairs."""
    texts, pictures = (normalize(torch.from_numpy(x).double(), dim=-1) for x in data[1::-1])
    scores = texts @ pictures.T
    positive = torch.zeros_like(scores, dtype=torch.bool)
    positive[torch.arange(len(scores)), torch.from_numpy(data.image_of)] = True
    hits = {}
    for name, rows, right in (
        ("image_retrieval_recall", scores, positive),
        ("text_retrieval_recall", scores.T, positive.T),
    ):
        best = rows.topk(k, dim=1).indices
        recall = right.gather(1, best).sum(1) / right.sum(1)
        hits[f"{name}@{k}"] = (recall > 0).numpy()
    return hits


@pytest.mark.parametrize("images", [11, 300])
def test_recalls_are_those_of_the_full_matrix(images: int) -> None:
    data = _set(images)
    by_caption, by_image = exact_retrieval(*data)
    ours = {**by_caption.values, **by_image.values}
    assert len(ours) == 2 * len(KS)
    for k in KS:
        for name, theirs in _full_matrix(data, k).items():
            np.testing.assert_array_equal(ours[name], theirs)
            assert ours[name].mean() == pytest.approx(theirs.mean(), abs=1e-9)
    assert 0.05 < ours["image_retrieval_recall@1"].mean() < 0.95


def _found(*rows: list[int]) -> Neighbours:
    return Neighbours(np.array(rows), np.zeros((len(rows), len(rows[0])), np.float32))


def test_recalls_by_hand() -> None:
    image_of = np.array([0, 0, 1, 2, 2])
    hits = image_retrieval(_found([0, 1], [1, 0], [0, 2], [2, -1], [-1, -1]), image_of, ks=(1, 2))
    assert hits.values["image_retrieval_recall@1"].tolist() == [1, 0, 0, 1, 0]
    assert hits.values["image_retrieval_recall@2"].tolist() == [1, 1, 0, 1, 0]
    assert hits.clusters.tolist() == image_of.tolist()
    hits = text_retrieval(_found([2, 1], [2, 3], [0, -1]), image_of, ks=(1, 2))
    assert hits.values["text_retrieval_recall@1"].tolist() == [0, 1, 0]
    assert hits.values["text_retrieval_recall@2"].tolist() == [1, 1, 0]
    assert hits.clusters.tolist() == [0, 1, 2]


def test_judges_take_the_first_queries() -> None:
    data = _set(40)
    by_caption, by_image = judges(data.image_of, ks=(1, 5))
    whole = exact_neighbours(data.captions, data.images, 5)
    first = Neighbours(whole.rows[:13], whole.scores[:13])
    for name, values in by_caption(first).items():
        np.testing.assert_array_equal(values, by_caption(whole)[name][:13])
    whole = exact_neighbours(data.images, data.captions, 5)
    first = Neighbours(whole.rows[:13], whole.scores[:13])
    for name, values in by_image(first).items():
        np.testing.assert_array_equal(values, by_image(whole)[name][:13])


# --- ties -------------------------------------------------------------------------------------


def _bounds(data: _Set, k: int) -> dict[str, tuple[Floats, Floats]]:
    """Return each query's hit if ties are broken as badly, and as well, as can be."""
    unit = [x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in data[:2]]
    scores = unit[1] @ unit[0].T
    right = data.image_of[:, None] == np.arange(len(data.images))
    bounds = {}
    for name, rows, relevant in (
        ("image_retrieval_recall", scores, right),
        ("text_retrieval_recall", scores.T, right.T),
    ):
        best = np.where(relevant, rows, -np.inf).max(axis=1, keepdims=True)
        better = (~relevant & (rows > best + 1e-6)).sum(axis=1)
        as_good = (~relevant & (rows > best - 1e-6)).sum(axis=1)
        bounds[f"{name}@{k}"] = ((as_good < k).astype(float), (better < k).astype(float))
    return bounds


@st.composite
def tied_sets(draw: st.DrawFn) -> _Set:
    """Draw vectors of few values, so that most scores are tied."""
    images, more = draw(st.integers(1, 8)), draw(st.integers(0, 12))
    vector = st.lists(st.sampled_from([0.0, 1.0, -1.0]), min_size=2, max_size=2).filter(any)
    owners = [
        *range(images),
        *draw(st.lists(st.integers(0, images - 1), min_size=more, max_size=more)),
    ]
    pictures, texts = (
        np.array(draw(st.lists(vector, min_size=n, max_size=n)), np.float32)
        for n in (images, len(owners))
    )
    return _Set(pictures, texts, np.array(owners))


@settings(max_examples=200, deadline=None)
@given(data=tied_sets(), k=st.sampled_from([1, 2, 5]))
def test_ties_explain_every_difference(data: _Set, k: int) -> None:
    by_caption, by_image = exact_retrieval(*data, ks=(k,))
    for hits in (by_caption, by_image):
        ((name, ours),) = hits.values.items()
        low, high = _bounds(data, k)[name]
        assert (low <= ours).all() and (ours <= high).all()
    if k <= len(data.images):  # the full matrix breaks ties otherwise, within the same bounds
        for name, theirs in _full_matrix(data, k).items():
            low, high = _bounds(data, k)[name]
            assert (low <= theirs).all() and (theirs <= high).all()


def test_equal_scores_stand_by_row() -> None:
    images = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    captions = np.array([[1, 0], [1, 0], [1, 0]], np.float32)
    by_caption, by_image = exact_retrieval(images, captions, np.array([1, 0, 2]), ks=(1, 2))
    assert by_caption.values["image_retrieval_recall@1"].tolist() == [0, 1, 0]
    assert by_caption.values["image_retrieval_recall@2"].tolist() == [1, 1, 0]
    assert by_image.values["text_retrieval_recall@1"].tolist() == [0, 1, 0]


# --- statistics -------------------------------------------------------------------------------


def test_intervals_resample_images() -> None:
    data = _set(120, noise=1.5)
    by_caption, by_image = exact_retrieval(*data)
    values = by_caption.values["image_retrieval_recall@1"]
    # A loop over resamples, each of which gathers the captions of the images drawn.
    rng = np.random.default_rng(7)
    groups = [values[data.image_of == image] for image in range(120)]
    means = [
        np.concatenate([groups[image] for image in rng.integers(0, 120, 120)]).mean()
        for _ in range(3000)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    found = by_caption.intervals()["image_retrieval_recall@1"]
    assert found.mean == pytest.approx(values.mean(), abs=1e-12)
    width = high - low
    assert found.low == pytest.approx(low, abs=0.1 * width)
    assert found.high == pytest.approx(high, abs=0.1 * width)
    assert by_caption.intervals() == by_caption.intervals()
    assert by_caption.intervals() != by_caption.intervals(seed=1)
    assert set(by_image.intervals()) == {f"text_retrieval_recall@{k}" for k in KS}


def test_captions_of_an_image_are_not_independent() -> None:
    # Of each image all five captions find it, or none: 40 images are 40 observations, not 200.
    image_of = np.repeat(np.arange(40), 5)
    nearest = np.where(np.arange(40) % 2, np.arange(40), (np.arange(40) + 1) % 40)
    rows = np.repeat(nearest, 5)[:, None]
    found = Neighbours(rows, np.ones((200, 1), np.float32))
    interval = image_retrieval(found, image_of, ks=(1,)).intervals()["image_retrieval_recall@1"]
    expected = 1.96 * 0.5 / np.sqrt(40)
    assert interval.mean == 0.5
    assert interval.high - interval.mean == pytest.approx(expected, rel=0.12)


def test_systems_are_compared_over_images() -> None:
    data = _set(150, noise=1.5)
    full, _ = exact_retrieval(*data)
    half, _ = exact_retrieval(data.images[:, :8], data.captions[:, :8], data.image_of)
    name = "image_retrieval_recall@5"
    found = full.compared(half)[name]
    gaps = full.values[name] - half.values[name]
    assert found.difference.mean == pytest.approx(gaps.mean(), abs=1e-12)
    assert (found.wins, found.losses) == ((gaps > 0).sum(), (gaps < 0).sum())
    sums = np.bincount(data.image_of, weights=gaps)
    sizes = np.bincount(data.image_of)
    rng = np.random.default_rng(5)
    draws = rng.integers(0, 150, (4000, 150))
    low, high = np.quantile(sums[draws].sum(1) / sizes[draws].sum(1), [0.025, 0.975])
    assert found.difference.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.difference.high == pytest.approx(high, abs=0.1 * (high - low))
    assert found.better and found.p < 0.01
    assert full.compared(full)[name].difference == (0, 0, 0)


def test_what_cannot_be_judged_is_refused() -> None:
    data = _set(40)
    by_caption, by_image = exact_retrieval(*data)
    with pytest.raises(ConfigError, match="compared on the same queries and measures"):
        by_caption.compared(by_image)
    found = exact_neighbours(data.captions, data.images, 5)
    with pytest.raises(ConfigError, match="got k = 1, 5, 10 and 5 results"):
        image_retrieval(found, data.image_of)
    with pytest.raises(ConfigError, match="got k = none and 5 results"):
        image_retrieval(found, data.image_of, ks=())
    with pytest.raises(ConfigError, match=r"rows of results for 3 queries"):
        image_retrieval(found, np.array([0, 1, 2]), ks=(1,))
    with pytest.raises(ConfigError, match=r"rows of results for 40 queries"):
        text_retrieval(found, data.image_of, ks=(1,))
