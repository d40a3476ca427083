"""Figures of a validation against the same figures from an encoder's codes, in plain numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from csr_qdrant import Encoder
from csr_qdrant.trainer import TrainConfig, fit
from csr_qdrant.trainer.data import Split
from csr_qdrant.trainer.dense_ops import DenseOps
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import Ops
from csr_qdrant.trainer.sparse_ops import SparseOps
from csr_qdrant.trainer.validation import Validator

Floats = npt.NDArray[np.float64]
both = pytest.mark.parametrize("ops", [DenseOps(), SparseOps(2)], ids=["dense", "sparse"])


def rows(n: int, d: int, seed: int = 0) -> Any:
    """Return vectors around twelve centres, of norms near 7."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, d))
    x = centres[rng.integers(12, size=n)] + 0.6 * rng.standard_normal((n, d))
    return (x * 7 / np.sqrt(d)).astype(np.float32)


def unit(x: npt.ArrayLike) -> Floats:
    wide = np.asarray(x, np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(norms > 0, norms, 1)


def plain_figures(encoder: Encoder, queries: Any, documents: Any, k: int) -> dict[str, float]:
    asked = encoder.encode(queries, k, device="numpy")
    stored = encoder.encode(documents, k, device="numpy")
    z_q, z_d = asked.to_dense(), stored.to_dense()
    dense = unit(queries) @ unit(documents).T
    coded = unit(z_q) @ unit(z_d).T
    wanted = min(10, len(documents))
    hits = 0
    for i in range(len(queries)):
        near = set(np.argsort(-dense[i], kind="stable")[:wanted].tolist())
        best = [
            j for j in np.argsort(-coded[i], kind="stable")[:wanted].tolist() if coded[i, j] > 0
        ]
        hits += len(near.intersection(best))
    error = ((encoder.decode(asked) - queries) ** 2).sum()
    postings = [sum(int((z_d[:, j] > 0).sum()) for j in np.flatnonzero(row)) for row in z_q]
    return {
        "k": k,
        "recall": hits / wanted / len(queries),
        "fvu": error / ((queries - documents.mean(0)) ** 2).sum(),
        "postings": float(np.mean(postings)) / len(documents),
        "longest_list": max((z_d > 0).sum(0)) / len(documents),
    }


@pytest.fixture(scope="module")
def vectors() -> Any:
    return rows(1500, 32)


@pytest.fixture(scope="module")
def trained(vectors: Any) -> Encoder:
    config = TrainConfig(k=(16, 4), h=96, steps=40, batch_size=128, held_out=120, seed=3)
    return fit(vectors, config, device="cpu")


def test_figures_of_a_run_are_those_of_the_encoder_that_it_returns(
    vectors: Any, trained: Encoder
) -> None:
    split = Split.random(1500, 120, 3)
    documents = vectors[split.training(np.arange(split.training_rows))]
    measured = trained.info["validations"][-1]
    assert measured["step"] == 40
    assert [at["k"] for at in measured["at"]] == [4, 16]
    for at in measured["at"]:
        plain = plain_figures(trained, vectors[split.held_out], documents, at["k"])
        # One hit more or less: the engine's rounding may swap two neighbours.
        assert at["recall"] == pytest.approx(plain.pop("recall"), abs=2 / (10 * 120))
        assert {name: at[name] for name in plain} == pytest.approx(plain, rel=1e-3)
    used = trained.encode(documents, 16).indices
    assert measured["dead"] == pytest.approx(1 - len(np.unique(used)) / 96)


def model_of(d: int, h: int, bias: float = 0.0) -> Autoencoder:
    model = Autoencoder(d, h, torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.latent_bias.fill_(bias)
    return model


def tensors(n: int, d: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(rows(n, d, seed))


@both
def test_blocks_change_nothing(ops: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, documents, model = tensors(37, 16, 1), tensors(203, 16, 2), model_of(16, 64)
    whole = Validator.of(queries, documents).measure(model, ops, (2, 8), 5)
    monkeypatch.setattr("csr_qdrant.trainer.validation.BLOCK", 10)
    monkeypatch.setattr("csr_qdrant.trainer.sparse_ops.FEW_ROWS", 5)
    monkeypatch.setattr("csr_qdrant.trainer.sparse_ops.BLOCK_BYTES", 1)
    monkeypatch.setattr("csr_qdrant.trainer.dense_ops.CHUNK_BYTES", 2000)
    parts = Validator.of(queries, documents).measure(model, ops, (2, 8), 5)
    assert (parts.step, parts.dead) == (whole.step, whole.dead) == (5, whole.dead)
    for one, other in zip(parts.at, whole.at, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_a_copy_of_a_neighbour_is_as_good_as_the_neighbour() -> None:
    queries, distinct, model = tensors(50, 16, 1), tensors(8, 16, 2), model_of(16, 64)
    # Eight rows, forty times each: the ten nearest are ten of the forty copies of one row.
    measured = Validator.of(queries, distinct.repeat(40, 1)).measure(model, SparseOps(2), (8,), 0)
    encoder = model.to_encoder(k=8)
    dense = unit(queries) @ unit(distinct).T
    codes = [encoder.encode(x.numpy(), device="numpy").to_dense() for x in (queries, distinct)]
    agreed = (unit(codes[0]) @ unit(codes[1]).T).argmax(1) == dense.argmax(1)
    assert 0.3 < agreed.mean() < 1
    assert measured.at[0].recall == pytest.approx(agreed.mean())


def test_few_documents_and_one_query() -> None:
    measured = Validator.of(tensors(1, 8, 1), tensors(3, 8, 2)).measure(
        model_of(8, 32), SparseOps(2), (4,), 0
    )
    (at,) = measured.at
    assert 0 < at.recall <= 1 and np.isfinite(at.fvu) and 0 < at.longest_list <= 1


@both
def test_without_active_latents_nothing_is_found_or_explained(ops: Ops) -> None:
    queries, documents = tensors(30, 8, 1), tensors(100, 8, 2)
    validator = Validator.of(queries, documents)
    measured = validator.measure(model_of(8, 32, bias=-1000.0), ops, (4,), 0)
    (at,) = measured.at
    assert (measured.dead, at.recall, at.postings, at.longest_list) == (1.0, 0.0, 0.0, 0.0)
    variance = (queries - documents.mean(0)).square().sum()
    assert at.fvu == pytest.approx(float(queries.square().sum() / variance))  # x̂ = b_pre = 0


def test_equal_vectors_have_a_finite_fvu() -> None:
    same = torch.ones(12, 8)
    (at,) = Validator.of(same[:2], same).measure(model_of(8, 32), SparseOps(2), (4,), 0).at
    assert np.isfinite(at.fvu) and at.recall == 1.0


def test_both_operations_measure_the_same() -> None:
    validator, model = Validator.of(tensors(70, 16, 1), tensors(203, 16, 2)), model_of(16, 64, 0.05)
    one, other = (validator.measure(model, ops, (8, 2), 3) for ops in (DenseOps(), SparseOps(2)))
    assert [at.k for at in one.at] == [8, 2]  # in the order that was asked for
    assert one.dead == other.dead
    for mine, theirs in zip(one.at, other.at, strict=True):
        # One hit more or less: rounding may swap two neighbours.
        assert mine.recall == pytest.approx(theirs.recall, abs=2 / 700)
        assert mine._replace(recall=0) == pytest.approx(theirs._replace(recall=0), rel=1e-4)


def test_measuring_leaves_the_model_alone() -> None:
    model = model_of(16, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Validator.of(tensors(9, 16, 1), tensors(50, 16, 2)).measure(model, SparseOps(2), (2,), 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


def test_a_validation_is_plain_numbers_in_json() -> None:
    import json

    measured = Validator.of(tensors(9, 16, 1), tensors(50, 16, 2)).measure(
        model_of(16, 64), SparseOps(2), (2,), 7
    )
    again = json.loads(json.dumps(measured.to_json()))
    assert again == {"step": 7, "dead": measured.dead, "at": [measured.at[0]._asdict()]}
