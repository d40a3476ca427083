"""Bulk indexing: what is written, what a stopped run leaves, and where the next one goes on."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from csr_qdrant import indexing
from csr_qdrant.collection import Collection
from csr_qdrant.embedders import CallableEmbedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError, RowError
from csr_qdrant.indexing import IndexConfig, finished_rows, index_source
from csr_qdrant.sources import base, open_source
from csr_qdrant.sources.arrays import ArraySource
from csr_qdrant.stores.base import StoredPoint

D, H, K = 16, 96, 5
FLUSH_ROWS, BLOCK_ROWS = 96, 32

Point = tuple[dict[str, Any], Any, Any]


def make_encoder(h: int = H) -> Encoder:
    rng = np.random.default_rng(5)
    return Encoder(
        weight=rng.standard_normal((h, D)).astype(np.float32),
        latent_bias=np.zeros(h, np.float32),
        pre_bias=np.zeros(D, np.float32),
        k=K,
    )


def vectors(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((n, D)).astype(np.float32)


def points_of(collection: Collection) -> dict[Any, Point]:
    """Return all points as (payload, code, dense), floats as they are."""
    found: list[StoredPoint] = []
    offset: Any = None
    while True:
        some, offset = collection.store.scroll(500, offset)
        found += some
        if offset is None:
            return {point.id: (point.payload, point.code, point.dense) for point in found}


def npy_file(folder: Path, n: int) -> Path:
    np.save(folder / "rows.npy", vectors(n))
    return folder / "rows.npy"


def text_file(folder: Path, n: int) -> Path:
    lines = (json.dumps({"id": f"id-{row}", "text": f"row {row}"}) for row in range(n))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return folder / "rows.jsonl"


# --- interrupted --------------------------------------------------------------------


@pytest.fixture
def collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Collection]:
    monkeypatch.setattr(indexing, "FLUSH_ROWS", FLUSH_ROWS)
    for kind in base.BLOCK_ROWS:
        monkeypatch.setitem(base.BLOCK_ROWS, kind, BLOCK_ROWS)
    with Collection.create(tmp_path / "collection", make_encoder()) as made:
        yield made


def check_holds(collection: Collection, dense: npt.NDArray[np.float32]) -> None:
    """Check that the collection holds the codes of `dense` under the row numbers, and no more."""
    codes = make_encoder().encode(dense).normalised()
    found = points_of(collection)
    assert list(found) == list(range(len(dense)))
    for (indices, values), (_, stored, _) in zip(codes.rows(), found.values(), strict=True):
        assert stored is not None and stored[0] == indices.tolist()
        np.testing.assert_allclose(stored[1], values, atol=1e-6)


def metadata_of(collection: Collection) -> list[dict[str, Any]]:
    stored = collection.store.metadata()
    return [value for key, value in stored.items() if key.startswith(indexing.PROGRESS_KEY)]


@pytest.mark.parametrize("at", [0, 1, 31, 32, 33, 97, 211])
@pytest.mark.parametrize("bad", [np.nan, 0.0])
def test_the_rows_before_a_bad_one_are_kept(collection: Collection, at: int, bad: float) -> None:
    dense = vectors(300)
    dense[at] = bad
    dense[[at + 7, at + 60]] = 0  # later faults are not what the sentence names
    source = ArraySource(dense, name="my.npy")
    with pytest.raises(RowError, match=rf"^row {at} of my\.npy (holds NaN|is all zeros)"):
        index_source(source, collection)
    check_holds(collection, dense[:at])
    assert metadata_of(collection) == [{"source": "my.npy", "rows": at, "without_code": 0}]


def test_ctrl_c_leaves_the_journal_written(collection: Collection) -> None:
    source = ArraySource(vectors(300))

    def interrupt(done: int) -> None:
        if done >= 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        index_source(source, collection, on_rows=interrupt)
    assert finished_rows(source, collection.store.metadata()) == 64
    assert len(collection) == 64
    assert index_source(source, collection)[:2] == (300, 64)
    check_holds(collection, vectors(300))


@pytest.mark.parametrize("method", ["upsert", "flush", "write_metadata"])
def test_rows_count_only_once_the_store_has_them(
    collection: Collection, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine fails at every call in turn; what is recorded is there, and nothing is lost."""
    source, calls = ArraySource(vectors(200)), 0
    original = getattr(collection.store, method)

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2 == 0:
            raise CsrError("the disk is full")
        return original(*arguments)

    monkeypatch.setattr(collection.store, method, failing)
    for _ in range(20):
        try:
            index_source(source, collection, IndexConfig(optimise=False))
        except CsrError as error:
            assert str(error) == "the disk is full"
        else:
            break
        monkeypatch.setattr(collection.store, method, original)
        recorded = finished_rows(source, collection.store.metadata())
        assert set(range(recorded)) <= set(points_of(collection))
        monkeypatch.setattr(collection.store, method, failing)
    check_holds(collection, vectors(200))


def test_a_failing_embedder_stops_the_run_between_blocks(collection: Collection) -> None:
    calls = []

    def embed(texts: list[str]) -> npt.NDArray[np.float32]:
        calls.append(texts)
        if len(calls) == 4:
            raise CsrError("the model is gone")
        return vectors(300)[[int(text) for text in texts]]

    collection._embedder = CallableEmbedder(embed, D, "numbers")
    folder = Path(collection.store.location).parent
    (folder / "t.jsonl").write_text(
        "\n".join(json.dumps({"id": i, "text": str(i)}) for i in range(300))
    )
    source = open_source(folder / "t.jsonl")
    with pytest.raises(CsrError, match="the model is gone"):
        index_source(source, collection)
    assert finished_rows(source, collection.store.metadata()) == 96
    index_source(source, collection)
    assert [text for call in calls[4:] for text in call] == [str(row) for row in range(96, 300)]
    check_holds(collection, vectors(300))


