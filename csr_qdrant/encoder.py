"""Encoder: dense vectors in, sparse codes out."""

import hashlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from csr_qdrant.codes import SparseCodes
from csr_qdrant.errors import ConfigError, CsrError, RowError

F32 = npt.NDArray[np.float32]

# Below this many rows numpy answers before torch has been imported.
ROWS_WORTH_TORCH = 4096
# Pre-activations (rows × h float32) that are held at once: many, since smaller blocks start and
# join threads more often; but from 32 MB on, glibc maps fresh pages for every call.
BLOCK_BYTES = 30 << 20


class Kernel(NamedTuple):
    """How vectors become codes on some device."""

    encode: Callable[[F32], SparseCodes]  # one block, (n, d)
    block_bytes: int = BLOCK_BYTES
    over: Callable[[Callable[[int], SparseCodes], range], Iterable[SparseCodes]] = map  # all blocks


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoder:
    """A trained CSR encoder: `ReLU(TopK(W (x − b_pre) + b_lat))` (arXiv 2503.01776, section 3).

    `weight` is tied: the decoder is its transpose. An encoder never changes; `replace` of its
    fields makes another one.
    """

    weight: F32  # W, (h, d)
    latent_bias: F32  # b_lat, (h,)
    pre_bias: F32  # b_pre, (d,)
    k: int  # active latents unless `encode` is told otherwise
    layer_norm: bool = False  # standardise each input row first; off in all published settings
    k_aux: int = 512  # this and the next two: training settings that the file format carries
    dead_threshold: int = 30
    steps_since_active: npt.NDArray[np.int64] | None = None  # (h,)
    info: dict[str, Any] = field(default_factory=dict)  # what `csr.json` holds: origin and metrics

    def __post_init__(self) -> None:
        """Check shapes, types, finiteness and k."""
        steps = self.steps_since_active
        shapes = (self.weight.shape, self.latent_bias.shape, self.pre_bias.shape)
        if self.weight.ndim != 2 or 0 in shapes[0] or shapes[1:] != tuple((n,) for n in shapes[0]):
            raise CsrError(
                f"an encoder needs weights (h, d) and biases (h,) and (d,), got shapes "
                f"{', '.join(map(str, shapes))}"
            )
        if steps is not None and steps.shape != (self.h,):
            raise CsrError(f"steps_since_active must have shape ({self.h},), got {steps.shape}")
        check_k(self.k, self.h)
        for name in ("weight", "latent_bias", "pre_bias"):
            array = getattr(self, name)
            if array.dtype != np.float32:
                raise CsrError(f"the encoder's {name} must be float32, got {array.dtype}")
            if not np.isfinite(array).all():
                raise CsrError(f"the encoder's {name} holds NaN or infinity: train it anew")

    @property
    def d(self) -> int:
        """Dimensions of the dense vectors."""
        return int(self.weight.shape[1])

    @property
    def h(self) -> int:
        """Number of latents."""
        return int(self.weight.shape[0])

    @property
    def embedder(self) -> str | None:
        """URI of the embedder whose vectors this encoder was trained on, if that is known."""
        uri = self.info.get("embedder")
        return str(uri) if uri else None

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that name the function computed; k, which may vary, is left out."""
        digest = hashlib.sha256(f"{self.h} {self.d} {self.layer_norm}".encode())
        for array in (self.weight, self.latent_bias, self.pre_bias):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()[:16]

    @cached_property
    def offset(self) -> F32:
        """`b_lat − W b_pre`, (h,): with it, encoding is one affine map `x Wᵀ + offset`."""
        product = self.weight.astype(np.float64) @ self.pre_bias.astype(np.float64)
        return (self.latent_bias - product).astype(np.float32)

    # --- encoding -------------------------------------------------------------------------

    def encode(
        self,
        dense: npt.ArrayLike,
        k: int | None = None,
        *,
        batch_size: int | None = None,
        device: str | None = None,
        first_row: int = 0,
        name: str = "the dense vectors",
    ) -> SparseCodes:
        """Return the raw (not normalised) codes of dense vectors.

        Args:
            dense: (n, d), any float type; may be a memory map larger than RAM.
            k: active latents at most; None: the encoder's own.
            batch_size: rows of a block; None: as many as suit the device. On a CPU with torch,
                each thread encodes blocks of its own.
            device: `numpy`, `cpu`, `cuda`, `cuda:1`, `mps`, …; all but the first need torch.
                None: torch's best device if torch is loaded already or the batch is worth
                loading it, otherwise numpy.
            first_row: number of the first row, for messages.
            name: what to call the vectors in messages.

        Returns:
            (n, h) codes of at most k active latents a row; rows may be empty.

        Raises:
            CsrError: wrong shape, or vectors whose products overflow.
            RowError: NaN or infinity in `dense`.
            ConfigError: k outside 1..h, an unknown device.
        """
        rows = checked_rows(dense, self.d, "encoder")
        k = check_k(self.k if k is None else k, self.h)
        kernel = self._kernel(k, device, len(rows))
        size = max(64, kernel.block_bytes // (4 * self.h)) if batch_size is None else batch_size
        if size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {size}")

        def encode_from(start: int) -> SparseCodes:
            block = _float32(rows[start : start + size])
            try:
                return kernel.encode(standardised(block) if self.layer_norm else block)
            except CsrError:
                # NaN or infinity reaches all pre-activations of its row, so looking at those that
                # are kept found it, at a small part of the cost of looking at the vectors.
                _check_finite(block, first_row + start, name)
                raise

        starts = range(0, max(1, len(rows)), size)
        return SparseCodes.concatenate(list(kernel.over(encode_from, starts)))

    def _kernel(self, k: int, device: str | None, n: int) -> Kernel:
        if device is None and "torch" not in sys.modules and n < ROWS_WORTH_TORCH:
            device = "numpy"
        if device != "numpy":
            try:
                from csr_qdrant.encoding_torch import torch_kernel
            except ImportError:
                if device is not None:
                    raise ConfigError(
                        f"device {device!r} needs torch: run `pip install 'csr-qdrant[train]'` "
                        f"or use device='numpy'"
                    ) from None
            else:
                return torch_kernel(self, k, device)
        from csr_qdrant.encoding_numpy import numpy_kernel

        return Kernel(numpy_kernel(self, k))

    def decode(self, codes: SparseCodes) -> F32:
        """Return the reconstructions `Wᵀ z + b_pre`, (n, d), of raw codes.

        With `layer_norm` they are those of the standardised vectors, for codes do not keep a
        vector's mean and scale. Raises CsrError if the codes have another h.
        """
        if codes.h != self.h:
            raise CsrError(f"this encoder has {self.h} latents, got codes over {codes.h}")
        dense = np.tile(self.pre_bias, (len(codes), 1))
        for row, (latents, values) in zip(dense, codes.rows(), strict=True):
            row += values @ self.weight[latents]
        return dense

    # --- on disk --------------------------------------------------------------------------

    @classmethod
    def load(cls, folder: str | Path) -> "Encoder":
        """Read an encoder folder, ours or sentence-transformers'; raises CsrError for others.

        `hf:OWNER/NAME[@REVISION]` is one on the Hugging Face Hub.
        """
        if (name := Path(folder).as_posix()).startswith("hf:"):
            from csr_qdrant.integrations.hub import from_hub

            return from_hub(name)
        from csr_qdrant.interchange import load_encoder

        return load_encoder(Path(folder))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write an encoder folder, whole or not at all; see `csr_qdrant.interchange`."""
        from csr_qdrant.interchange import save_encoder

        save_encoder(self, Path(folder), overwrite=overwrite)

    def with_k(self, k: int) -> "Encoder":
        """Return the same encoder with another default k."""
        return replace(self, k=k)


