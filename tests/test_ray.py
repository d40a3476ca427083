"""Ray Data: the callables by themselves, over a store in memory, and in a local run of Ray."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from csr_qdrant.collection import Collection
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.integrations.ray import CsrEncode, CsrWrite, codes_of_columns
from csr_qdrant.stores.server_writer import ServerCodeWriter

X = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)


@pytest.fixture
def client() -> Iterator[QdrantClient]:
    made = QdrantClient(":memory:")
    yield made
    made.close()


def batch(rows: slice = slice(None)) -> dict[str, Any]:
    ids = np.arange(50)
    return {"id": ids[rows], "vector": X[rows], "word": np.array([f"w{i}" for i in ids])[rows]}


def test_encoding_adds_the_normalised_codes(tiny_encoder: Encoder, tmp_path: Path) -> None:
    tiny_encoder.save(tmp_path / "enc")
    encode = CsrEncode(str(tmp_path / "enc"), k=3, drop_vector=True)
    made = encode(batch())
    assert list(made) == ["id", "word", "code_indices", "code_values"]
    codes = codes_of_columns(made, "code", tiny_encoder.h)
    assert codes is not None and codes.equals(tiny_encoder.encode(X, 3).normalised(), 1e-6)
    again = CsrEncode(tiny_encoder, k=3)({"vector": _lists(*X.tolist())})
    assert list(again) == ["vector", "code_indices", "code_values"]
    assert all(
        np.array_equal(a, b)
        for a, b in zip(again["code_indices"], made["code_indices"], strict=True)
    )


def test_a_row_without_a_latent_has_an_empty_code(tiny_encoder: Encoder) -> None:
    sleepy = replace(tiny_encoder, latent_bias=np.full(32, -1e3, np.float32))
    made = CsrEncode(sleepy)({"vector": X[:2]})
    assert [len(each) for each in made["code_values"]] == [0, 0]
    codes = codes_of_columns(made, "code", 32)
    assert codes is not None and codes.lengths.tolist() == [0, 0]


@pytest.mark.parametrize("encoded", [False, True])
def test_writing_is_what_the_library_writes(
    encoded: bool, tiny_encoder: Encoder, client: QdrantClient
) -> None:
    for name in ("ray", "plain"):
        Collection.create_on(client, name, tiny_encoder)
    write = CsrWrite("ray", tiny_encoder, connect=lambda: client)
    for rows in (slice(0, 30), slice(30, 50), slice(30, 50)):  # the last one is repeated
        given = batch(rows)
        counts = write(CsrEncode(tiny_encoder, drop_vector=True)(given) if encoded else given)
        assert (counts["rows"].tolist(), counts["without_code"].tolist()) == (
            [rows.stop - rows.start],
            [0],
        )
    with Collection.open_on(client, "plain", tiny_encoder) as plain:
        plain.add(range(50), vectors=X, payloads=[{"word": f"w{i}"} for i in range(50)])
        expected = plain.get(range(50))
    found = Collection.open_on(client, "ray", tiny_encoder).get(range(50))
    assert found.keys() == expected.keys()
    for id, point in expected.items():
        assert found[id].payload == point.payload
        mine = found[id].code
        assert point.code is not None and mine is not None
        assert mine[0] == point.code[0]
        np.testing.assert_allclose(mine[1], point.code[1], atol=1e-6)


def test_chosen_payload_and_kept_dense_vectors(tiny_encoder: Encoder, client: QdrantClient) -> None:
    Collection.create_on(client, "ray", tiny_encoder, keep_dense=True)
    write = CsrWrite("ray", tiny_encoder, connect=lambda: client, payload=["n"])
    words = np.array(["a", "b", "c"])
    write({"id": words, "vector": X[:3], "n": np.arange(3), "other": words})
    collection = Collection.open_on(client, "ray", tiny_encoder)
    assert [p.payload for p in collection.get(["a", "b", "c"]).values()] == [
        {"n": 0},
        {"n": 1},
        {"n": 2},
    ]
    assert collection.search(X[1], limit=1, rescore=3)[0].id == "b"


def test_times_are_texts_that_qdrant_reads(tiny_encoder: Encoder, client: QdrantClient) -> None:
    Collection.create_on(client, "ray", tiny_encoder)
    times = np.array(["2020-01-02T03:04:05.5", "NaT"], "datetime64[ns]")
    write = CsrWrite("ray", tiny_encoder, connect=lambda: client)
    write({"id": np.arange(2), "vector": X[:2], "at": times})
    found = Collection.open_on(client, "ray", tiny_encoder).get([0, 1])
    kept = {id: point.payload["at"] for id, point in found.items()}
    assert kept == {0: "2020-01-02T03:04:05.500000000Z", 1: None}
    since = models.DatetimeRange(gte=datetime(2020, 1, 2, 3, tzinfo=UTC))
    later = models.Filter(must=[models.FieldCondition(key="at", range=since)])
    assert client.count("ray", later).count == 1


def test_attached_codes_leave_all_else_alone(tiny_encoder: Encoder, client: QdrantClient) -> None:
    Collection.create_on(client, "theirs", tiny_encoder, keep_dense=True)
    collection = Collection.open_on(client, "theirs", tiny_encoder)
    collection.add(range(50), vectors=X[::-1].copy(), payloads=[{"mine": i} for i in range(50)])
    write = CsrWrite("theirs", tiny_encoder, connect=lambda: client)
    store: Any = write.collection.store
    store._schema = replace(store.schema, attached=True)
    write._writer = ServerCodeWriter.open(client, "theirs")
    before = collection.get(range(50))
    assert write(batch())["rows"].tolist() == [50]
    expected = tiny_encoder.encode(X).normalised()
    for id, point in collection.get(range(50)).items():
        assert (point.payload, point.dense) == (before[id].payload, before[id].dense)
        assert point.code is not None
        assert point.code[0] == expected.indices[expected.indptr[int(id)] :][:4].tolist()
    gone = {name: column[:3] for name, column in batch().items()} | {"id": np.array([1, 50, 51])}
    told = write(gone)
    assert {name: column.tolist() for name, column in told.items()} == {
        "rows": [1],
        "without_code": [0],
        "missing": [2],
    }
    nothing = {"id": np.array([7, 77]), "vector": np.zeros((2, 8), np.float32)}
    assert {name: column.tolist() for name, column in write(nothing).items()} == {
        "rows": [1],
        "without_code": [1],
        "missing": [1],
    }
    assert write(batch())["missing"].tolist() == [0]
    write({"id": np.array([7]), "code_indices": _lists([]), "code_values": _lists([])})
    assert collection.get([7])[7].code is None
    assert collection.get([7])[7].dense == before[7].dense
    assert client.count("theirs").count == 50


def _lists(*rows: list[float]) -> Any:
    made = np.empty(len(rows), object)
    made[:] = rows
    return made


def test_what_cannot_be_encoded_or_written_is_refused(
    tiny_encoder: Encoder, client: QdrantClient
) -> None:
    with pytest.raises(CsrError, match=r"no column 'vector' \(they have id\): name it"):
        CsrEncode(tiny_encoder)({"id": np.arange(2)})
    with pytest.raises(CsrError, match="'vector' must hold vectors of equal length"):
        CsrEncode(tiny_encoder)({"vector": _lists([1.0, 2.0], [1.0])})
    with pytest.raises(CsrError, match="takes vectors of shape"):
        CsrEncode(tiny_encoder)({"vector": X[:, :5]})
    for normalise in (False, True):
        with pytest.raises(CsrError, match="must be numbers, got <U1"):
            CsrEncode(tiny_encoder, normalise=normalise)({"vector": np.full((2, 8), "a")})
    with pytest.raises(ConfigError, match="give one of url and connect"):
        CsrWrite("ray", tiny_encoder)
    with pytest.raises(CsrError, match="there is no collection 'ray'"):
        CsrWrite("ray", tiny_encoder, connect=lambda: client)
    Collection.create_on(client, "ray", tiny_encoder)
    with pytest.raises(CsrError, match="was made with encoder"):
        other = replace(tiny_encoder, pre_bias=np.ones(8, np.float32))
        CsrWrite("ray", other, connect=lambda: client)
    write = CsrWrite("ray", tiny_encoder, connect=lambda: client)
    wrong = {"id": np.arange(1), "code_indices": [np.array([32])], "code_values": [np.ones(1)]}
    with pytest.raises(CsrError, match="must be latents below 32"):
        write(wrong)  # type: ignore[arg-type]
    assert client.count("ray").count == 0


@pytest.mark.slow
def test_a_local_run_of_ray(
    tiny_encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray = pytest.importorskip("ray")
    tiny_encoder.save(tmp_path / "enc")
    connect = partial(QdrantClient, path=str(tmp_path / "qdrant"))
    client = connect()
    Collection.create_on(client, "docs", tiny_encoder)
    client.close()
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        logging_level="ERROR",
        log_to_driver=False,
    )
    try:
        rows = [{"id": i, "vector": X[i], "word": f"w{i}"} for i in range(50)]
        counts = (
            ray.data.from_items(rows)
            .map_batches(
                CsrEncode,
                fn_constructor_kwargs={"encoder": str(tmp_path / "enc"), "drop_vector": True},
                batch_size=16,
                compute=ray.data.ActorPoolStrategy(size=1),
            )
            .map_batches(
                CsrWrite,
                fn_constructor_args=("docs", str(tmp_path / "enc")),
                fn_constructor_kwargs={"connect": connect},
                batch_size=20,
                compute=ray.data.ActorPoolStrategy(size=1),
            )
            .take_all()
        )
    finally:
        ray.shutdown()
    assert sum(count["rows"] for count in counts) == 50
    client = connect()
    found = Collection.open_on(client, "docs", tiny_encoder).get(range(50))
    assert {id: point.payload for id, point in found.items()} == {
        i: {"word": f"w{i}"} for i in range(50)
    }
    expected = tiny_encoder.encode(X).normalised()
    for id, point in found.items():
        assert point.code is not None
        assert point.code[0] == expected.indices[expected.indptr[int(id)] :][:4].tolist()
    client.close()


def test_the_client_of_another_kind_of_point_is_untouched(client: QdrantClient) -> None:
    client.create_collection("foreign", models.VectorParams(size=8, distance=models.Distance.DOT))
    encoder = Encoder(
        weight=np.eye(8, dtype=np.float32),
        latent_bias=np.zeros(8, np.float32),
        pre_bias=np.zeros(8, np.float32),
        k=2,
    )
    with pytest.raises(CsrError, match="was not made by csr-qdrant"):
        CsrWrite("foreign", encoder, connect=lambda: client)
