"""Sources of images: folders as torchvision reads them, and webdataset shards, hostile ones too."""

import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csr_qdrant.errors import CsrError
from csr_qdrant.sources import open_source, webdataset
from csr_qdrant.sources.images import ImageRow, holds_images, open_images


def png(seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes, **more: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def shard(path: Path, members: Mapping[str, bytes | str]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            add(tar, name, content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path, start: int = 0) -> list[ImageRow]:
    return list(open_images(path).rows(start))


# --- folders ----------------------------------------------------------------------------------


def test_a_folder_is_read_in_the_order_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

    for name in (
        "b/2.png",
        "b/10.PNG",
        "b/1.jpeg",
        "a/x/2.png",
        "a/x/1.png",
        "a/b.png",
        "B/1.webp",
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png())
    (tmp_path / "b" / "notes.txt").write_text("no picture")
    expected = ImageFolder(str(tmp_path))
    found = rows(tmp_path)
    assert [str(row.data) for row in found] == [path for path, _ in expected.samples]
    assert [row.label for row in found] == [expected.classes[t] for t in expected.targets]
    assert [row.id for row in found][:3] == ["B/1.webp", "a/b.png", "a/x/1.png"]
    assert len(open_images(tmp_path)) == 7
    assert [row.id for row in rows(tmp_path, 5)] == [row.id for row in found][5:]


def test_images_of_the_folder_itself_come_first_and_have_no_label(tmp_path: Path) -> None:
    for name in ("z.png", "a/1.png", "y.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    found = [(row.id, row.label) for row in rows(tmp_path)]
    assert found == [("y.png", None), ("z.png", None), ("a/1.png", "a")]


def test_the_current_folder_has_the_same_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "1.png").write_bytes(png())
    monkeypatch.chdir(tmp_path)
    assert [row.id for row in rows(Path())] == ["a/deep/1.png"]
    assert open_images(".").fingerprint == open_images(tmp_path).fingerprint


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png())
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "nowhere")
    assert [row.id for row in rows(tmp_path)] == ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_no_text_become_ids(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(png())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (row,) = rows(tmp_path)
    assert row.id == "\\xff.png"
    assert isinstance(row.data, Path) and row.data.read_bytes() == png()


def test_the_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png())
    first = open_images(tmp_path).fingerprint
    assert open_images(tmp_path).fingerprint == first
    (tmp_path / "1.png").write_bytes(png() + b"more")
    assert open_images(tmp_path).fingerprint != first


def test_what_holds_images_is_told_from_other_sources(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "beir").mkdir()
    (tmp_path / "beir" / "corpus.jsonl").write_text('{"_id": "1", "text": "a"}\n')
    (tmp_path / "beir" / "logo.png").write_bytes(png())
    (tmp_path / "deep" / "a" / "b").mkdir(parents=True)
    (tmp_path / "deep" / "a" / "b" / "1.png").write_bytes(png())
    shard(tmp_path / "s.tar", {"1.png": png()})
    answers = {name: holds_images(tmp_path / name) for name in ("empty", "beir", "deep", "s.tar")}
    assert answers == {"empty": False, "beir": False, "deep": True, "s.tar": True}
    assert holds_images(tmp_path)  # a folder of shards
    with pytest.raises(CsrError, match="deep holds images: make vectors of them with csr embed"):
        open_source(tmp_path / "deep")
    with pytest.raises(CsrError, match="empty holds no images"):
        open_images(tmp_path / "empty")
    with pytest.raises(CsrError, match=r"corpus\.jsonl holds no images"):
        open_images(tmp_path / "beir" / "corpus.jsonl")
    with pytest.raises(CsrError, match="nowhere does not exist"):
        open_images(tmp_path / "nowhere")


# --- shards -----------------------------------------------------------------------------------