# --- resume, or not -------------------------------------------------------------------------------


def test_a_finished_source_is_skipped_until_it_changes(
    collection: Collection, tmp_path: Path
) -> None:
    source = open_source(npy_file(tmp_path, 200))
    seen: list[int] = []
    assert index_source(source, collection, on_rows=seen.append)[:3] == (200, 0, 0)
    assert seen == [0, 32, 64, 96, 128, 160, 192, 200]
    seen.clear()
    assert index_source(source, collection, on_rows=seen.append)[:3] == (200, 200, 0)
    assert seen == [200]
    np.save(tmp_path / "rows.npy", vectors(200, seed=9))
    os.utime(tmp_path / "rows.npy", (1, 1))
    changed = open_source(tmp_path / "rows.npy")
    assert index_source(changed, collection)[:2] == (200, 0)
    check_holds(collection, vectors(200, seed=9))
    assert len(metadata_of(collection)) == 1  # the journal of the former file is gone


def test_two_sources_keep_their_journals_apart(collection: Collection) -> None:
    one, other = (
        ArraySource(vectors(n), ids=[f"{name}{row}" for row in range(n)], name=name)
        for name, n in (("a", 70), ("b", 50))
    )
    index_source(one, collection)
    assert index_source(other, collection)[:2] == (50, 0)
    assert index_source(one, collection)[:2] == (70, 70)
    assert len(collection) == 120


def test_without_resume_every_row_is_written_again(collection: Collection) -> None:
    source = ArraySource(vectors(150))
    index_source(source, collection)
    collection.delete(range(150))

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # before any row: the old journal must not count
        index_source(source, collection, IndexConfig(resume=False), interrupt)
    assert finished_rows(source, collection.store.metadata()) == 0
    assert index_source(source, collection, IndexConfig(resume=False))[:2] == (150, 0)
    check_holds(collection, vectors(150))


def test_rows_without_a_code_are_counted_over_all_runs(collection: Collection) -> None:
    dense = vectors(150)
    dense[[3, 80, 149]] = 0
    source = ArraySource(dense)

    def interrupt(done: int) -> None:
        if done >= 96:
            raise KeyboardInterrupt

    config = IndexConfig(skip_zero=True)
    with pytest.raises(KeyboardInterrupt):
        index_source(source, collection, config, interrupt)
    assert index_source(source, collection, config)[:3] == (150, 96, 3)
    assert len(collection) == 150
    assert [row for row, (_, code, _) in points_of(collection).items() if code is None] == [
        3,
        80,
        149,
    ]


# --- what is written ------------------------------------------------------------------------------


def test_codes_and_payloads_of_a_source(collection: Collection, tmp_path: Path) -> None:
    codes = make_encoder().encode(vectors(90), 12)
    codes.save(tmp_path / "codes.safetensors")
    payload = "\n".join(json.dumps({"number": row}) for row in range(90))
    (tmp_path / "payload.jsonl").write_text(payload)
    source = open_source(tmp_path / "codes.safetensors", payload=tmp_path / "payload.jsonl")
    done = index_source(source, collection, IndexConfig(optimise=False))
    assert done[:3] == (90, 0, 0) and done.seconds > 0 and done.optimise_seconds < 0.1
    check_holds(collection, vectors(90))
    assert [payload for payload, _, _ in points_of(collection).values()] == [
        {"number": row} for row in range(90)
    ]


def test_optimise_builds_the_index(collection: Collection) -> None:
    index_source(ArraySource(vectors(500)), collection)
    assert collection.store.info().indexed_vectors == 500


def test_over_every_engine(make_store: Callable[..., Any]) -> None:
    from csr_qdrant.identity import Identity
    from csr_qdrant.stores.base import Schema

    identity = Identity.of(make_encoder(), None, None)
    store = make_store(Schema(h=H), identity.to_metadata())
    over = Collection(store, make_encoder(), identity)
    dense = vectors(100)
    dense[60] = np.inf
    with pytest.raises(RowError, match="row 60 of vectors holds NaN"):
        index_source(ArraySource(dense), over)
    source = ArraySource(vectors(100))
    assert index_source(source, over)[:2] == (100, 0)
    assert index_source(source, over)[:2] == (100, 100)
    check_holds(over, vectors(100))


# --- refusals -------------------------------------------------------------------------------------


def test_sources_that_do_not_fit(collection: Collection, tmp_path: Path) -> None:
    wide = ArraySource(np.ones((5, D + 1), np.float32), name="wide.npy")
    with pytest.raises(CsrError, match=r"^wide\.npy holds vectors of 17 dimensions, but the enc"):
        index_source(wide, collection)
    make_encoder(h=H + 1).encode(vectors(5)).save(tmp_path / "c.safetensors")
    codes = open_source(tmp_path / "c.safetensors")
    with pytest.raises(CsrError, match="holds codes over 97 latents, but the collection's enc"):
        index_source(codes, collection)
    with (
        Collection.create(tmp_path / "kept", make_encoder(), keep_dense=True) as kept,
        pytest.raises(ConfigError, match=r"keeps dense vectors for rescoring, but .* codes alone"),
    ):
        index_source(codes, kept)
    assert len(collection) == 0 and metadata_of(collection) == []


def test_texts_without_an_embedder(collection: Collection, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="texts need an embedder and this collection knows none"):
        index_source(open_source(text_file(tmp_path, 5)), collection)
