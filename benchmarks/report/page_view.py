"""What the page's script draws: every figure of every system, as values and as texts."""

import json
from typing import Any

from csr_qdrant.benchmarks.report.families import looks
from csr_qdrant.benchmarks.report.figures import (
    Figure,
    by_bytes,
    detail_figures,
    main_figures,
)
from csr_qdrant.benchmarks.report.format import Report
from csr_qdrant.benchmarks.report.header import settings


def view(report: Report) -> dict[str, Any]:
    """Return the figures, families and systems of a report; systems in the order of the tables."""
    systems = by_bytes(report)
    families = looks(system.family for system in systems)
    places = {family: i for i, family in enumerate(families)}
    return {
        "figures": [
            {
                "key": figure.key,
                "title": figure.title,
                "short": figure.short,
                "better": figure.better,
                "log": figure.log,
                "values": [figure.value(system) for system in systems],
                "low": [figure.estimate(system).low for system in systems],
                "high": [figure.estimate(system).high for system in systems],
                "texts": [figure.cell(system, interval=True) for system in systems],
            }
            for figure in [*main_figures(report), *detail_figures(report)]
        ],
        "families": [{"name": name, "mark": look.mark} for name, look in families.items()],
        "systems": [
            {
                "name": system.name,
                "family": places[system.family],
                "familyName": system.family,
                "rescored": system.rescored,
                "settings": settings(system.settings),
            }
            for system in systems
        ],
    }


def plots(report: Report) -> list[tuple[Figure, Figure]]:
    """Return (horizontal, vertical) of each of the three plots that the report can fill."""
    figures = {figure.key: figure for figure in [*main_figures(report), *detail_figures(report)]}
    quality = figures.get(f"quality:{report.task.measure}")
    fidelity = next((f for key, f in figures.items() if key.startswith("fidelity:")), None)
    rates = [figure for key, figure in figures.items() if key.startswith("qps:")]
    wanted = [
        (figures.get("bytes:searched"), quality),
        (figures.get("search:p95"), quality),
        (rates[0] if rates else None, fidelity),
    ]
    return [(x, y) for x, y in wanted if x is not None and y is not None]


def embedded(value: Any) -> str:
    """Return JSON that may stand in a script element: it holds no <, > or &, and is ASCII."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
