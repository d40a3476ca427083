"""Files and folders appear whole or not at all."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from csr_qdrant import ConfigError
from csr_qdrant.atomic import (
    refuse_existing,
    remove_whole,
    replaced_file,
    replaced_folder,
    write_json,
)


class Break(Exception):
    """What goes wrong in the middle of writing."""


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "f.txt"
    with replaced_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # or the rename could cross file systems
    assert path.read_text() == "new"
    assert names(path.parent) == ["f.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(Break), replaced_file(path) as temporary:
        temporary.write_text("half")
        raise Break
    assert path.read_text() == "old"
    assert names(tmp_path) == ["f.txt"]


def test_a_file_is_replaced_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("old")
    with path.open() as reader:
        with replaced_file(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert reader.read() == "old"  # who reads meanwhile sees the old file, never a mixture
    assert path.read_text() == "new"


def test_what_an_earlier_process_of_the_same_number_left_is_not_mixed_in(tmp_path: Path) -> None:
    left = tmp_path / f".enc.partial-{os.getpid()}"
    left.mkdir()
    (left / "stale").write_text("x")
    with replaced_folder(tmp_path / "enc") as temporary:
        (temporary / "a").write_text("1")
    assert names(tmp_path / "enc") == ["a"]


def test_a_block_that_writes_nothing_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replaced_file(path):
        pass
    assert path.read_text() == "old"
    assert names(tmp_path) == ["f.txt"]


def test_a_folder_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "enc"
    with replaced_folder(path) as temporary:
        (temporary / "a").write_text("1")
        (temporary / "sub").mkdir()
        (temporary / "sub" / "b").write_text("2")
        assert not path.exists()
    assert names(path) == ["a", "sub"]
    assert (path / "sub" / "b").read_text() == "2"
    assert names(path.parent) == ["enc"]


def test_a_failure_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(Break), replaced_folder(tmp_path / "enc") as temporary:
        (temporary / "a").write_text("half")
        raise Break
    assert names(tmp_path) == []


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc" / "a").write_text("old")
    with (
        pytest.raises(Break),
        replaced_folder(tmp_path / "enc", overwrite=True) as temporary,
    ):
        (temporary / "a").write_text("half")
        raise Break
    assert names(tmp_path) == ["enc"]
    assert (tmp_path / "enc" / "a").read_text() == "old"


def test_overwriting_leaves_nothing_of_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc" / "old").write_text("old")
    with replaced_folder(tmp_path / "enc", overwrite=True) as temporary:
        (temporary / "new").write_text("new")
    assert names(tmp_path) == ["enc"]
    assert names(tmp_path / "enc") == ["new"]


def test_existing_paths_are_refused_before_the_block(tmp_path: Path) -> None:
    (tmp_path / "enc").mkdir()
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "enc", tmp_path / "file"):
        with pytest.raises(ConfigError) as caught, replaced_folder(path):
            pytest.fail("the block must not run")
        assert str(caught.value).startswith(f"{path} already exists: ")
    refuse_existing(tmp_path / "enc", overwrite=True)
    refuse_existing(tmp_path / "missing", overwrite=False)
    assert names(tmp_path) == ["enc", "file"]


def test_the_old_folder_comes_back_if_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc" / "a").write_text("old")
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            raise OSError("no more")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with (
        pytest.raises(OSError, match="no more"),
        replaced_folder(tmp_path / "enc", overwrite=True) as temporary,
    ):
        (temporary / "a").write_text("new")
    assert names(tmp_path) == ["enc"]
    assert (tmp_path / "enc" / "a").read_text() == "old"


def test_overwriting_a_file_by_a_folder_works(tmp_path: Path) -> None:
    (tmp_path / "enc").write_text("a file")
    with replaced_folder(tmp_path / "enc", overwrite=True) as temporary:
        (temporary / "a").write_text("1")
    assert names(tmp_path) == ["enc"]
    assert names(tmp_path / "enc") == ["a"]


def test_a_folder_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="already exists"),
        replaced_folder(tmp_path / "enc") as temporary,
    ):
        (temporary / "a").write_text("mine")
        (tmp_path / "enc").mkdir()
        (tmp_path / "enc" / "a").write_text("another's")
    assert (tmp_path / "enc" / "a").read_text() == "another's"
    assert names(tmp_path) == ["enc"]


KILLED = """
import os, signal, sys
from pathlib import Path
from csr_qdrant.atomic import replaced_file
with replaced_file(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_the_old_file_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    path = tmp_path / "f[1].txt"
    path.write_text("old")
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -9
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    with replaced_file(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["f[1].txt"]


REMOVING = """
import os, shutil, signal, sys
from pathlib import Path
from csr_qdrant.atomic import remove_whole
shutil.rmtree = lambda path: os.kill(os.getpid(), signal.SIGKILL)
remove_whole(Path(sys.argv[1]))
"""


def test_a_folder_is_removed_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "enc"
    for killed in (False, True):
        path.mkdir()
        (path / "a").write_text("1")
        if killed:
            removing = subprocess.run([sys.executable, "-c", REMOVING, str(path)], check=False)
            assert removing.returncode == -9
            assert not path.exists() and len(names(tmp_path)) == 1
        remove_whole(path)  # the second time only what the killed process left
        assert names(tmp_path) == []
    remove_whole(path)
    path.write_text("a file")
    remove_whole(path)
    assert names(tmp_path) == []


REPLACING = """
import os, signal, sys
from pathlib import Path
from csr_qdrant.atomic import replaced_folder
rename = Path.rename
def until_killed(self, target):
    if ".partial-" in self.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
Path.rename = until_killed
with replaced_folder(Path(sys.argv[1]), overwrite=True) as temporary:
    (temporary / "a").write_text("new")
"""


def test_what_was_to_be_replaced_when_a_process_was_killed_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "enc"
    path.mkdir()
    (path / "a").write_text("old")
    killed = subprocess.run([sys.executable, "-c", REPLACING, str(path)], check=False)
    assert killed.returncode == -9
    assert not path.exists() and len(names(tmp_path)) == 2
    with pytest.raises(Break), replaced_folder(path, overwrite=True):
        raise Break
    assert names(tmp_path) == ["enc"]
    assert (path / "a").read_text() == "old"


def test_a_process_of_the_same_number_brings_it_back_too(tmp_path: Path) -> None:
    path, aside = tmp_path / "enc", tmp_path / f".enc.csr-replaced-{os.getpid()}"
    aside.mkdir()  # as in a container, where each command has the number 1
    (aside / "a").write_text("old")
    with pytest.raises(ConfigError, match="already exists"):
        refuse_existing(path, overwrite=False)
    aside.mkdir()
    (aside / "a").write_text("replaced long ago")
    with replaced_folder(path, overwrite=True) as temporary:
        (temporary / "a").write_text("new")
    assert names(tmp_path) == ["enc"]
    assert (path / "a").read_text() == "new"


def test_what_is_brought_back_was_never_half_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "enc"
    path.mkdir()
    for name in "ab":
        (path / name).write_text("old")

    def stopped(folder: Path, **_: object) -> None:
        (folder / "a").unlink(missing_ok=True)
        raise Break

    with monkeypatch.context() as patch, pytest.raises(Break):
        patch.setattr("csr_qdrant.atomic.shutil.rmtree", stopped)
        with replaced_folder(path, overwrite=True) as temporary:
            (temporary / "c").write_text("new")
    assert names(path) == ["c"]
    path.rename(tmp_path / "moved")  # by hand
    refuse_existing(path, overwrite=False)
    assert not path.exists()


@pytest.mark.parametrize(
    "name", [".enc.old-20240101", ".enc.csr-replaced-v1", ".enc.csr-replaced-1.partial-4194999"]
)
def test_what_others_keep_beside_it_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "thesis.txt").write_text("years of work")
    with replaced_folder(tmp_path / "enc") as temporary:
        (temporary / "a").write_text("1")
    remove_whole(tmp_path / "enc")
    assert names(tmp_path) == [name]
    assert (tmp_path / name / "thesis.txt").read_text() == "years of work"


def test_links_and_nameless_folders_are_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enc").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "enc")
    with pytest.raises(ConfigError, match="is a link to a folder"):
        remove_whole(tmp_path / "link")
    monkeypatch.chdir(tmp_path / "enc")
    with pytest.raises(ConfigError, match="from outside"):
        remove_whole(Path())
    assert names(tmp_path) == ["enc", "link"]


def test_folders_that_cannot_be_renamed_are_removed_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "enc").mkdir()
    (tmp_path / "enc" / "a").write_text("1")

    def refused(self: Path, target: Path) -> Path:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", refused)
    remove_whole(tmp_path / "enc")
    assert names(tmp_path) == []


def test_what_living_processes_are_writing_stays(tmp_path: Path) -> None:
    (tmp_path / f".f.partial-{os.getppid()}").write_text("another's")
    with replaced_file(tmp_path / "f") as temporary:
        temporary.write_text("mine")
    assert names(tmp_path) == [f".f.partial-{os.getppid()}", "f"]


def test_json_is_written_readably_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"title": "Köln", "k": [1, 2]})
    assert path.read_text("utf-8") == '{\n  "title": "Köln",\n  "k": [\n    1,\n    2\n  ]\n}\n'
    with pytest.raises(TypeError):
        write_json(path, {"bad": object()})
    assert json.loads(path.read_text("utf-8")) == {"title": "Köln", "k": [1, 2]}
    assert names(tmp_path) == ["a.json"]


def test_files_get_the_permissions_of_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with replaced_file(tmp_path / "f") as temporary:
            temporary.write_text("x")
        with replaced_folder(tmp_path / "d") as folder:
            (folder / "a").write_text("x")
    finally:
        os.umask(mask)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o750
