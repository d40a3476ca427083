"""Pictures, decoded without trusting the file."""

import io
import stat
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from csr_qdrant.errors import CsrError, MissingExtraError

if TYPE_CHECKING:
    from PIL.Image import Image

ImageData = Path | bytes  # a file, or the content of one
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
MAX_BYTES = 256 * 2**20  # of one encoded picture
MAX_ASPECT = 200  # long side to short side: a transform scales the short side up

# Decoders that Pillow may choose; others, such as that of EPS, run programs.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")


class UndecodableError(CsrError):
    """A file that holds no picture that can be used; its text is the reason alone."""


def is_image_name(name: str) -> bool:
    """Tell whether a file of this name should hold a picture."""
    return name.lower().endswith(SUFFIXES)


def decoded(data: "ImageData | Image") -> "Image":
    """Return a picture in RGB, as `ImageFolder` of torchvision loads it (no EXIF rotation).

    A picture that is open already is converted only. Safe to call from several threads.

    Raises UndecodableError for what is no picture, is damaged, has more pixels than Pillow's
    `MAX_IMAGE_PIXELS`, more than `MAX_BYTES` bytes, or is `MAX_ASPECT` times as long as it is wide.
    """
    return _decoder()(data)


@cache
def _decoder() -> "Callable[[ImageData | Image], Image]":
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingExtraError("pillow", "image") from error

    def decode(data: "ImageData | Image.Image") -> "Image.Image":
        if isinstance(data, Image.Image):
            return data.convert("RGB")
        try:
            _check_file(data)
            file = io.BytesIO(data) if isinstance(data, bytes) else data
            with Image.open(file, formats=_FORMATS) as image:
                _check_size(*image.size, Image.MAX_IMAGE_PIXELS)
                return image.convert("RGB")
        except UndecodableError:
            raise
        except Exception as error:  # damaged files raise nearly anything: SyntaxError, struct.error
            raise UndecodableError(_reason(error)) from None

    return decode


def _check_file(data: ImageData) -> None:
    if isinstance(data, bytes):
        size, regular = len(data), True
    else:
        state = data.stat()
        size, regular = state.st_size, stat.S_ISREG(state.st_mode)
    if not regular:
        raise UndecodableError("no regular file")  # opening a pipe would wait for ever
    if size > MAX_BYTES:
        raise UndecodableError(f"{size:,} bytes, above {MAX_BYTES:,}")


def _check_size(width: int, height: int, most: int | None) -> None:
    """Raise UndecodableError for sizes that would fill the memory; the pixels are not read yet."""
    if most is not None and width * height > most:
        raise UndecodableError(f"{width} × {height} pixels, above {most:,}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UndecodableError(f"{width} × {height} pixels, longer than 1:{MAX_ASPECT}")


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "no picture of a known format"  # its own text holds the address of the bytes
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