def checked_rows(vectors: npt.ArrayLike, d: int, taker: str) -> npt.NDArray[Any]:
    """Return vectors as an array; raise CsrError unless they are numbers of shape (n, d).

    `taker` says what takes them: an encoder or an adapter.
    """
    try:
        rows = np.asarray(vectors)
    except ValueError as error:  # lists of unequal lengths
        raise CsrError(f"dense vectors must be an array of numbers: {error}") from None
    if rows.ndim != 2 or rows.shape[1] != d:
        raise CsrError(
            f"this {taker} takes vectors of shape (n, {d}), got {rows.shape}: use the embedding "
            "model that it was trained on"
        )
    if rows.dtype.kind not in "fiu":
        raise CsrError(f"dense vectors must be numbers, got {rows.dtype}: convert them first")
    return rows


def check_k(k: int, h: int) -> int:
    """Return `k`; raise ConfigError unless it is in 1..h."""
    if not 1 <= k <= h:
        raise ConfigError(f"k must be in 1..{h} (the number of latents), got {k}")
    return k


def _float32(rows: npt.NDArray[Any]) -> F32:
    """Return rows as contiguous float32; what is too large becomes infinity."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(rows, np.float32)


def _check_finite(block: F32, first_row: int, name: str) -> None:
    bad_rows = np.flatnonzero(~np.isfinite(block).all(axis=1))
    if len(bad_rows):
        bad = first_row + int(bad_rows[0])
        raise RowError(
            bad,
            f"row {bad} of {name} holds NaN, infinity or values too large for float32: "
            f"mend or remove it",
        )


def unit_rows(rows: F32) -> F32:
    """Return rows, (n, d), at norm 1; NaN and infinity become NaN.

    Rows of zeros stay, and all whose squared norm is below the epsilon of float32: so they do in a
    collection that compares by cosine (`cosine_preprocess` of Qdrant).
    """
    # In float64, since squares may leave the range of float32.
    squares = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)[:, None]
    divided = ~(squares < np.finfo(np.float32).eps)
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, and `encode` reports it
        np.divide(rows, np.sqrt(squares), out=(made := rows.copy()), where=divided)
    return made


def standardised(rows: F32) -> F32:
    """Return rows with mean 0 and unbiased standard deviation 1, as the papers' LayerNorm does."""
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, and `encode` reports it
        # In float64, since squares may leave the range of float32.
        centred = rows - rows.mean(axis=1, keepdims=True, dtype=np.float64)
        deviations = centred.std(axis=1, ddof=1, keepdims=True)
        return np.asarray(centred / (deviations + 1e-5), np.float32)
