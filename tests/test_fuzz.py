"""Guided fuzzing of the readers runs, finds nothing in a few thousand inputs, stops at a bug."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("atheris")
ROOT = Path(__file__).parent.parent
BROKEN = """
import runpy, sys
sys.path.insert(0, "tests")
import readers
sound = readers.READERS["pipeline modules"]
readers.READERS = {"broken": sound._replace(read=lambda folder: 1 // 0)}
runpy.run_module("tests.fuzz", run_name="__main__", alter_sys=True)
"""


def fuzz(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


@pytest.mark.slow
def test_a_few_thousand_inputs_raise_nothing_but_csr_errors(tmp_path: Path) -> None:
    ran = fuzz("-m", "tests.fuzz", "-runs=4000", "-seed=1", f"-artifact_prefix={tmp_path}/")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "Done 4000 runs" in ran.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_fuzzing_ends_with_the_input_that_a_reader_does_not_bear(tmp_path: Path) -> None:
    ran = fuzz("-c", BROKEN, "-runs=100", f"-artifact_prefix={tmp_path}/")
    assert ran.returncode != 0
    assert "reader 'broken' fails" in ran.stderr and "ZeroDivisionError" in ran.stdout + ran.stderr
    assert [file.name.partition("-")[0] for file in tmp_path.iterdir()] == ["crash"]
