"""Checks of a sample of stored codes: whether they are right, and what a search in them costs."""

from functools import partial

import numpy as np

from csr_qdrant.deployment.attach_codes import Coder, compare
from csr_qdrant.deployment.doctor_report import Chart
from csr_qdrant.encoder import Encoder
from csr_qdrant.explain_sample import sample_points
from csr_qdrant.explain_usage import Usage, latent_usage
from csr_qdrant.identity import Identity
from csr_qdrant.stores.base import Store, StoredPoint
from csr_qdrant.stores.records import packed
from csr_qdrant.stores.writing import CodedPoint

ENCODED = 1000  # codes at most that are made once more
NORM_TOLERANCE = 0.02  # of an engine that keeps values in 16 bits
DEAD = 0.2  # share of latents without postings from which it is worth a word
LONG = 0.05  # share of the points in one list
FEWEST = 1000  # sampled points whose lists tell whether they are long, and searches dear
COSTLY = 0.3  # postings a query, as a share of the points


def check_codes(
    chart: Chart, store: Store, identity: Identity, encoder: Encoder | None, sample: int
) -> None:
    """Look at codes one by one; those of an attached collection are made once more.

    A collection of csr-qdrant's own keeps unit vectors, not those that its codes were made of, so
    there nothing could be compared.
    """
    coder = Coder(encoder, identity.k, None) if encoder and store.schema.attached else None
    seen = invalid = compared = wrong = 0
    for page in sample_points(store, min(sample, ENCODED)):
        coded = [point for point in page if point.code is not None]
        seen += len(coded)
        invalid += sum(not _is_valid(point, identity) for point in coded)
        if coder is not None and coded:
            vectors = coder.vectors(list(map(_coded, filter(partial(_fits, identity), coded))))
            compared += len(vectors.ids)
            wrong += compare(vectors, coder.encode(vectors)).wrong
    chart.metrics |= {
        "csr_sample_codes": seen,
        "csr_sample_codes_invalid": invalid,
        "csr_sample_codes_compared": compared,
        "csr_sample_codes_different": wrong,
    }
    if invalid:
        chart.problem(
            "codes",
            f"{invalid:,} of {seen:,} codes in a sample are not csr-qdrant's (norm 1, at most "
            f"{identity.k} of {identity.h} latents): run csr attach again, or index anew",
        )
    if wrong:
        chart.problem(
            "codes",
            f"{wrong:,} of {compared:,} codes in a sample do not belong to the points' dense "
            "vectors, which have changed since: run csr attach again",
        )


def _fits(identity: Identity, point: StoredPoint) -> bool:
    """Tell whether a point has a vector that the encoder takes: not one of another model, since."""
    return point.dense is not None and len(point.dense) == identity.d


def _is_valid(point: StoredPoint, identity: Identity) -> bool:
    indices, values = point.code or ([], [])
    array = np.asarray(values, np.float64)
    return (
        len(set(indices)) == len(indices) == len(values)
        and 0 < len(indices) <= identity.k
        and max(indices) < identity.h
        and bool(np.isfinite(array).all())
        and abs(float(np.linalg.norm(array)) - 1) < NORM_TOLERANCE
    )


def check_balance(chart: Chart, store: Store, sample: int) -> None:
    """Count latents in a sample, and say what makes searches dear."""
    usage = latent_usage(store, sample)
    h, shares = len(usage.documents), usage.shares
    lists = np.sort(usage.documents)[::-1]
    longest = float(shares.max(initial=0))
    postings = usage.postings_per_query
    chart.metrics |= {
        "csr_sample_points": usage.sampled,
        "csr_latents": h,
        "csr_latents_dead": len(usage.dead),
        "csr_latents_effective": usage.effective_latents,
        "csr_code_latents_mean": float(shares.sum()),
        "csr_longest_list_ratio": longest,
        "csr_longest_lists_share": _share(lists, max(1, h // 100)),
        "csr_query_postings_ratio": postings,
        "csr_query_postings": postings * usage.points,
    }
    _say(chart, usage, longest, postings)


def _share(lists: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]", n: int) -> float:
    """Return which share of all postings stands in the `n` longest lists."""
    total = int(lists.sum())
    return float(lists[:n].sum() / total) if total else 0.0


def _say(chart: Chart, usage: Usage, longest: float, postings: float) -> None:
    h, dead = len(usage.documents), len(usage.dead)
    if usage.sampled >= 10 * h and dead > DEAD * h:  # a small sample leaves latents out by chance
        chart.warn(
            "latents",
            f"{dead:,} of {h:,} latents are in no code of {usage.sampled:,} points: an encoder "
            "trained on vectors like these, or with fewer latents, uses its bytes better",
        )
    if usage.sampled < FEWEST:  # where one point more makes a list long, and nothing is dear
        return
    if longest > LONG:
        latent = int(usage.documents.argmax())
        chart.warn(
            "balance",
            f"one list, of latent {latent}, holds {100 * longest:.0f} % of the points: query with "
            "fewer latents (--k), or train with a larger --balance or --h",
        )
    if postings > COSTLY:
        chart.warn(
            "balance",
            f"a query like a document touches {postings:.2f} postings a point: query with fewer "
            "latents (--k), as csr tune chooses them",
        )


def _coded(point: StoredPoint) -> CodedPoint:
    return CodedPoint(point.id, None if point.dense is None else packed(point.dense), point.code)
