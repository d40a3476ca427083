"""Reading collections that csr-qdrant did not make, from every engine."""

import hashlib
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException

from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources import collection_points
from csr_qdrant.sources.collection_points import CollectionVectors
from csr_qdrant.stores.base import PointBatch, Schema
from csr_qdrant.stores.server import connect
from csr_qdrant.stores.server_errors import RetryPolicy
from csr_qdrant.stores.server_reader import ServerReader

sys.path.insert(0, str(Path(__file__).parent))
from engines import ENGINES, open_client

D, N = 4, 90
VECTORS = np.random.default_rng(3).normal(size=(N, D)).astype(np.float32)
IDS = [i if i % 2 else str(uuid.UUID(int=1000 - i)) for i in range(N)]
# By rising id: integers first, then UUIDs.
ORDER = sorted(range(N), key=lambda i: (isinstance(IDS[i], str), IDS[i]))
Make = Callable[..., Callable[..., CollectionVectors]]


def _layout_edge(dense: dict[str, str], multi: bool, sparse: bool) -> Any:
    distances = {"Cosine": qdrant_edge.Distance.Cosine, "Dot": qdrant_edge.Distance.Dot}
    vectors = {
        name: qdrant_edge.EdgeVectorParams(size=D, distance=distances[distance])
        for name, distance in dense.items()
    }
    if multi:
        rows = qdrant_edge.MultiVectorConfig(qdrant_edge.MultiVectorComparator.MaxSim)
        vectors["rows"] = qdrant_edge.EdgeVectorParams(
            size=D, distance=distances["Dot"], multivector_config=rows
        )
    terms = {"terms": qdrant_edge.EdgeSparseVectorParams()} if sparse else {}
    return qdrant_edge.EdgeConfig(vectors=vectors, sparse_vectors=terms)


def _edge(folder: Path, dense: dict[str, str], multi: bool, sparse: bool, bare: list[int]) -> None:
    shard = qdrant_edge.EdgeShard.create(str(folder), _layout_edge(dense, multi, sparse))
    points = []
    for i in range(N):
        vectors: dict[str, Any] = {n: VECTORS[i].tolist() for n in dense if i not in bare}
        if multi:
            vectors["rows"] = VECTORS[i : i + 1].tolist()
        if sparse:
            vectors["terms"] = qdrant_edge.SparseVector([i], [1.0])
        points.append(qdrant_edge.Point(IDS[i], vectors, {"number": i, "more": "x" * i}))
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()


def _server(
    client: QdrantClient,
    name: str,
    dense: dict[str, str],
    multi: bool,
    sparse: bool,
    bare: list[int],
) -> None:
    vectors: dict[str, models.VectorParams] = {
        key: models.VectorParams(size=D, distance=models.Distance(distance))
        for key, distance in dense.items()
    }
    if multi:
        rows = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        vectors["rows"] = models.VectorParams(
            size=D, distance=models.Distance.DOT, multivector_config=rows
        )
    client.create_collection(
        name,
        vectors_config=vectors[""] if set(vectors) == {""} else vectors,
        sparse_vectors_config={"terms": models.SparseVectorParams()} if sparse else None,
    )
    points = []
    for i in range(N):
        given: dict[str, Any] = {key: VECTORS[i].tolist() for key in dense if i not in bare}
        if multi:
            given["rows"] = VECTORS[i : i + 1].tolist()
        if sparse:
            given["terms"] = models.SparseVector(indices=[i], values=[1.0])
        points.append(
            models.PointStruct(id=IDS[i], vector=given, payload={"number": i, "more": "x" * i})
        )
    client.upsert(name, points, wait=True)


