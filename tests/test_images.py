"""Decoding pictures: what `ImageFolder` loads, and what is refused."""

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csr_qdrant import images
from csr_qdrant.images import UndecodableError, decoded


def picture(width: int = 12, height: int = 8, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def content(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("as_file", [False, True])
def test_pictures_decode_as_pillow_decodes_them(kind: str, as_file: bool, tmp_path: Path) -> None:
    data = content(picture(), kind)
    path = tmp_path / "picture"  # the content decides, as for the PNG of ImageNet called .JPEG
    path.write_bytes(data)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(np.asarray(decoded(path if as_file else data)), expected)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_all_modes_become_rgb(mode: str) -> None:
    image = decoded(content(picture(mode=mode)))
    assert (image.mode, image.size) == ("RGB", (12, 8))
    assert decoded(picture(mode=mode)).mode == "RGB"


def test_damaged_pictures_are_refused(tmp_path: Path) -> None:
    png, jpeg = content(picture()), content(picture(99, 99), "JPEG")
    damaged = {
        "empty": b"",
        "text": b"no picture at all",
        "cut png": png[: len(png) // 2],
        "cut jpeg": jpeg[:-200],
        "header alone": png[:8],
    }
    for name, data in damaged.items():
        with pytest.raises(UndecodableError) as caught:
            decoded(data)
        assert str(caught.value) and "\n" not in str(caught.value), name
        assert "0x" not in str(caught.value), name
    with pytest.raises(UndecodableError, match="No such file"):
        decoded(tmp_path / "missing.jpg")


def test_every_damage_to_a_byte_is_a_picture_or_refused() -> None:
    data = bytearray(content(picture()))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        try:
            assert decoded(bytes(changed)).mode == "RGB"
        except UndecodableError as error:
            assert str(error)


def test_formats_that_run_programs_are_refused() -> None:
    assert Image.open(io.BytesIO(content(picture(), "EPS"))).format == "EPS"
    with pytest.raises(UndecodableError, match="no picture of a known format"):
        decoded(content(picture(), "EPS"))


def test_bombs_are_refused_before_their_pixels_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = content(Image.new("1", (400, 300)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(UndecodableError, match=r"400 × 300 pixels, above 100,000"):
            decoded(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # Pillow itself refuses twice as many
    with pytest.raises(UndecodableError, match="decompression bomb"):
        decoded(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert decoded(data).size == (400, 300)


def test_lines_and_files_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UndecodableError, match=r"601 × 3 pixels, longer than 1:200"):
        decoded(content(picture(601, 3)))
    assert decoded(content(picture(600, 3))).size == (600, 3)
    path = tmp_path / "p.png"
    path.write_bytes(content(picture()))
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    for data in (path, path.read_bytes()):
        with pytest.raises(UndecodableError, match="bytes, above 10"):
            decoded(data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.png")
    with pytest.raises(UndecodableError, match="no regular file"):
        decoded(tmp_path / "p.png")
