"""Whether a copy's point is the source's, up to what engines change when they write it again."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from csr_qdrant.stores.base import Json
from csr_qdrant.stores.whole_points import Vector, is_sparse
from csr_qdrant.stores.writing import Code

EXACT = 1e-6  # a float32 that was printed and parsed again, against the longest of its row
COSINE = 1e-5  # norms are taken anew in the copy
# Dequantised and quantised again; values of other datatypes come back as they are.
ROUGH = {"float16": 2e-3, "turbo8": 0.02, "turbo4": 0.3}
NUMBER = 1e-15  # of payloads: Qdrant's parser of JSON is off by one unit in the last place at times
LARGEST = 2**63  # integers from here on become floating-point numbers in some engine


def tolerances(vectors: Mapping[str, Json]) -> dict[str, float]:
    """Return how far values of each dense vector may be off, by its parameters."""
    return {name: _tolerance(each) for name, each in vectors.items()}


def _tolerance(parameters: Json) -> float:
    rough = ROUGH.get(str(parameters.get("datatype")))
    cosine = str(parameters.get("distance")).lower() == "cosine"
    return rough or (COSINE if cosine else EXACT)


def same_payload(wanted: Any, stored: Any) -> bool:
    """Tell whether two JSON values are the same; true, 1 and 1.0 are three values."""
    if isinstance(wanted, dict):
        return (
            isinstance(stored, dict)
            and wanted.keys() == stored.keys()
            and all(same_payload(value, stored[key]) for key, value in wanted.items())
        )
    if isinstance(wanted, list):
        return (
            isinstance(stored, list)
            and len(wanted) == len(stored)
            and all(map(same_payload, wanted, stored))
        )
    if isinstance(wanted, float) or isinstance(stored, float):
        return _same_number(wanted, stored)
    return type(wanted) is type(stored) and bool(wanted == stored)


def _same_number(wanted: Any, stored: Any) -> bool:
    kinds = {type(wanted), type(stored)}
    if kinds == {int, float}:
        integer = wanted if isinstance(wanted, int) else stored
        if abs(integer) < LARGEST:
            return False
    elif kinds != {float}:
        return False
    both_nan = wanted != wanted and stored != stored
    return both_nan or math.isclose(wanted, stored, rel_tol=NUMBER)


def near(wanted: Vector, stored: Vector, tolerance: float) -> bool:
    """Tell whether a vector of any kind was kept, up to `tolerance` of a row's largest value."""
    if is_sparse(wanted) or is_sparse(stored):
        return is_sparse(wanted) and is_sparse(stored) and _same_sparse(wanted, stored)
    ours, theirs = np.asarray(wanted, np.float64), np.asarray(stored, np.float64)
    if ours.shape != theirs.shape:
        return False
    if not ours.size:
        return True
    sizes = np.where(np.isfinite(ours), np.abs(ours), 0.0)
    allowed = tolerance * sizes.max(axis=-1, keepdims=True)  # by row of a multivector
    with np.errstate(invalid="ignore"):  # infinities, which are equal or not
        close = np.abs(ours - theirs) <= allowed
    alike = close | (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    return bool(alike.all())


def _same_sparse(wanted: Code, stored: Code) -> bool:
    """Compare each weight: engines keep sparse vectors as they are, in another order at most."""
    ours, theirs = (sorted(zip(*each, strict=True)) for each in (wanted, stored))
    if [index for index, _ in ours] != [index for index, _ in theirs]:
        return False
    pairs = zip(ours, theirs, strict=True)
    return all(a == b or math.isclose(a, b, rel_tol=EXACT) for (_, a), (_, b) in pairs)
