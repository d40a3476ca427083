"""What engines' records become."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csr_qdrant.stores.records import named_vectors, packed
from csr_qdrant.stores.writing import coded_point


@given(st.lists(st.floats() | st.integers(-(2**70), 2**70), max_size=50))
def test_rows_are_what_numpy_makes_of_them(values: list[float]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.array(values, np.float64).astype(np.float32)
    np.testing.assert_array_equal(packed(values), expected)


@pytest.mark.parametrize(
    ("vector", "named"), [(None, {}), ([1.0, 2.0], {"": [1.0, 2.0]}), ({"a": [1.0]}, {"a": [1.0]})]
)
def test_vectors_have_names(vector: object, named: dict[str, object]) -> None:
    assert named_vectors(SimpleNamespace(vector=vector)) == named


def test_a_point_that_lost_its_vectors() -> None:
    record = SimpleNamespace(id=3, vector={"other": [1.0]})
    assert coded_point(record, "text", "csr") == (3, None, None)
