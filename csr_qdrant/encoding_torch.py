"""Encoding on torch: all cores of a CPU, CUDA or Apple's GPU."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from weakref import WeakKeyDictionary

import torch

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import F32, Encoder, Kernel
from csr_qdrant.encoding_bf16 import bf16_encode, worth_bf16
from csr_qdrant.encoding_numpy import strongest_codes
from csr_qdrant.errors import ConfigError
from csr_qdrant.torch_blocks import Room, tensor

# Pre-activations that are held at once: by a thread, by all threads together, on a GPU.
THREAD_BYTES, THREADS_BYTES, GPU_BYTES = 12 << 20, 128 << 20, 256 << 20
Weights = tuple[torch.Tensor, torch.Tensor]
_COPIES: WeakKeyDictionary[Encoder, dict[torch.device, Weights]] = WeakKeyDictionary()


def best_device() -> torch.device:
    """Return cuda if there is one, else mps, else cpu."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def checked_device(name: str | None) -> torch.device:
    """Return the device called `name` (None: the best one); ConfigError if it is not there."""
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used ({reason}): choose numpy, cpu, cuda or mps"
        ) from None
    return device


def torch_kernel(encoder: Encoder, k: int, device_name: str | None) -> Kernel:
    """Return how to encode on the device of that name, None: the best one."""
    device = checked_device(device_name)
    return _cpu_kernel(encoder, k) if device.type == "cpu" else _gpu_kernel(encoder, k, device)


def _gpu_kernel(encoder: Encoder, k: int, device: torch.device) -> Kernel:
    transposed, offset = _weights(encoder, device)

    @torch.inference_mode()
    def encode(rows: F32) -> SparseCodes:
        activations = torch.addmm(offset, tensor(rows).to(device), transposed)
        values, latents = activations.topk(k, dim=1, sorted=False)
        return SparseCodes.from_topk(latents.cpu().numpy(), values.cpu().numpy(), encoder.h)

    return Kernel(encode, GPU_BYTES)


def _cpu_kernel(encoder: Encoder, k: int) -> Kernel:
    """The strongest are chosen in numpy, several times faster than by torch's topk."""
    transposed = tensor(encoder.weight).T
    room = Room(encoder.h, torch.float32)

    @torch.inference_mode()
    def encode(rows: F32) -> SparseCodes:
        products = torch.mm(tensor(rows), transposed, out=room.of(len(rows)))
        return strongest_codes(products.numpy(), encoder.offset, k, torch.get_num_threads())

    encode_block = bf16_encode(encoder, k, encode) if worth_bf16(encoder, k) else encode
    block_bytes = min(THREAD_BYTES, THREADS_BYTES // torch.get_num_threads())
    return Kernel(encode_block, block_bytes, _side_by_side)


def _side_by_side(encode: Callable[[int], SparseCodes], blocks: range) -> Iterator[SparseCodes]:
    """Yield the codes of each block, with as many blocks at a time as torch has threads.

    A product on all threads would end with most of them spinning for milliseconds, in wait of the
    next product, while numpy wants the cores.
    """
    threads = torch.get_num_threads()
    if threads < 2 or len(blocks) < 2 * threads:
        yield from map(encode, blocks)
        return
    # The setting holds for the thread that makes it, and for threads that begin while it stands.
    try:
        with ThreadPoolExecutor(threads, "encode", torch.set_num_threads, (1,)) as pool:
            yield from pool.map(encode, blocks)
    finally:
        torch.set_num_threads(threads)


def _weights(encoder: Encoder, device: torch.device) -> Weights:
    """Return W transposed and the offset on `device`; copied there once an encoder."""
    on_devices = _COPIES.setdefault(encoder, {})
    if device not in on_devices:
        weight, offset = tensor(encoder.weight), tensor(encoder.offset)
        on_devices[device] = weight.to(device).T, offset.to(device)
    return on_devices[device]
