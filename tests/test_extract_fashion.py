"""Fashion-MNIST as vectors: its files are read, and extraction goes on after an interruption."""

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csr_qdrant.benchmarks import extract_fashion
from csr_qdrant.errors import CsrError


def _idx(array: Any) -> bytes:
    sizes = np.array(array.shape, ">u4").tobytes()
    return b"".join([bytes([0, 0, 8, array.ndim]), sizes, array.tobytes()])


def test_idx_files_are_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 4), np.uint8)
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(_idx(images)))
    assert np.array_equal(extract_fashion.read_idx(path), images)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"no gzip at all", "cannot be read"),
        (gzip.compress(b"\0\0\x0d\1" + bytes(8), mtime=0), "is no IDX file of bytes"),
        (gzip.compress(_idx(np.zeros((4, 4), np.uint8))[:-1], mtime=0), "fewer or more bytes"),
        (gzip.compress(_idx(np.zeros((4, 4), np.uint8)), mtime=0)[:-9], "cannot be read"),
    ],
)
def test_other_files_are_refused(content: bytes, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(content)
    with pytest.raises(CsrError, match=f"{fault}.*download it anew"):
        extract_fashion.read_idx(path)


def test_images_are_found_below_a_folder(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match=r"holds no train-images.*apt-get download"):
        extract_fashion.find_images(tmp_path)
    deep = tmp_path / "usr" / "share"
    deep.mkdir(parents=True)
    (deep / "train-images-idx3-ubyte.gz").touch()
    assert extract_fashion.find_images(tmp_path) == deep


def test_extraction_goes_on_where_it_stopped(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5000, 2, 2), np.uint8)
    path, seen = tmp_path / "gallery.npy", 0

    def features(batch: extract_fashion.Images) -> Any:
        nonlocal seen
        seen += len(batch)
        if stop_at is not None and seen > stop_at:
            raise KeyboardInterrupt
        return batch.reshape(len(batch), 4).astype(np.float32)

    stop_at: int | None = 3000
    with pytest.raises(KeyboardInterrupt):
        extract_fashion.extract(images, features, path, dimension=4, batch_size=100)
    assert not path.exists()
    stop_at, seen = None, 0
    extract_fashion.extract(images, features, path, dimension=4, batch_size=100)
    assert seen == 5000 - 2100  # the first record after 2,048 rows
    assert np.array_equal(np.load(path), images.reshape(5000, 4))
    assert [file.name for file in tmp_path.iterdir()] == ["gallery.npy"]
    extract_fashion.extract(images, features, path, dimension=4)
    assert seen == 5000 - 2100  # nothing is done twice


def test_a_part_of_something_else_is_not_taken_up(tmp_path: Path) -> None:
    path = tmp_path / "gallery.npy"
    np.save(tmp_path / "other.npy", np.zeros((7, 4), np.float32))
    (tmp_path / "other.npy").rename(tmp_path / "gallery.npy.partial")
    (tmp_path / "gallery.npy.json").write_text('{"rows": 5}')
    images = np.full((6, 2, 2), 9, np.uint8)
    extract_fashion.extract(
        images, lambda batch: np.ones((len(batch), 4), np.float32), path, dimension=4
    )
    assert np.array_equal(np.load(path), np.ones((6, 4)))


def test_images_are_scaled_for_the_network() -> None:
    pixels = np.stack([np.full((28, 28), value, np.uint8) for value in (0, 127, 255)])
    prepared = extract_fashion.prepared(pixels, 64)
    assert prepared.shape == (3, 3, 64, 64)
    expected = np.array([-127 / 128, 0, 1])[:, None, None, None]
    assert prepared.numpy() == pytest.approx(np.broadcast_to(expected, (3, 3, 64, 64)), abs=1e-6)
