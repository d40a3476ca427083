"""Small files that would fill the memory: huge pictures, and what grows when it is read."""

import gzip
import json
import re
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csr_qdrant.images import UndecodableError, decoded

sys.path.insert(0, str(Path(__file__).parent))
from reader_seeds import picture
from readers import READERS

MIB = 2**20


# --- pictures ---------------------------------------------------------------------------------


def _png(size: bytes) -> bytes:
    header = b"IHDR" + size + picture()[24:29]
    return picture()[:12] + header + struct.pack(">I", zlib.crc32(header)) + picture()[33:]


def _jpeg(size: bytes) -> bytes:
    data = picture("JPEG")
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + size + data[place + 4 :]


def _tiff(size: int) -> bytes:
    data = picture("TIFF")
    for tag in (256, 257):
        found = re.search(re.escape(struct.pack("<H", tag)) + b"[\3\4]\0\1\0\0\0", data)
        assert found is not None
        start = found.end()
        data = data[:start] + struct.pack("<I", size) + data[start + 4 :]
    return data


BOMBS: dict[str, Callable[[], bytes]] = {
    "png": lambda: _png(struct.pack(">II", 50_000, 50_000)),
    "png of twice the limit": lambda: _png(struct.pack(">II", 10_000, 10_000)),
    "jpeg": lambda: _jpeg(struct.pack(">HH", 65_500, 65_500)),
    "bmp": lambda: picture("BMP")[:18] + struct.pack("<ii", 50_000, 50_000) + picture("BMP")[26:],
    "ppm": lambda: b"P6 50000 50000 255\n" + bytes(300),
    "tiff": lambda: _tiff(60_000),
    "webp": lambda: picture("WEBP")[:26] + struct.pack("<HH", 16383, 16383) + picture("WEBP")[30:],
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BOMBS)
def test_pictures_that_would_fill_the_memory_are_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(self: Image.Image) -> None:
        raise AssertionError("its pixels are read")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    with pytest.raises(UndecodableError, match=r"pixels, above 89,478,485|decompression bomb"):
        decoded(BOMBS[name]())


# --- files that grow when they are read -------------------------------------------------------


def _lines(path: Path, rows: int, begin: bytes, middle: bytes, end: bytes) -> Path:
    """Write rows of a beginning with the row's number, 8 MiB of `middle`, and an end, gzipped."""
    repeated = gzip.compress(middle * (8 * MIB // len(middle)), 1)  # members follow each other
    with path.open("wb") as file:
        for row in range(rows):
            start = begin % row if b"%d" in begin else begin
            file.write(gzip.compress(start) + repeated + gzip.compress(end))
    return path


RECORD = (b'{"id": %d, "vector": [1, 2], "text": "', b"x", b'"}\n')


def _bombs(folder: Path) -> Iterator[tuple[Path, str, str | None]]:
    """Write files; yield each, what lies beside it, and the refusal (None: it is read)."""
    zeros = folder / "zeros.npz"
    np.savez_compressed(zeros, vectors=np.zeros((2**16, 1024), np.float32))  # 256 MiB of zeros
    yield zeros, "-", None
    wide = folder / "wide.npz"
    np.savez_compressed(wide, vectors=np.zeros((1, 2**25), np.float32))
    yield wide, "-", "33,554,432 dimensions, Qdrant takes up to 65,536"
    yield _lines(folder / "line.jsonl.gz", 16, b"", b" ", b""), "-", "line 1 is longer than 16 MiB"
    rows = _lines(folder / "rows.jsonl.gz", 40, *RECORD)
    yield rows, "-", "more than 256 MiB of texts and payload in 4096 rows"
    nested = _lines(folder / "nested.jsonl.gz", 1, b'{"id": 1, "vector": [1], "a": [', b"{},", b"")
    yield nested, "-", "line 1 is not valid JSON"
    more = _lines(folder / "more.jsonl.gz", 1, b"", b"[[],", b"")
    yield more, "-", "line 1 holds too many lists and objects"
    for name, middle in (("quote", b"x\n"), ("cells", b'","\n')):
        quoted = _lines(folder / f"{name}.csv.gz", 16, b"", middle, b"")
        quoted.write_bytes(gzip.compress(b'id,text\n"') + quoted.read_bytes())
        yield quoted, "-", "a row that is longer than 16 MiB: is a quote never closed"
    np.save(folder / "x.npy", np.ones((40, 2), np.float32))
    ids = _lines(folder / "ids.txt.gz", 40, b"%d", b"x", b"\n")
    yield folder / "x.npy", f"ids:{ids}", "ids have up to 16,384 characters"
    yield folder / "x.npy", f"payload:{rows}", "more than 256 MiB of texts and payload"
    yield _tar(folder / "pax.tar"), "-", "a header claims 419,430,400 bytes"
    encoder = folder / "encoder"
    READERS["encoder config"].write(folder)
    with (encoder / "csr.json").open("wb") as file:
        file.truncate(400 * MIB)
    yield encoder, "-", "it is larger than 16 MiB"


def _tar(path: Path) -> Path:
    info = tarfile.TarInfo("x.jpg")
    info.type, info.size = tarfile.XHDTYPE, 400 * MIB
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT))
    with path.open("r+b") as file:
        file.truncate(500 * MIB)  # a hole: it takes no room on the disk
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_files_that_grow_when_they_are_read_are_refused_or_read_in_little_memory(
    tmp_path: Path,
) -> None:
    bombs = list(_bombs(tmp_path))
    arguments = [text for path, beside, _ in bombs for text in (str(path), beside)]
    worker = str(Path(__file__).with_name("bomb_worker.py"))
    ran = subprocess.run([sys.executable, worker, *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    for (path, beside, expected), told in zip(bombs, json.loads(ran.stdout), strict=True):
        where = f"{path.name} {beside} {told}"
        assert (told["said"] is None) if expected is None else (expected in told["said"]), where
        limit = 600 if path.name == "nested.jsonl.gz" else 160  # millions of values are parsed
        assert told["bytes"] < limit * MIB, where
