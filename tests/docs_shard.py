"""What the examples of pages on existing collections run over: a bare shard, and an encoder."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge

from csr_qdrant.encoder import Encoder

D = 12
DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Return the examples of a page in one language, in their order."""
    text = (DOCS / page).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(page: str, number: int = 0) -> list[list[str]]:
    """Return the arguments of the `csr` of each line of one of a page's scripts."""
    lines = blocks(page, "sh")[number].strip().splitlines()
    return [line.split("#")[0].split()[1:] for line in lines]


def ran(page: str, number: int, names: dict[str, Any]) -> dict[str, Any]:
    """Run one of a page's examples in Python, and return its names."""
    exec(compile(blocks(page, "python")[number], page, "exec"), names)
    return names


def rows_fixture(n: int, *, zero: int | None = None) -> Any:
    """Return a fixture that gives the n vectors of a bare shard in `docs`, beside an encoder.

    The vector of the row `zero` is all zeros.
    """

    @pytest.fixture
    def rows(tmp_path: Path, csr: Callable[..., Any]) -> Any:
        random = np.random.default_rng(0)
        made = random.normal(size=(n, D)).astype(np.float32)
        if zero is not None:
            made[zero] = 0
        _save_shard(tmp_path / "docs", made)
        Encoder(
            weight=random.normal(size=(64, D)).astype(np.float32),
            latent_bias=np.zeros(64, np.float32),
            pre_bias=np.zeros(D, np.float32),
            k=8,
        ).save(tmp_path / "encoder")
        np.save(tmp_path / "queries.npy", made[:3])
        return made

    return rows


def _save_shard(folder: Path, made: Any) -> None:
    folder.mkdir()
    vectors = {"": qdrant_edge.EdgeVectorParams(size=D, distance=qdrant_edge.Distance.Dot)}
    shard = qdrant_edge.EdgeShard.create(str(folder), qdrant_edge.EdgeConfig(vectors=vectors))
    points = [qdrant_edge.Point(i, {"": row}, {"row": i}) for i, row in enumerate(made.tolist())]
    shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
    shard.flush()
    shard.close()