@pytest.fixture(params=ENGINES)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Give a function that fills a collection and returns a function which opens it."""
    names: list[str] = []
    client = None if request.param == "edge" else open_client(request.param, request)

    def filled(
        dense: dict[str, str] | None = None,
        *,
        multi: bool = False,
        sparse: bool = False,
        bare: list[int] | None = None,
    ) -> Callable[..., CollectionVectors]:
        names.append(f"csr-qdrant-test-{uuid.uuid4().hex}")
        chosen = {"": "Cosine"} if dense is None else dense
        if client is None:
            folder = tmp_path / names[-1]
            _edge(folder, chosen, multi, sparse, bare or [])
            return lambda vector=None: CollectionVectors.open(folder, vector)
        _server(client, names[-1], chosen, multi, sparse, bare or [])
        return lambda vector=None: CollectionVectors.open_on(client, names[-1], vector)

    yield filled
    if client is not None:
        for name in names:
            client.delete_collection(name)
        client.close()


def _unit(rows: Any) -> Any:
    return VECTORS[rows] / np.linalg.norm(VECTORS[rows], axis=1, keepdims=True)


def test_all_points_come_by_rising_id_with_the_fields_asked_for(make: Make) -> None:
    with make()() as vectors:
        assert (vectors.count, len(vectors), vectors.dimension) == (N, N, D)
        assert (vectors.vector, vectors.distance, vectors.normalised) == ("", "Cosine", True)
        blocks = list(vectors.blocks(40, fields=["number"]))
    assert [len(block.ids) for block in blocks] == [40, 40, 10]
    assert [point for block in blocks for point in block.ids] == [IDS[i] for i in ORDER]
    # Under cosine the engine keeps unit vectors.
    got = np.vstack([block.vectors for block in blocks])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, _unit(ORDER), atol=1e-6)
    payloads = [dict(payload) for block in blocks for payload in block.payloads]
    assert payloads == [{"number": i} for i in ORDER]


def test_without_fields_no_payload_is_read(make: Make) -> None:
    with make()() as vectors:
        assert next(vectors.blocks()).payloads == [{}] * N


def test_reading_goes_on_at_an_offset(make: Make) -> None:
    opened = make()
    with opened() as vectors:
        first = next(vectors.blocks(33))
    with opened() as vectors:
        rest = list(vectors.blocks(33, offset=first.following))
    ids = first.ids + [point for block in rest for point in block.ids]
    assert ids == [IDS[i] for i in ORDER]
    assert rest[-1].following is None


def test_points_without_the_vector_are_left_out_and_not_counted(make: Make) -> None:
    with make({"a": "Dot"}, sparse=True, bare=[0, 1, 2, 50])() as vectors:
        assert vectors.count == N - 4
        ids = [point for block in vectors.blocks(10) for point in block.ids]
        assert len(vectors.sample(N).ids) == N - 4
        assert len(vectors.retrieve([IDS[0], IDS[3]]).ids) == 1
    assert set(ids) == {IDS[i] for i in range(N) if i not in (0, 1, 2, 50)}


def test_the_vector_is_chosen_by_name(make: Make) -> None:
    opened = make({"a": "Dot", "b": "Cosine"}, multi=True, sparse=True)
    with opened("a") as vectors:
        assert (vectors.vector, vectors.distance, vectors.normalised) == ("a", "Dot", False)
        np.testing.assert_array_equal(next(vectors.blocks()).vectors, VECTORS[ORDER])
    with pytest.raises(ConfigError, match=r"has several dense vectors \(a, b\): name one of them"):
        opened()
    with pytest.raises(ConfigError, match=r"has no vector 'c': choose one of .* \(a, b\)"):
        opened("c")
    with pytest.raises(ConfigError, match=r"has no unnamed vector"):
        opened("")
    with pytest.raises(ConfigError, match=r"vector 'rows' of .* is a multivector"):
        opened("rows")
    with pytest.raises(ConfigError, match=r"vector 'terms' of .* is sparse: choose"):
        opened("terms")


def test_the_only_dense_vector_needs_no_name(make: Make) -> None:
    with make({"a": "Dot"}, multi=True, sparse=True)() as vectors:
        assert vectors.vector == "a"


def test_the_unnamed_vector_beside_others_is_read(make: Make) -> None:
    with make({"": "Cosine"}, sparse=True)() as vectors:
        np.testing.assert_allclose(next(vectors.blocks()).vectors, _unit(ORDER), atol=1e-6)


def test_collections_without_dense_vectors_are_told_apart(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"has multivectors only \(rows\)"):
        make({}, multi=True)()
    with pytest.raises(ConfigError, match=r"has sparse vectors only \(terms\)"):
        make({}, sparse=True)()


def test_a_sample_depends_on_ids_and_seed_alone(make: Make) -> None:
    with make()() as vectors:
        sample, again, other = vectors.sample(20, 5), vectors.sample(20, 5), vectors.sample(20, 6)
    assert len(set(sample.ids)) == 20
    assert sample.ids == again.ids
    assert set(sample.ids) != set(other.ids)
    rows = [IDS.index(point) for point in sample.ids]
    np.testing.assert_allclose(sample.vectors, _unit(rows), atol=1e-6)
    # The draw is defined by hashes, so it is the same on every engine and machine.
    key = (5).to_bytes(16, "little")
    hashed = {
        point: int.from_bytes(
            hashlib.blake2b(str(point).encode(), digest_size=8, key=key).digest(), "little"
        )
        for point in IDS
    }
    assert sample.ids == sorted(IDS, key=lambda point: hashed[point])[:20]


def test_samples_are_uniform(make: Make) -> None:
    drawn = np.zeros(N)
    with make()() as vectors:
        for seed in range(300):
            for point in vectors.sample_ids(9, seed):
                drawn[IDS.index(point)] += 1
    # 300 draws of 1 in 10: mean 30, standard deviation 5.2; chi-square of 89 degrees of freedom.
    chi_square = (((drawn - 30) ** 2) / (30 * 0.9)).sum()
    assert drawn.sum() == 2700
    assert 50 < chi_square < 140


def test_a_sample_of_everything_is_everything(make: Make) -> None:
    with make()() as vectors:
        assert set(vectors.sample(N + 10).ids) == set(IDS)
        with pytest.raises(ConfigError, match="at least 1 point, got 0"):
            vectors.sample(0)
        with pytest.raises(ConfigError, match="at least 1 point, got 0"):
            next(vectors.blocks(0))


def test_points_that_are_gone_are_left_out(make: Make) -> None:
    with make()() as vectors:
        assert vectors.retrieve([IDS[4], 999_999, IDS[3]]).ids == [IDS[4], IDS[3]]


def test_long_vectors_come_in_smaller_blocks(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collection_points, "PAGE_VALUES", 7 * D + 1)
    with make()() as vectors:
        sizes = [len(block.ids) for block in vectors.blocks(4096)]
        assert len(vectors.sample(30).ids) == 30
    assert sizes == [7] * 12 + [6]


def test_many_pages_of_ids_are_one_pass(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with make()() as vectors:
        expected = vectors.sample_ids(25, 1)
        monkeypatch.setattr(collection_points, "ID_PAGE", 7)
        assert vectors.sample_ids(25, 1) == expected


def test_a_closed_collection_says_so(make: Make) -> None:
    vectors = make()()
    vectors.close()
    vectors.close()
    with pytest.raises(CsrError, match="is closed: open it again"):
        next(vectors.blocks())


# --- folders ---------------------------------------------------------------------------------


def _files(folder: Path) -> dict[str, str]:
    """Return a hash of each file of a shard."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_reading_changes_no_file(tmp_path: Path) -> None:
    _edge(tmp_path / "shard", {"": "Cosine"}, False, True, [])
    # Opened for the first time, the engine puts its journals away and completes its description.
    qdrant_edge.EdgeShard.load(str(tmp_path / "shard")).close()
    before = _files(tmp_path)
    with CollectionVectors.open(tmp_path / "shard") as vectors:
        assert sum(len(block.ids) for block in vectors.blocks(16)) == N
        vectors.sample(5)
    assert _files(tmp_path) == before


