"""Encoding on torch: all cores of a CPU, CUDA or Apple's GPU."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from csr_qdrant.encoder import groups
from csr_qdrant.errors import ConfigError

if TYPE_CHECKING:
    from csr_qdrant.encoder import F32, Encoder, TopK


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


def strongest(activations: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return values and indices of the k largest entries of each row, unsorted, both (n, k).

    On a CPU the rows are folded first (see `csr_qdrant.encoder.groups`), which halves the time of
    torch's own topk; GPUs select by radix and gain nothing.
    """
    n, h = activations.shape
    g = groups(h, k) if activations.device.type == "cpu" else 1
    if g == 1:
        return torch.topk(activations, k, dim=1, sorted=False)
    width = h // g
    columns = activations.view(n, g, width).amax(1).topk(k, dim=1, sorted=False).indices  # (n, k)
    strips = torch.arange(g).view(1, g, 1) * width
    candidates = (columns.unsqueeze(1) + strips).view(n, g * k)
    values, chosen = activations.gather(1, candidates).topk(k, dim=1, sorted=False)
    return values, candidates.gather(1, chosen)


def torch_kernel(
    encoder: "Encoder", k: int, device_name: str | None
) -> "tuple[Callable[[F32], TopK], bool]":
    """Return a function from (n, d) to the k largest pre-activations, and whether on a CPU."""
    device = checked_device(device_name)
    transposed = torch.from_numpy(encoder.weight).to(device).T
    offset = torch.from_numpy(encoder.offset).to(device)

    @torch.inference_mode()
    def topk(rows: "F32") -> "TopK":
        # A read-only memory map makes torch warn of writes that never come; a view of the same
        # memory through a writable flag is not to be had, so it is copied into torch's own.
        block = torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(device)
        values, latents = strongest(torch.addmm(offset, block, transposed), k)
        return latents.cpu().numpy(), values.cpu().numpy()

    return topk, device.type == "cpu"