def test_members_of_one_key_make_a_row(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {
        "./000.txt": "a red car\n\n a car \n",
        "./000.png": png(0),
        "./000.cls": "7\n",
        "001.json": json.dumps({"caption": "a dog", "label": "dog", "url": "u", "_id": 3}),
        "001.JPG": png(1),
        "002.seg.png": png(9),  # another kind of member, as webdataset reads names
        "002.webp": png(2),
        "002.png": png(9),
        "003.txt": "no image",
        "dir.with.dots/004.png": png(4),
        "005.png": png(5),
        "005.json": '{"captions": ["x", 3, "y"], "label": true',
    }
    path = shard(tmp_path / "s.tar", members)
    source = open_images(path)
    found = list(source.rows())
    assert len(source) == len(found) == 5
    assert [row.id for row in found] == ["000", "001", "002", "dir.with.dots/004", "005"]
    assert [row.data for row in found] == [png(0), png(1), png(2), png(4), png(5)]
    assert [row.label for row in found] == [7, "dog", None, None, None]
    assert found[0].captions == ("a red car", "a car")
    assert found[1].captions == ("a dog",)
    assert found[1].payload == {"url": "u"}
    assert found[4].captions == ()  # its JSON is damaged


def test_rows_start_anywhere_in_a_folder_of_shards(tmp_path: Path) -> None:
    for number, size in enumerate([3, 1, 2]):
        shard(tmp_path / f"{number}.tar", {f"{i}.png": png(10 * number + i) for i in range(size)})
    everything = rows(tmp_path)
    assert [row.id for row in everything] == ["0/0", "0/1", "0/2", "1/0", "2/0", "2/1"]
    for start in range(7):
        assert rows(tmp_path, start) == everything[start:]
    (tmp_path / "0.tar").unlink()  # shards that lie before are not even opened
    source = open_images(tmp_path)
    (tmp_path / "1.tar").unlink()
    assert [row.id for row in source.rows(1)] == ["2/0", "2/1"]


def test_nested_captions_come_from_json(tmp_path: Path) -> None:
    members: dict[str, bytes | str] = {"1.png": png()}
    members |= {"1.json": '{"captions": ["x", 3, "", "y"], "a": {"b": [1]}}'}
    (row,) = rows(shard(tmp_path / "s.tar", members))
    assert (row.captions, row.payload) == (("x", "y"), {"a": {"b": [1]}})


def test_hostile_members_are_refused_and_the_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "MAX_BYTES", 1000)
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 10)
    (tmp_path / "secret.png").write_bytes(png(99))
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        add(tar, "../up.png", png(1))
        add(tar, "/etc/abs.png", png(2))
        add(tar, "link.png", b"", type=tarfile.SYMTYPE, linkname=str(tmp_path / "secret.png"))
        add(tar, "hard.png", b"", type=tarfile.LNKTYPE, linkname="../up.png")
        add(tar, "device.png", b"", type=tarfile.CHRTYPE)
        add(tar, "folder.png", b"", type=tarfile.DIRTYPE)
        add(tar, "large.png", bytes(1001))
        add(tar, "good.png", png(3))
        add(tar, "good.txt", b"a caption of more than ten bytes")
        add(tar, "good.json", b'{"a": 1}')
    found = {row.id: row for row in rows(tmp_path / "s.tar")}
    assert {key: row.refused for key, row in found.items()} == {
        "../up": "its name leads out of the shard",
        "/etc/abs": "its name leads out of the shard",
        "link": "it is a link, a device or sparse",
        "hard": "it is a link, a device or sparse",
        "device": "it is a link, a device or sparse",
        "large": "1,001 bytes, above 1,000",
        "good": None,
    }
    assert {row.data for key, row in found.items() if key != "good"} == {b""}
    assert (found["good"].data, found["good"].captions) == (png(3), ())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.tar", "secret.png"]


def test_damaged_shards_are_one_sentence(tmp_path: Path) -> None:
    whole = shard(tmp_path / "s.tar", {f"{i}.png": png(i) for i in range(3)}).read_bytes()
    header = tarfile.BLOCKSIZE
    absurd = tarfile.TarInfo("x.png")
    absurd.size = 2**60
    for name, content in {
        "no tar": b"something else" * 100,
        "cut in content": whole[: header + 20],
        "a header is damaged": whole[: 2 * header] + b"x" * header + whole[3 * header :],
        "a size that is not there": absurd.tobuf(tarfile.GNU_FORMAT) + png(),
        "a negative size": whole[:124] + b"\xff" * 12 + whole[136:],
    }.items():
        (tmp_path / "s.tar").write_bytes(content)
        with pytest.raises(CsrError, match=r"s\.tar is no whole tar file") as caught:
            open_images(tmp_path / "s.tar")
        assert "\n" not in str(caught.value), name


def test_a_negative_size_with_a_valid_checksum_does_not_go_round_in_circles(
    tmp_path: Path,
) -> None:
    info = tarfile.TarInfo("x.png")
    raw = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    raw[124:136] = b"\xff" * 10 + b"\xfe\x00"  # -512
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    (tmp_path / "s.tar").write_bytes(bytes(raw) + bytes(1024))
    with pytest.raises(CsrError, match=r"s\.tar is no whole tar file"):
        open_images(tmp_path / "s.tar")


def test_shards_without_images_and_keys_that_come_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match=r"a\.tar holds no images"):
        open_images(shard(tmp_path / "a.tar", {"1.txt": "a"}))
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for name in ("1.png", "2.png", "1.png"):
            add(tar, name, png())
    with pytest.raises(CsrError, match="has the id '1' twice, in rows 0 and 2"):
        open_images(tmp_path / "b.tar")
