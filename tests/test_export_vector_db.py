"""Codes in the sparse format of vector-db-benchmark, read back byte by byte."""

import json
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from csr_qdrant.benchmarks.export_vector_db import Exported, exact_results, export
from csr_qdrant.codes import SparseCodes
from csr_qdrant.codes_file import CodesFile
from csr_qdrant.errors import ConfigError

Row = dict[int, float]


def random_codes(seed: int, n: int, h: int, k: int) -> SparseCodes:
    rng = np.random.default_rng(seed)
    latents = np.argsort(rng.random((n, h)), axis=1)[:, :k]
    values = rng.standard_normal((n, k)).astype(np.float32) + 0.5  # below 0: not stored
    return SparseCodes.from_topk(latents, values, h)


def read_codes(path: Path) -> tuple[int, list[Row]]:
    """Return (columns, rows) of a file of codes."""
    data = path.read_bytes()
    rows, columns, entries = struct.unpack_from("<3q", data)
    pointers = struct.unpack_from(f"<{rows + 1}q", data, 24)
    start = 24 + 8 * (rows + 1)
    indices = struct.unpack_from(f"<{entries}i", data, start)
    values = struct.unpack_from(f"<{entries}f", data, start + 4 * entries)
    assert len(data) == start + 8 * entries
    assert pointers[0] == 0 and pointers[-1] == entries
    bounds = pairwise(pointers)
    return columns, [dict(zip(indices[a:b], values[a:b], strict=True)) for a, b in bounds]


def read_results(path: Path) -> tuple[list[list[int]], list[list[float]]]:
    data = path.read_bytes()
    queries, depth = struct.unpack_from("<2I", data)
    size = queries * depth
    ids, scores = (
        struct.unpack_from(f"<{size}i", data, 8),
        struct.unpack_from(f"<{size}f", data, 8 + 4 * size),
    )
    assert len(data) == 8 + 8 * size
    cut = [slice(i * depth, (i + 1) * depth) for i in range(queries)]
    return [list(ids[each]) for each in cut], [list(scores[each]) for each in cut]


def as_rows(codes: SparseCodes) -> list[Row]:
    return [dict(zip(i, v, strict=True)) for i, v in codes.to_lists()]


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_files_hold_the_codes_and_their_exact_results(tmp_path: Path, block: int) -> None:
    documents, queries = random_codes(0, 60, 40, 6), random_codes(1, 9, 40, 6)
    made = export(tmp_path / "mine", documents, queries, depth=5, block=block)
    columns, stored = read_codes(tmp_path / "mine" / "data.csr")
    assert columns == 40 and stored == as_rows(documents.normalised())
    columns, asked = read_codes(tmp_path / "mine" / "queries.csr")
    assert columns == 40 and asked == as_rows(queries.normalised())

    ids, scores = read_results(tmp_path / "mine" / "results.gt")
    for query, found, given in zip(asked, ids, scores, strict=True):
        products = {
            i: sum(value * row[latent] for latent, value in query.items() if latent in row)
            for i, row in enumerate(stored)
            if query.keys() & row.keys()
        }
        best = sorted(products, key=lambda i: (-np.float32(products[i]), i))[:5]
        assert found == best
        assert given == pytest.approx([products[i] for i in best], rel=1e-6)
    empty = sum(not row for row in stored)
    assert made == Exported(60, 9, empty, sum(not row for row in asked), 0)
    entry = json.loads((tmp_path / "mine" / "dataset.json").read_text("utf-8"))
    assert entry == {"name": "mine", "type": "sparse", "path": "mine"}


def test_a_file_of_codes_is_exported_in_blocks(tmp_path: Path) -> None:
    documents, queries = random_codes(2, 50, 30, 4), random_codes(3, 6, 30, 4)
    documents.save(tmp_path / "codes.safetensors")
    export(tmp_path / "whole", documents, queries, depth=4, normalise=False)
    with CodesFile(tmp_path / "codes.safetensors") as file:
        export(tmp_path / "blocks", file, queries, depth=4, normalise=False, block=8)
    for name in ("data.csr", "queries.csr", "results.gt"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "blocks" / name).read_bytes()
    assert read_codes(tmp_path / "whole" / "data.csr")[1] == as_rows(documents)


def test_empty_codes_and_short_results_are_counted(tmp_path: Path) -> None:
    documents = SparseCodes.from_dense([[3, 4, 0], [0, 0, 0], [0, 0, 2], [1, 0, 0]])
    queries = SparseCodes.from_dense([[0, 5, 0], [0, 0, 0], [2, 0, 2]])
    made = export(tmp_path / "few", documents, queries, depth=3)
    assert made == Exported(4, 3, empty_documents=1, empty_queries=1, short_queries=2)
    ids, scores = read_results(tmp_path / "few" / "results.gt")
    assert ids == [[0, -1, -1], [-1, -1, -1], [2, 3, 0]]
    root = 2**-0.5
    assert scores[0] == pytest.approx([0.8, 0, 0]) and scores[1] == [0, 0, 0]
    assert scores[2] == pytest.approx([root, root, 0.6 * root])


@pytest.mark.parametrize("block", [1, 2, 100])
def test_ties_go_to_the_lower_row_and_the_depth_to_what_there_is(block: int) -> None:
    documents = SparseCodes.from_dense([[1, 0], [1, 1], [1, 0], [1, 0]])
    queries = SparseCodes.from_dense([[1, 0]])
    assert exact_results(documents, queries, 2, block=block).rows.tolist() == [[0, 2]]
    assert exact_results(documents, queries, 9, block=block).rows.tolist() == [[0, 2, 3, 1]]


def test_scores_below_zero_stand_before_what_is_not_found() -> None:
    documents = SparseCodes.from_dense([[-1, 0], [0, 1], [1, 0]])
    found = exact_results(documents, SparseCodes.from_dense([[1, 0]]), 3)
    assert found.rows.tolist() == [[2, 0, -1]] and found.scores.tolist() == [[1, -1, 0]]


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    few, none = random_codes(4, 3, 8, 2), random_codes(4, 0, 8, 2)
    wide = SparseCodes(few.indptr, few.indices, few.values, 2**31 + 1)
    for documents, queries, depth, message in (
        (few, random_codes(5, 3, 9, 2), 5, "one hidden size, got 8 and 9"),
        (wide, wide, 5, "counts latents and documents in int32, got h=2147483649"),
        (few, few, 0, "depth=0, 3 documents and 3 queries"),
        (none, few, 5, "0 documents and 3 queries"),
        (few, none, 5, "3 documents and 0 queries"),
    ):
        with pytest.raises(ConfigError, match=message):
            export(tmp_path / "out", documents, queries, depth=depth)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    codes, others = random_codes(6, 5, 8, 2), random_codes(7, 6, 8, 2)
    export(tmp_path / "out", codes, codes)
    with pytest.raises(ConfigError, match="already exists"):
        export(tmp_path / "out", others, codes)
    assert len(read_codes(tmp_path / "out" / "data.csr")[1]) == 5
    export(tmp_path / "out", others, codes, overwrite=True)
    assert len(read_codes(tmp_path / "out" / "data.csr")[1]) == 6
