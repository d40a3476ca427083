"""Processes that share each batch: what a step must sum or gather over them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


class Group(Protocol):
    """The processes of a run; each holds some rows of a batch, in the order of their ranks."""

    rank: int
    size: int

    def sum(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes."""

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes, (B, …), in the order of their ranks."""

    def share(self, rows: int) -> slice:
        """Return which of a batch's rows are this process's."""

    def first(self, value: T) -> T:
        """Return the first process's value."""


def current_group() -> Group:
    """Return the group that `torch.distributed` holds, or this process alone."""
    if distributed.is_available() and distributed.is_initialized():
        return Ranks()
    return Alone()


@contextmanager
def joined(device: str | None) -> Iterator[tuple[Group, str]]:
    """Join the processes that `torchrun` started for the length of a block.

    Yields the group and the device of this process: a GPU of its own, or the CPU.
    """
    on_gpu = torch.cuda.is_available() and device in (None, "cuda")
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    # The first process may embed a corpus while the others wait.
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=timedelta(days=7))
    try:
        yield Ranks(), f"cuda:{torch.cuda.current_device()}" if on_gpu else "cpu"
    finally:
        distributed.destroy_process_group()


@contextmanager
def in_turn(group: Group) -> Iterator[None]:
    """Let the first process go through a block before all others."""
    if group.rank > 0:
        group.first(None)
    yield
    if group.rank == 0:
        group.first(None)


class Alone:
    """One process."""

    rank, size = 0, 1

    def sum(self, *tensors: Tensor) -> None:
        """Leave the tensors as they are."""

    def gather(self, rows: Tensor) -> Tensor:
        """Return `rows`."""
        return rows

    def share(self, rows: int) -> slice:
        """Return all rows."""
        return slice(0, rows)

    def first(self, value: T) -> T:
        """Return `value`."""
        return value


class Ranks:
    """The default process group of `torch.distributed`, as `torchrun` starts it."""

    def __init__(self) -> None:
        """Join the group, which must have been initialised."""
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def sum(self, *tensors: Tensor) -> None:
        """Replace each tensor by its sum over all processes, in one exchange."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        sizes = [tensor.numel() for tensor in tensors]
        for tensor, part in zip(tensors, torch.split(flat, sizes), strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, rows: Tensor) -> Tensor:
        """Return the rows of all processes; their counts may differ."""
        counts = rows.new_zeros(self.size, dtype=torch.int64)
        counts[self.rank] = len(rows)
        distributed.all_reduce(counts)
        padded = rows.new_zeros(int(counts.max()), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts.tolist(), strict=True)])

    def share(self, rows: int) -> slice:
        """Return which of a batch's rows are this process's."""
        return slice(rows * self.rank // self.size, rows * (self.rank + 1) // self.size)

    def first(self, value: T) -> T:
        """Return the first process's value, anything that can be pickled."""
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]
