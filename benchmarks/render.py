"""Tables of the README and of `docs/benchmarks.md`, rendered from the records of measurements.

    python -m csr_qdrant.benchmarks.render

A table stands between `<!-- results: NAME -->` and `<!-- end of results -->`; everything else in
the files stays as it is.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from csr_qdrant.benchmarks import dims
from csr_qdrant.benchmarks.demo import COLUMNS, cells
from csr_qdrant.benchmarks.quality import wanted
from csr_qdrant.benchmarks.record import RESULTS
from csr_qdrant.benchmarks.render_engine import COMMANDS, RENDERERS
from csr_qdrant.benchmarks.report.format import parse_report
from csr_qdrant.benchmarks.report.markdown import summary
from csr_qdrant.benchmarks.tables import table

DOCUMENTS = (Path("README.md"), Path("docs/benchmarks.md"))
_BLOCK = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)

Record = Mapping[str, Any]


def render(documents: Iterable[Path] = DOCUMENTS, results: Path = RESULTS) -> None:
    """Put the recorded figures into the documents."""
    for document in documents:
        document.write_text(rendered(document.read_text("utf-8"), results), "utf-8")


def rendered(text: str, results: Path = RESULTS) -> str:
    """Return `text` with each block filled from its record; blocks without one stay."""

    def block(found: re.Match[str]) -> str:
        path = results / f"{found[2]}.json"
        if not path.is_file():
            return found[0]
        return f"{found[1]}\n{_section(json.loads(path.read_text('utf-8')))}\n{found[3]}"

    return _BLOCK.sub(block, text)


def _section(record: Record) -> str:
    if "format" in record:  # of `csr bench`
        return summary(parse_report(record)) + "\n"
    name = record["benchmark"].partition("-")[0]  # what follows tells data sets apart
    body = _RENDERERS[name](record["results"])
    command = COMMANDS.get(name, f"python -m csr_qdrant.benchmarks.{name}")
    where, versions = record["machine"], record["versions"]
    params = ", ".join(f"{key} {value}" for key, value in record["params"].items())
    return (
        f"{body}\n\n`{command}` ({params}), {where['cores']} cores of "
        f"{where['cpu']}, {where['memory_gib']:.0f} GiB, Python {versions['python']}, "
        f"qdrant-edge-py {versions['qdrant-edge-py']}, torch {versions.get('torch', '–')}, "
        f"commit {record['commit']}.\n"
    )


def _demo(results: Record) -> str:
    return table(COLUMNS, (cells(row) for row in results["systems"]))


def _dims(results: Record) -> str:
    columns = (f"{results['measure']} of", *dims.COLUMNS[1:], "dead")
    rows = []
    for system in results["systems"]:
        dead = [seed["dead"] for seed in system["seeds"] if seed.get("dead") is not None]
        rows.append([*dims.cells(system), f"{100 * median(dead):.1f} %" if dead else "–"])
    gaps = "\n".join(f"- {dims.gap_line(gap)}" for gap in results["gaps"])
    return f"{table(columns, rows)}\n\n{gaps}"


def _quality(results: Record) -> str:
    columns = ("trained on", "k", "nDCG@10", "of seeds", "unseen verses", "postings/query", "goal")
    rows = []
    for kind, runs in results.items():
        if "at" not in runs[0]:
            rows.append([kind, "–", *_spread(runs), "–", "–"])
            continue
        for k in runs[0]["at"]:
            found = [run["at"][k] for run in runs]
            postings = median(each["postings"] for each in found)
            goal = wanted(kind, k, postings).removeprefix(" (goal: ").removesuffix(")") or "–"
            rows.append([kind, k, *_spread(found), f"{postings:.2f} N", goal])
    return table(columns, rows)


def _equal_time(results: Record) -> str:
    rows = [
        [
            k,
            f"{found['ours']:.4f}",
            f"{found['plain']:.4f}",
            f"{found['mean']:+.4f} [{found['low']:+.4f}, {found['high']:+.4f}]",
            f"{100 * found['gain']:+.0f} %",
            f"≥ {100 * results['goal_at_least']:+.0f} %",
            f"{results['steps']:,} / {found['plain_steps']:,}",
        ]
        for k, found in results.items()
        if isinstance(found, Mapping)
    ]
    columns = ("k", "ours", "plain", "difference, 95 % interval", "gain", "goal", "steps of each")
    return table(columns, rows)


def _spread(runs: Sequence[Record]) -> list[str]:
    whole = [run["ndcg"] for run in runs]
    seeds = "–" if len(runs) == 1 else f"{min(whole):.4f}–{max(whole):.4f}"
    return [f"{median(whole):.4f}", seeds, f"{median(run['ndcg_unseen'] for run in runs):.4f}"]


def _speed_encode(results: Record) -> str:
    rows = [
        [
            kind,
            f"{found['encode_s']:.2f} s",
            f"{found['product_s']:.2f} s",
            f"{found['ratio']:.2f}",
            f"≤ {found['goal_at_most']}",
        ]
        for kind, found in results.items()
    ]
    return table(("with", "encode", "bare product", "ratio", "goal"), rows)


def _speed_train(results: Record) -> str:
    states = results["states"]
    columns = [(name, unit) for unit in ("step_s", "peak_mb") for name in states]
    head = [f"{name}, {'s' if unit == 'step_s' else 'MB'}" for name, unit in columns]
    rows = []
    for system in next(iter(states.values()))["step_s"]:
        found = [states[name].get(unit, {}).get(system) for name, unit in columns]
        digits = (2 if unit == "step_s" else 0 for _, unit in columns)
        cells = ("–" if x is None else f"{x:,.{n}f}" for x, n in zip(found, digits, strict=True))
        rows.append([system, *cells])
    default = results["default"]
    verdict = (
        f"In default settings a step takes **{1000 * default['step_s']['ours']:.1f} ms** "
        f"(a mean over k = {', '.join(map(str, default['k']))}), its two products "
        f"{1000 * default['step_s']['floor']:.1f} ms. "
        f"sentence-transformers {results['peers']['sentence-transformers']}."
    )
    titles = [title for name in states for title in (name, "goal")]
    ratios = table(("ratio", *titles), _train_ratios(states))
    return "\n\n".join((table(("step of", *head), rows), ratios, verdict))


def _train_ratios(states: Record) -> Iterable[Sequence[str]]:
    for name in next(iter(states.values()))["ratios"]:
        row = [name]
        for each in (state["ratios"][name] for state in states.values()):
            goals = {"≥": each.get("goal_at_least"), "≤": each.get("goal_at_most")}
            wanted = [f"{sign} {goal:.2f}" for sign, goal in goals.items() if goal is not None]
            row += [f"{each['ratio']:.2f}", *(wanted or ["–"])]
        yield row


def _speed_index(results: Record) -> str:
    rates = results["points_per_s"]
    rows = [[name, f"{rate:,.0f}", f"{rate / rates['ours']:.2f}"] for name, rate in rates.items()]
    verdict = (
        f"Ratio to the fastest loop: **{results['ratio']:.2f}** (goal: at least "
        f"{results['goal_at_least']})."
    )
    return table(("writes", "points/s", "of ours"), rows) + "\n\n" + verdict


def _speed_search(results: Record) -> str:
    timed = {name: each for name, each in results.items() if isinstance(each, Mapping)}
    rows = [
        [name, *(f"{each[f'{p}_ms']:.3f}" for p in ("p50", "p95", "p99"))]
        for name, each in timed.items()
    ]
    verdict = (
        f"Ratio of medians: by codes **{results['ratio_by_codes']:.2f}**, by a vector, beyond "
        f"encoding, **{results['ratio_by_vector_beyond_encoding']:.2f}** (goal: at most "
        f"{results['goal_at_most']})."
    )
    return table(("call", "p50 ms", "p95 ms", "p99 ms"), rows) + "\n\n" + verdict


def _memory(results: Record) -> str:
    runs = {name: each for name, each in results.items() if isinstance(each, Mapping)}
    rows = [
        [name, f"{each['peak_rss_anon_gb']:.2f}", f"{each['seconds']:.0f}"]
        for name, each in runs.items()
    ]
    verdict = (
        f"Difference: **{results['difference_gb']:.2f} GB** (goal: below "
        f"{results['goal_below_gb']})."
    )
    return table(("run", "peak RssAnon, GB", "seconds"), rows) + "\n\n" + verdict


_RENDERERS: dict[str, Callable[[Record], str]] = {
    **RENDERERS,
    "demo": _demo,
    "dims": _dims,
    "quality": _quality,
    "equal_time": _equal_time,
    "speed_train": _speed_train,
    "speed_encode": _speed_encode,
    "speed_index": _speed_index,
    "speed_search": _speed_search,
    "memory_index": _memory,
    "memory_attach": _memory,
    "memory_migrate": _memory,
}


if __name__ == "__main__":
    render()
