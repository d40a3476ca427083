"""Ids: what is accepted, and point ids that never change."""

import uuid
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csr_qdrant import CsrError
from csr_qdrant.ids import (
    ID_KEY,
    NAMESPACE,
    ExternalId,
    external_id,
    normalise_id,
    payload_with_id,
    point_id,
)

UUID_TEXT = "0b5d3b9e-7c36-4b8e-9d6a-1f2e3d4c5b6a"
IDS = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.text(min_size=1), st.uuids().map(str), st.just(UUID_TEXT)
)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (7, 7),
        (-1, -1),
        (2**64 - 1, 2**64 - 1),
        (-(2**63), -(2**63)),
        ("7", "7"),
        (" doc 1 ", " doc 1 "),
        (np.int64(-5), -5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.int8(3), 3),
        (np.array([4])[0], 4),
        (np.str_("x"), "x"),
        (uuid.UUID(UUID_TEXT), UUID_TEXT),
        (UUID_TEXT.upper(), UUID_TEXT.upper()),
    ],
)
def test_ids_become_plain_ints_and_texts(raw: Any, expected: ExternalId) -> None:
    got = normalise_id(raw)
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("", "must not be empty"),
        (True, "got bool True"),
        (np.True_, "got bool"),
        (1.0, "got float 1.0"),
        (np.float32(2), "got float32"),
        (None, "got NoneType None"),
        (b"x", "got bytes b'x'"),
        ([1], "got list [1]"),
        (np.array([1]), "got ndarray"),
        (np.array(1), "got ndarray"),
        (2**64, "64 bits, got 18446744073709551616"),
        (-(2**63) - 1, "64 bits"),
        ("a\ud800", "Unicode"),
    ],
)
def test_other_ids_are_refused(raw: Any, words: str) -> None:
    with pytest.raises(CsrError) as caught:
        normalise_id(raw)
    assert words in str(caught.value)


# Collections on disk hold these: a change here would duplicate every point that users have.
GOLDEN: list[tuple[ExternalId, int | str]] = [
    (0, 0),
    (2**64 - 1, 2**64 - 1),
    (UUID_TEXT, UUID_TEXT),
    ("doc-1", "56ae5a5a-e00b-54bb-b985-703462e9ed95"),
    ("7", "e7936e3a-0ec8-597d-bd2c-41db8a83f44a"),
    (-7, "2a78d620-fcc6-5e82-9068-96562184263b"),
    ("-7", "aa269c15-eed7-5a89-8509-b1e8f94041b0"),
    (UUID_TEXT.upper(), "4e773ef4-47d8-5d03-8bcb-2522cdeef318"),
    ("Köln", "e64fcc66-d3ea-5b36-b11f-189458795860"),
]


@pytest.mark.parametrize(("external", "point"), GOLDEN)
def test_point_ids_are_fixed_for_ever(external: ExternalId, point: int | str) -> None:
    assert point_id(external) == point


def test_the_namespace_is_fixed_for_ever() -> None:
    assert str(NAMESPACE) == "6d0f9b1e-4c1d-5a57-9b53-0d2f6a8c7e11"


@given(st.lists(IDS, unique_by=lambda i: (type(i), i)))
def test_different_ids_never_share_a_point(ids: list[ExternalId]) -> None:
    assert len({point_id(each) for each in ids}) == len(ids)


@given(IDS)
def test_point_ids_are_what_qdrant_takes_and_lead_back(external: ExternalId) -> None:
    point = point_id(external)
    if isinstance(point, int):
        assert 0 <= point < 2**64
    else:
        assert str(uuid.UUID(point)) == point
    assert external_id(point, payload_with_id(external, point, {"a": 1})) == external


def test_the_payload_holds_the_original_only_where_it_is_needed() -> None:
    own = {"title": "x"}
    assert payload_with_id(7, 7, own) == {"title": "x"}
    assert payload_with_id("doc-1", point_id("doc-1"), own) == {"title": "x", ID_KEY: "doc-1"}
    assert payload_with_id(7, 7, None) == {}
    assert own == {"title": "x"}
    assert external_id(7, None) == 7


def test_the_reserved_key_is_refused() -> None:
    with pytest.raises(CsrError, match=r"'_id' is reserved for the external id.*id 'doc-1'"):
        payload_with_id("doc-1", point_id("doc-1"), {ID_KEY: "mine"})
