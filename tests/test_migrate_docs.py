"""The examples of docs/migrate.md run."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from docs_shard import blocks, commands, ran, rows_fixture

PAGE, N = "migrate.md", 200
rows = rows_fixture(N)


def test_the_commands_run(rows: Any, csr: Callable[..., Any], tmp_path: Path) -> None:
    assert len(blocks(PAGE, "sh")) == 1
    given = commands(PAGE)
    assert csr(*given[0], "--json").json["keep"] == "rescore"
    assert not (tmp_path / "copy").exists()
    assert csr(*given[1], "--json").json["copied"] == N
    assert len(csr(*given[2], "--json").rows) == 3
    again = csr(*given[3], "--json").json
    assert (again["copied"], again["mended"], again["complete"]) == (0, 0, True)


def test_the_python_example_runs(rows: Any) -> None:
    assert len(blocks(PAGE, "python")) == 1
    names = ran(PAGE, 0, {"query": rows[5]})
    assert names["report"].complete and names["report"].target_points == N
    assert len(names["hits"]) == 5 and names["hits"][0].payload["row"] in range(N)
