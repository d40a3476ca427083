"""Linear adapters: dense vectors in, Matryoshka vectors out, of which any first m values are one.

They are what sparse codes are compared with (Matryoshka representation learning, arXiv 2205.13147,
on frozen vectors). An adapter's folder holds two files:

linear.safetensors   matrix (d, d) and, where vectors are centred first, mean (d,); float32
linear.json          kind, format_version, d, dims, info, fingerprint
"""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from csr_qdrant.atomic import replaced_folder
from csr_qdrant.encoder import checked_rows
from csr_qdrant.errors import ConfigError, CsrError, RowError
from csr_qdrant.json_files import read_json

F32 = npt.NDArray[np.float32]

DESCRIPTION, WEIGHTS = "linear.json", "linear.safetensors"
KIND, FORMAT_VERSION = "linear adapter", 1
WRITER = "csr train --method mrl"
# What reading raises where a file holds anything else; AttributeError: of types that numpy lacks.
_DAMAGED = (
    CsrError,
    OSError,
    SafetensorError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
)
BLOCK_BYTES = 16 << 20  # of rows as float32 that are held at once, beside the result


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearAdapter:
    """A trained adapter: the first m values of `A (x − mean)`, at L2 norm 1. It never changes."""

    matrix: F32  # A, (d, d); its first m rows make the m-dimensional vectors
    dims: tuple[int, ...]  # the sizes that it was trained for, rising
    mean: F32 | None = None  # (d,)
    info: dict[str, Any] = field(default_factory=dict)  # origin, settings and measures

    def __post_init__(self) -> None:
        """Check shapes, types, finiteness and sizes."""
        shape = self.matrix.shape
        if len(shape) != 2 or shape[0] != shape[1] or not shape[0]:
            raise CsrError(f"a linear adapter needs a matrix of shape (d, d), got {shape}")
        if self.mean is not None and self.mean.shape != shape[:1]:
            raise CsrError(f"its mean must have shape ({self.d},), got {self.mean.shape}")
        for name, array in self._arrays().items():
            if array.dtype != np.float32:
                raise CsrError(f"the adapter's {name} must be float32, got {array.dtype}")
            if not np.isfinite(array).all():
                raise CsrError(f"the adapter's {name} holds NaN or infinity: train it anew")
        check_dims(self.dims, self.d)

    @property
    def d(self) -> int:
        """Dimensions of the vectors that it takes."""
        return len(self.matrix)

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name the function computed."""
        digest = hashlib.sha256(f"linear {self.d}".encode())
        for array in self._arrays().values():
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    def apply(
        self,
        vectors: npt.ArrayLike,
        dims: int | None = None,
        *,
        first_row: int = 0,
        name: str = "the vectors",
    ) -> F32:
        """Return the adapted vectors at L2 norm 1, (n, dims) float32.

        Args:
            vectors: (n, d), any type of numbers; a memory map may be larger than RAM.
            dims: size of the results, any in 1..d; None: the largest that was trained.
            first_row: number of the first row, for messages.
            name: what to call the vectors in messages.

        Returns:
            A row for each vector; one that the adapter maps to nothing is all zeros.

        Raises:
            CsrError: wrong shape, or no numbers.
            RowError: NaN, infinity or values too large for float32.
            ConfigError: dims outside 1..d.
        """
        rows = checked_rows(vectors, self.d, "adapter")
        size = self.dims[-1] if dims is None else dims
        check_dims((size,), self.d)
        adapted = np.empty((len(rows), size), np.float32)
        step = max(64, BLOCK_BYTES // (4 * self.d))
        for start in range(0, len(rows), step):
            values = self._mapped(rows[start : start + step], size)
            # Squares of float32 may leave its range at both ends.
            norms = np.sqrt(np.einsum("ij,ij->i", values, values, dtype=np.float64))
            _refuse_infinite(norms, first_row + start, name)
            adapted[start : start + step] = values / np.where(norms > 0, norms, 1)[:, None]
        return adapted

    def _mapped(self, rows: npt.NDArray[Any], size: int) -> F32:
        with np.errstate(over="ignore", invalid="ignore"):  # the norms will show it
            block = np.asarray(rows, np.float32)
            if self.mean is not None:
                block = block - self.mean
            return np.asarray(block @ self.matrix[:size].T, np.float32)

    def _arrays(self) -> dict[str, F32]:
        return {"matrix": self.matrix} | ({} if self.mean is None else {"mean": self.mean})

    # --- on disk --------------------------------------------------------------------------

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write the adapter's folder, whole or not at all.

        Raises ConfigError if the folder exists and `overwrite` is not set.
        """
        described = {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "d": self.d,
            "dims": list(self.dims),
            "info": self.info,
            "fingerprint": self.fingerprint,
        }
        with replaced_folder(Path(folder), overwrite=overwrite) as temporary:
            arrays = {n: np.ascontiguousarray(array) for n, array in self._arrays().items()}
            save_file(arrays, temporary / WEIGHTS)
            text = json.dumps(described, indent=2, ensure_ascii=False) + "\n"
            (temporary / DESCRIPTION).write_text(text, "utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "LinearAdapter":
        """Read an adapter's folder; raises CsrError for one that is foreign, damaged or too new."""
        folder = Path(folder)
        _require_files(folder)
        described = _description(folder / DESCRIPTION)
        try:
            arrays = dict(load_file(folder / WEIGHTS))
            if set(arrays) not in ({"matrix"}, {"matrix", "mean"}):
                raise CsrError(f"{WEIGHTS} must hold matrix and perhaps mean, got {sorted(arrays)}")
            dims, info = tuple(described["dims"]), dict(described["info"])
            adapter = cls(**arrays, dims=dims, info=info)
        except _DAMAGED as error:
            raise CsrError(f"{folder} is damaged ({error}): copy it anew or train again") from error
        for key, value in (("d", adapter.d), ("fingerprint", adapter.fingerprint)):
            if described.get(key) != value:
                raise CsrError(
                    f"{folder} is damaged: {DESCRIPTION} says {key} {described.get(key)}, the "
                    f"weights say {value}; copy it anew or train again"
                )
        return adapter


def check_dims(dims: tuple[int, ...], d: int) -> None:
    """Raise ConfigError unless `dims` are one or more rising whole numbers in 1..d."""
    whole = all(isinstance(size, int | np.integer) for size in dims)
    rising = whole and all(a < b for a, b in pairwise(dims))
    if not dims or not rising or not 1 <= dims[0] <= dims[-1] <= d:
        got = ", ".join(map(str, dims)) or "none"
        raise ConfigError(f"dims must be rising numbers in 1..{d} (the vectors' size), got {got}")


def _refuse_infinite(norms: npt.NDArray[np.float64], first_row: int, name: str) -> None:
    bad_rows = np.flatnonzero(~np.isfinite(norms))
    if len(bad_rows):
        bad = first_row + int(bad_rows[0])
        raise RowError(
            bad,
            f"row {bad} of {name} holds NaN, infinity or values too large for float32: "
            f"mend or remove it",
        )


def _require_files(folder: Path) -> None:
    if not folder.is_dir():
        raise CsrError(f"there is no folder {folder}: give the folder that `{WRITER}` wrote")
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).is_file():
            raise CsrError(
                f"{folder} is not a linear adapter, it lacks {name}: give the folder that "
                f"`{WRITER}` wrote"
            )


def _description(path: Path) -> dict[str, Any]:
    try:
        described = read_json(path)
    except (OSError, ValueError) as error:
        raise CsrError(f"{path} is damaged ({error}): copy it anew or train again") from error
    if not isinstance(described, dict) or described.get("kind") != KIND:
        raise CsrError(f"{path} describes no linear adapter: give the folder that `{WRITER}` wrote")
    if (version := described.get("format_version")) != FORMAT_VERSION:
        raise CsrError(
            f"{path} has format version {version}, this release reads {FORMAT_VERSION}: "
            f"upgrade csr-qdrant"
        )
    return described
