"""Properties of sources: duplicates are found exactly, and no bytes give another error."""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import CsrError
from csr_qdrant.sources import open_source
from csr_qdrant.sources.values import check_unique

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3)


def _read_all(path: Path) -> None:
    for _ in open_source(path).blocks(2):
        pass


# Integers that differ by this prime have the same hash in CPython.
COLLIDING = st.builds(
    lambda base, factor: base + factor * sys.hash_info.modulus,
    st.integers(0, 5),
    st.integers(0, 3),
)


@settings(deadline=None)
@given(st.lists(st.one_of(COLLIDING, st.sampled_from("abcdefgh")), min_size=1))
def test_duplicates_are_found_exactly(ids: list[int | str]) -> None:
    twice = [(ids.index(value), row) for row, value in enumerate(ids) if value in ids[:row]]
    if not twice:
        assert check_unique("x", lambda: ids) == len(ids)
        return
    first, row = twice[0]
    with pytest.raises(
        CsrError, match=f"x has the id {ids[row]!r} twice, in rows {first} and {row}"
    ):
        check_unique("x", lambda: ids)


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([".npy", ".npz", ".jsonl", ".jsonl.gz", ".csv"]))
def test_random_bytes_give_a_csr_error_or_rows(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("random") / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CsrError):
        _read_all(path)


@settings(deadline=None)
@given(
    position=st.integers(0, 3000), content=st.binary(min_size=1, max_size=4), kind=st.integers(0, 3)
)
def test_flipped_bytes_give_a_csr_error_or_rows(
    tmp_path_factory: pytest.TempPathFactory, position: int, content: bytes, kind: int
) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    path = folder / ["x.npy", "x.npz", "x.jsonl.gz", "x.safetensors"][kind]
    if kind == 0:
        np.save(path, VECTORS)
    elif kind == 1:
        np.savez_compressed(path, vectors=VECTORS, ids=np.array(list("abcd")))
    elif kind == 2:
        rows = [
            {"id": row, "vector": row_values} for row, row_values in enumerate(VECTORS.tolist())
        ]
        path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    else:
        SparseCodes.from_dense(VECTORS).save(path)
    whole = path.read_bytes()
    position %= len(whole)
    path.write_bytes(whole[:position] + content + whole[position + len(content) :])
    try:
        _read_all(path)
    except CsrError as error:
        assert "x." in str(error) or kind == 3  # codes name what is wrong with them