def test_collections_of_our_own_are_read(tmp_path: Path) -> None:
    from csr_qdrant.codes import SparseCodes
    from csr_qdrant.stores.edge import EdgeStore

    codes = SparseCodes.from_dense(np.eye(8, dtype=np.float32)[[1] * N])
    with EdgeStore.create(tmp_path / "docs", Schema(h=8, dense_dim=D)) as store:
        store.upsert(PointBatch(list(range(N)), codes, VECTORS, [{}] * N))
    with CollectionVectors.open(tmp_path / "docs") as vectors:
        assert vectors.vector == "dense"
        np.testing.assert_allclose(next(vectors.blocks()).vectors, _unit(range(N)), atol=1e-6)


def test_a_shard_without_its_description_is_known_by_its_segments(tmp_path: Path) -> None:
    _edge(tmp_path / "shard", {"a": "Dot"}, False, True, [])
    (tmp_path / "shard" / "edge_config.json").unlink()
    with CollectionVectors.open(tmp_path / "shard") as vectors:
        assert (vectors.vector, vectors.distance, vectors.count) == ("a", "Dot", N)


def test_folders_that_are_no_collections_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match=r"there is no collection at .*nothing: check the path"):
        CollectionVectors.open(tmp_path / "nothing")
    with pytest.raises(CsrError, match="is not a collection of Qdrant Edge: it holds no segments"):
        CollectionVectors.open(tmp_path)
    (tmp_path / "edge_config.json").write_text("{")
    with pytest.raises(CsrError, match=r"cannot tell which vectors .* holds"):
        CollectionVectors.open(tmp_path)


