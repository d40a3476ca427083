"""`fit` with labels and with pairs: what they teach, and what is refused."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from csr_qdrant import Encoder, SparseCodes
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.trainer import Pairs, TrainConfig, fit
from csr_qdrant.trainer.adapter import adapt, learn_adapter
from csr_qdrant.trainer.folding import folded
from csr_qdrant.trainer.model import Autoencoder

Floats = npt.NDArray[np.float32]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small products are faster so, above all where other processes want the cores too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def unit(x: Any) -> Floats:
    return np.asarray(x / np.linalg.norm(x, axis=1, keepdims=True), np.float32)


def rows(n: int, d: int = 16) -> Floats:
    return np.random.default_rng(0).standard_normal((n, d)).astype(np.float32)


def config(**settings: Any) -> TrainConfig:
    values: dict[str, Any] = {"k": (16,), "h": 256, "steps": 60, "batch_size": 128, "held_out": 0}
    return TrainConfig(**(values | settings))


def small(**settings: Any) -> TrainConfig:
    return config(**({"k": (2, 4), "h": 32, "steps": 5, "batch_size": 16} | settings))


def cosines(queries: SparseCodes, documents: SparseCodes) -> Floats:
    return np.asarray(queries.normalised().to_dense() @ documents.normalised().to_dense().T)


def test_labels_make_codes_of_a_label_alike() -> None:
    rng = np.random.default_rng(0)
    # Labels show in two of 64 dimensions; together, the others are louder.
    labels = rng.integers(6, size=900)
    angles = labels * np.pi / 3
    x = 1.5 * rng.standard_normal((900, 64))
    x[:, 0], x[:, 1] = 3 * np.cos(angles), 3 * np.sin(angles)
    x = x.astype(np.float32)
    names = np.array(["ash", "birch", "cedar", "date", "elm", "fir"])[labels]

    def agreement(encoder: Encoder) -> float:
        scores = cosines(encoder.encode(x[:300]), encoder.encode(x[300:]))
        return float((labels[300:][scores.argmax(1)] == labels[:300]).mean())

    settings: dict[str, Any] = {"k": (8,), "h": 128, "steps": 80, "lr": 0.01}
    learned = fit(x[300:], config(**settings, supervised=4.0), labels=names[300:], device="cpu")
    alone = fit(x[300:], config(**settings), device="cpu")
    assert agreement(learned) > agreement(alone) + 0.15
    numbered = fit(x[300:], config(**settings, supervised=4.0), labels=labels[300:], device="cpu")
    assert numbered.fingerprint == learned.fingerprint


@pytest.mark.parametrize(
    "labels",
    [[0, 0, *range(1, 99)], [None] * 90 + ["a", "a", "b"] + [None] * 7],
    ids=["mostly alone", "mostly missing"],
)
def test_labels_that_are_hardly_ever_shared_train(labels: list[Any]) -> None:
    x = rows(100)
    encoder = fit(x, small(steps=20, batch_size=4), labels=labels, device="cpu")
    assert np.isfinite(encoder.weight).all()


def test_supervision_that_cannot_be_used_is_refused() -> None:
    x, labels = rows(50), np.arange(50) % 7
    with pytest.raises(CsrError, match="labels must differ, got a single label"):
        fit(x, small(), labels=np.zeros(50), device="cpu")
    with pytest.raises(CsrError, match="labels must be one a row: 50 rows"):
        fit(x, small(), labels=labels[:49], device="cpu")
    pairs = Pairs.of(x[:3], [0, 1], [7, 50])
    with pytest.raises(CsrError, match="pairs name document row 50, but there are 50"):
        fit(x, small(), pairs=pairs, device="cpu")
    with pytest.raises(ConfigError, match="labels and pairs cannot be learned together"):
        fit(x, small(), labels=labels, pairs=Pairs.of(x[:3], [0], [7]), device="cpu")
    queries = x[:3].copy()
    queries[1] = 0
    with pytest.raises(CsrError, match="row 1 of the query vectors is all zeros"):
        fit(x, small(), pairs=Pairs.of(queries, [0, 1], [7, 8]), device="cpu")


class Matching:
    """Documents and queries that share a signal in 12 of 32 dimensions; the rest is loud noise."""

    def __init__(self, n: int = 1200) -> None:
        rng = np.random.default_rng(5)
        signal, d = rng.standard_normal((n, 12)), 32

        def noisy(strength: float) -> Floats:
            noise = strength * rng.standard_normal((n, d - 12))
            turned = np.concatenate([signal, noise], 1) @ rotation
            return unit(turned + 0.1 * rng.standard_normal((n, d)))

        rotation = np.linalg.qr(rng.standard_normal((d, d)))[0]
        self.documents, self.queries = noisy(1.5), noisy(1.5)
        self.train, self.test = np.arange(n - 300), np.arange(n - 300, n)
        self.pairs = Pairs.of(self.queries[self.train], self.train, self.train)

    def recall(self, scores: Floats) -> float:
        """Share of test queries whose own document is among the first ten of `scores`."""
        own = scores[np.arange(len(self.test)), self.test]
        return float(((scores > own[:, None]).sum(1) < 10).mean())

    def recall_of(self, encoder: Encoder) -> float:
        queries = encoder.encode(self.queries[self.test])
        return self.recall(cosines(queries, encoder.encode(self.documents)))


@pytest.fixture(scope="module")
def matching() -> Matching:
    return Matching()


def test_pairs_teach_what_matters(matching: Matching) -> None:
    def recall(pairs: Pairs | None, **more: Any) -> float:
        settings = config(batch_size=256, **more)
        encoder = fit(matching.documents, settings, pairs=pairs, device="cpu")
        assert encoder.info["adapter"] == bool(pairs and more["adapter_steps"])
        return matching.recall_of(encoder)

    alone = recall(None)
    assert recall(matching.pairs, adapter_steps=150) > alone + 0.15
    # Without the adapter, what is learned comes from the supervised term.
    ignored = recall(matching.pairs, adapter_steps=0, supervised=0.0)
    assert recall(matching.pairs, adapter_steps=0, supervised=4.0, steps=200) > ignored + 0.15


def test_the_adapter_brings_queries_to_their_documents(matching: Matching) -> None:
    settings = config(adapter_steps=150, batch_size=256)
    adapter = learn_adapter(matching.documents, matching.pairs, settings, torch.device("cpu"))
    queries = adapt(adapter, matching.queries[matching.test])
    documents = adapt(adapter, matching.documents)
    assert np.linalg.norm(documents, axis=1) == pytest.approx(np.ones(len(documents)), rel=1e-5)
    before = matching.recall(matching.queries[matching.test] @ matching.documents.T)
    assert matching.recall(queries @ documents.T) > before + 0.2


def test_the_adapter_is_folded_into_the_encoder(matching: Matching) -> None:
    model = Autoencoder(32, 64, torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.latent_bias.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(1))
        model.pre_bias.uniform_(-0.2, 0.2, generator=torch.Generator().manual_seed(2))
    adapter = torch.eye(32) + 0.3 * torch.randn(32, 32, generator=torch.Generator().manual_seed(3))
    x = matching.documents[:200]
    encoder = model.to_encoder(2.0, k=8)
    direct = encoder.encode(x @ adapter.numpy().T, device="numpy")
    through = folded(encoder, adapter).encode(x, device="numpy")
    assert np.abs(through.to_dense() - direct.to_dense()).max() < 1e-5
    assert direct.lengths.min() == 8


def test_hard_negatives_join_the_batch_and_are_pushed_away() -> None:
    rng = np.random.default_rng(1)
    x = unit(rng.standard_normal((600, 32)))
    queries = unit(x[:40] + 0.3 * rng.standard_normal((40, 32)) / np.sqrt(32))
    # Each query's known wrong answer lies as near to it as the right one.
    x[100:140] = unit(queries + 0.3 * rng.standard_normal((40, 32)) / np.sqrt(32))
    q, right, wrong = np.arange(40), np.arange(40), np.arange(100, 140)
    pairs = Pairs.of(
        queries,
        np.concatenate([q, q]),
        np.concatenate([right, wrong]),
        np.repeat([1.0, 0.0], 40),
    )
    assert pairs.negatives.tolist() == [[i, 100 + i] for i in range(40)]
    settings: dict[str, Any] = {"adapter_steps": 0, "supervised": 3.0, "steps": 120}

    def margin(given: Pairs) -> float:
        encoder = fit(x, config(**settings), pairs=given, device="cpu")
        found = cosines(encoder.encode(queries), encoder.encode(x))
        return float((found[q, right] - found[q, wrong]).mean())

    assert margin(pairs) > margin(Pairs.of(queries, q, right)) + 0.1


def test_hard_negatives_that_answer_another_query_of_the_batch_are_not_its_negatives() -> None:
    pairs = Pairs.of(rows(3), [0, 1, 2, 0], [5, 6, 7, 6], [1, 1, 1, 0])
    known = pairs.known(np.array([0, 1]), np.array([5, 6]), np.array([6]))
    assert known.tolist() == [[False, False, False], [False, False, True]]
    rng = np.random.default_rng(0)
    assert pairs.negatives_of(np.array([0, 2]), 9, rng).tolist() == [6]
    assert pairs.negatives_of(np.array([1, 2]), 9, rng).tolist() == []


def test_two_modalities_through_one_encoder_find_each_other() -> None:
    rng = np.random.default_rng(2)
    meaning = rng.standard_normal((500, 6))
    # Vectors of both sides hold the meaning in their own way, beside noise.
    shared, of_images, of_texts = rng.standard_normal((3, 6, 24))
    images = unit(meaning @ (shared + of_images) + 0.1 * rng.standard_normal((500, 24)))
    texts = unit(meaning @ (shared + of_texts) + 0.1 * rng.standard_normal((500, 24)))
    every = np.arange(500)

    def found(**settings: Any) -> float:
        made = TrainConfig.from_settings(
            "paper-multimodal", k=(8,), h=128, steps=300, batch_size=128, held_out=0, lr=4e-3,
            **settings,
        )  # fmt: skip
        encoder = fit(images, made, pairs=Pairs.of(texts, every, every), device="cpu")
        near = cosines(encoder.encode(texts), encoder.encode(images)).argmax(1)
        return float((near == every).mean())

    alone = found(reconstructed_pairs=0.0)
    assert found() > alone + 0.1
    assert found(reconstructed_pairs=0.0, supervised=1.0, supervised_temperature=0.1) > alone + 0.1
