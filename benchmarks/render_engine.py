"""Tables of what the engine costs: against HNSW, at scale, attached to, through an application."""

from collections.abc import Callable, Mapping
from typing import Any

from csr_qdrant.benchmarks.tables import table

Record = Mapping[str, Any]
_STEPS = ("encode", "upload", "optimise")


def _equal_recall(results: Record) -> str:
    points = {each["name"]: each for each in results["points"]}
    rows = []
    for pair in results["equal"]:
        graph = points[pair["hnsw"]]
        own = [pair["hnsw"], f"{graph['recall']:.3f}", f"{graph['p50_ms']:.3f}"]
        if pair["codes"] is None:
            rows.append([*own, "none reaches it", "–", "–", "–", "–"])
            continue
        codes = points[pair["codes"]]
        theirs = [pair["codes"].removeprefix("codes, "), f"{codes['recall']:.3f}"]
        theirs += [f"{codes['p50_ms']:.3f}", f"{codes['postings']:.2f} N", f"{pair['ratio']:.2f}"]
        rows.append([*own, *theirs])
    columns = ["HNSW", "recall@10", "p50 ms", "fastest codes of that recall"]
    columns += ["recall@10", "p50 ms", "postings", "p50 / HNSW's"]
    builds = [
        [kind, *(f"{results['build_s'][kind][f'{step}_s']:.1f}" for step in _STEPS)]
        for kind in ("hnsw", "codes")
    ]
    verdict = f"Codes were optimised **{results['optimise_ratio']:.0f}** times faster."
    built = table(("index", *(f"{step} s" for step in _STEPS)), builds)
    return f"{table(columns, rows)}\n\n{built}\n\n{verdict}"


def _scale(results: Record) -> str:
    rows = []
    for size in results["sizes"]:
        for k, each in size["p50_by_query_k"].items():
            rows.append(
                [
                    f"{size['rows']:,}{'' if size['fitted'] else ' (not fitted)'}",
                    k,
                    f"{each['postings_share']:.3f}",
                    f"{each['measured_ms']:.2f}",
                    f"{each['relative_error']:+.0%}",
                ]
            )
    columns = ("documents", "query latents", "postings, in N", "p50 ms", "predicted against that")
    foretold = [
        [
            f"{each['rows']:,} over {each['shards']}",
            str(each["query_k"]),
            f"{each['p50_ms']:.1f}",
            f"{each['ram_gb']:.1f}",
        ]
        for each in results["predicted"]
    ]
    larger = table(("documents, shards", "query latents", "p50 ms", "RAM GB"), foretold)
    return f"{table(columns, rows)}\n\nPredicted, not measured:\n\n{larger}"


def _speed_client(results: Record) -> str:
    rows = [
        [
            name,
            *(f"{each[call]['p50_ms']:.3f}" for call in ("encode", "encode_then_raw", "query")),
            f"{each['ratio_beyond_encoding']:.2f}",
        ]
        for name, each in results.items()
        if isinstance(each, Mapping)
    ]
    columns = ("engine", "encode ms", "encode, raw call ms", "CsrQdrant.query ms")
    return table((*columns, "ratio beyond encoding"), rows)


def _speed_attach(results: Record) -> str:
    rates = results["points_per_s"]
    rows = [[name, f"{rate:,.0f}"] for name, rate in rates.items()]
    return (
        f"{table(('run', 'points/s'), rows)}\n\nRatio to the fastest loop: "
        f"**{results['ratio']:.2f}** (goal: at least {results['goal_at_least']})."
    )


RENDERERS: dict[str, Callable[[Record], str]] = {
    "equal_recall": _equal_recall,
    "scale": _scale,
    "speed_client": _speed_client,
    "speed_attach": _speed_attach,
}
COMMANDS = {"scale": "csr bench scale"}  # of records that no module of the same name makes
