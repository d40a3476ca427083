"""When a copy's point counts as the source's: what engines change themselves, and nothing else."""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as engine

from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.deployment.migrate_compare import near, same_payload, tolerances

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import encoder_of, vectors_of

PAYLOAD = {"n": 3, "x": 0.5, "b": True, "deep": [None, {"k": "v", "big": 2**63 + 7}], "e": []}


def test_a_payload_is_itself_up_to_a_parsers_rounding() -> None:
    other = copy.deepcopy(PAYLOAD)
    assert same_payload(PAYLOAD, other)
    other["x"] = np.nextafter(0.5, 1).item()
    other["deep"][1]["big"] = float(2**63)  # type: ignore[index]
    assert same_payload(PAYLOAD, other) and same_payload(other, PAYLOAD)
    assert same_payload({"x": float("nan")}, {"x": float("nan")})


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3.0},
        {"n": True},
        {"b": 1},
        {"x": 0.5001},
        {"x": "0.5"},
        {"e": {}},
        {"e": None},
        {"deep": [None]},
        {"deep": [None, {"k": "V", "big": 2**63 + 7}]},
        {"more": 1},
    ],
)
def test_other_payloads_are_others(change: dict[str, Any]) -> None:
    changed = {**PAYLOAD, **change}
    assert not same_payload(PAYLOAD, changed) and not same_payload(changed, PAYLOAD)


def test_a_small_weight_of_a_sparse_vector_counts() -> None:
    words = ([9, 3, 5], [50.0, 0.25, 1.0])
    assert near(words, ([3, 5, 9], [0.25, 1.0, 50.0]), 1e-5)
    assert not near(words, ([3, 5, 9], [0.3, 1.0, 50.0]), 1e-5)
    assert not near(words, ([5, 9], [1.0, 50.0]), 1e-5)
    assert near(([], []), ([], []), 1e-5) and not near(([], []), ([1], [1e-9]), 1e-5)


def test_each_row_of_a_multivector_counts_by_itself() -> None:
    rows = [[1e6, 2e6], [1.0, 2.0]]
    assert near(rows, [[1e6, 2e6], [1.0, 2.0]], 1e-5)
    assert not near(rows, [[1e6, 2e6], [1.0, 2.5]], 1e-5)
    assert not near(rows, rows[:1], 1e-5)
    assert not near([1.0, 2.0], ([1], [1.0]), 1e-5)


def test_numbers_that_are_none_are_compared_too() -> None:
    nan, inf = float("nan"), float("inf")
    assert near([nan, inf, 1.0], [nan, inf, 1.0], 1e-5)
    assert not near([nan, 1.0], [0.0, 1.0], 1e-5)
    assert not near([inf, 1.0], [-inf, 1.0], 1e-5)


def test_how_far_off_a_vector_may_be_depends_on_how_it_is_kept() -> None:
    given = tolerances(
        {
            "dot": {"distance": "Dot"},
            "cosine": {"distance": "Cosine", "datatype": "float32"},
            "half": {"distance": "Dot", "datatype": "float16"},
            "bytes": {"distance": "Euclid", "datatype": "uint8"},
        }
    )
    assert given["dot"] == given["bytes"] < given["cosine"] < given["half"]
    assert not near([255.0, 3.0], [255.0, 4.0], given["bytes"])


def every_datatype(folder: Path, n: int) -> None:
    """Make a shard whose vectors are kept in all the ways that there are."""
    kinds, distances = engine.VectorStorageDatatype, engine.Distance
    vectors = {"text": engine.EdgeVectorParams(size=8, distance=distances.Cosine)}
    for kind in ("Float16", "Uint8", "Turbo4", "Turbo8", "Turbo16"):
        for distance in ("Cosine", "Dot"):
            vectors[kind + distance] = engine.EdgeVectorParams(
                size=8, distance=getattr(distances, distance), datatype=getattr(kinds, kind)
            )
    sparse = engine.EdgeSparseVectorParams
    words = {"f32": sparse(), "u8": sparse(datatype=kinds.Uint8)}
    config = engine.EdgeConfig(vectors=vectors, sparse_vectors=words)
    rng = np.random.default_rng(3)
    points = []
    for row, text in enumerate(vectors_of(n).tolist()):
        given: dict[str, Any] = {"text": text}
        for name in list(vectors)[1:]:
            each = rng.integers(0, 256, 8) if name.startswith("Uint8") else 99 * rng.normal(size=8)
            given[name] = each.astype(float).tolist()
        indices = rng.choice(99, row % 4, replace=False).tolist()  # none of some
        given |= {name: engine.SparseVector(indices, [0.3] * len(indices)) for name in words}
        points.append(engine.Point(2**64 - 1 - row, given, {"at": float(rng.normal()), "row": row}))
    folder.mkdir()
    shard = engine.EdgeShard.create(str(folder), config)
    shard.update(engine.UpdateOperation.upsert_points(points))
    # The engine's parser reads this number a unit in the last place away.
    away = engine.Point(1, {"text": vectors_of(1)[0].tolist()}, {"at": 6.017898664125037e-16})
    shard.update(engine.UpdateOperation.upsert_points([away]))
    shard.close()


def test_points_of_every_datatype_are_copied_once_and_then_left_alone(tmp_path: Path) -> None:
    every_datatype(tmp_path / "source", 300)
    config = MigrateConfig(vector="text", device="numpy")
    first = migrate(tmp_path / "source", tmp_path / "copy", encoder_of(), config)
    assert (first.copied, first.mended, first.unsettled) == (301, 0, 0) and first.complete
    again = migrate(tmp_path / "source", tmp_path / "copy", encoder_of(), config)
    assert (again.copied, again.mended, again.unsettled) == (0, 0, 0) and again.complete
