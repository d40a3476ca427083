"""`csr attach` and `csr detach`: the plan, what is said, what is refused, and going on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from attach_targets import EdgeTarget, encoder_of, vectors_of

Csr = Callable[..., Any]
N = 40
ENCODER = ("--encoder", "enc", "--vector", "text")


@pytest.fixture(autouse=True)
def files(csr: Csr) -> None:
    """Put a bare shard `docs` of N points and an encoder into the folder that commands run in."""
    EdgeTarget(Path("docs")).upsert(range(N), vectors_of(N))
    encoder_of().save("enc")


def edge(folder: str = "docs") -> EdgeTarget:
    made = EdgeTarget.__new__(EdgeTarget)
    made.folder = Path(folder)
    return made


def bytes_in(folder: str = "docs") -> dict[str, bytes]:
    """Return all files of a folder."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "through csr_qdrant.client.CsrQdrant, or as before and run `csr attach` again"),
        (("--dry-run",), "through csr_qdrant.client.CsrQdrant"),
        (("--recreate", "--yes"), "is not deleted: take the codes away with `csr detach`"),
        (("--recreate", "--dry-run"), "is not deleted"),
    ],
)
def test_files_are_not_indexed_into_it(csr: Csr, more: tuple[str, ...], said: str) -> None:
    assert csr("attach", "docs", *ENCODER).exit_code == 0
    np.save("rows.npy", vectors_of(3, seed=1))
    before = bytes_in()
    ran = csr("index", "rows.npy", "docs", "--encoder", "enc", *more)
    assert ran.exit_code == 1 and said in ran.stderr
    assert bytes_in() == before