def test_an_open_folder_is_refused_and_a_refusal_releases_it(tmp_path: Path) -> None:
    _edge(tmp_path / "shard", {"a": "Dot", "b": "Dot"}, False, False, [])
    with pytest.raises(ConfigError, match="several dense vectors"):
        CollectionVectors.open(tmp_path / "shard")
    with (
        CollectionVectors.open(tmp_path / "shard", "a"),
        pytest.raises(CsrError, match="is open in another process or handle"),
    ):
        CollectionVectors.open(tmp_path / "shard", "a")


def test_vectors_that_are_not_finite_are_named(tmp_path: Path) -> None:
    parameters = qdrant_edge.EdgeVectorParams(size=2, distance=qdrant_edge.Distance.Dot)
    shard = qdrant_edge.EdgeShard.create(
        str(tmp_path / "shard"), qdrant_edge.EdgeConfig(vectors=parameters)
    )
    points = [qdrant_edge.Point(1, [1.0, 0.0], {}), qdrant_edge.Point(7, [float("nan"), 0.0], {})]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()
    with (
        CollectionVectors.open(tmp_path / "shard") as vectors,
        pytest.raises(CsrError, match=r"point 7 of .* has a vector with NaN or an infinity"),
    ):
        list(vectors.blocks())


# --- servers ---------------------------------------------------------------------------------


def test_a_missing_collection_is_one_sentence() -> None:
    with pytest.raises(CsrError, match="there is no collection 'none' in local mode"):
        CollectionVectors.open_on(QdrantClient(":memory:"), "none")


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_an_unreachable_server_is_one_sentence_without_secrets() -> None:
    client = connect("http://user:pass-w0rd@127.0.0.1:9", api_key="s3cr3t-k3y")
    with pytest.raises(CsrError) as caught:
        ServerReader.open(client, "docs", retries=RetryPolicy(attempts=1))
    assert "cannot reach the server" in str(caught.value)
    assert "s3cr3t-k3y" not in str(caught.value)
    assert "pass-w0rd" not in str(caught.value)


def test_a_page_is_asked_for_again_while_the_server_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = QdrantClient(":memory:")
    _server(client, "docs", {"": "Cosine"}, False, False, [])
    scroll, asked = client.scroll, []

    def failing(*arguments: Any, **settings: Any) -> Any:
        asked.append(settings["offset"])
        if len(asked) in (2, 3):
            raise ResponseHandlingException(httpx.ConnectError("away"))
        return scroll(*arguments, **settings)

    monkeypatch.setattr(client, "scroll", failing)
    quick = RetryPolicy(attempts=3, first_s=0.001, longest_s=0.001)
    with CollectionVectors(ServerReader.open(client, "docs", retries=quick)) as vectors:
        ids = [point for block in vectors.blocks(50) for point in block.ids]
    assert ids == [IDS[i] for i in ORDER]
    assert asked == [None, IDS[ORDER[50]], IDS[ORDER[50]], IDS[ORDER[50]]]
