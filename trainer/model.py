"""The tied autoencoder, computed over active latents alone."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csr_qdrant.encoder import Encoder
from csr_qdrant.encoding_torch import strongest


class Active(NamedTuple):
    """The strongest latents of each row, strongest first."""

    latents: Tensor  # (B, k) int64
    values: Tensor  # (B, k), after ReLU

    def first(self, k: int) -> "Active":
        """Return the k strongest of them."""
        return Active(self.latents[:, :k], self.values[:, :k])

    def normalised(self) -> "Active":
        """Return the codes at L2 norm 1; gradients reach the values."""
        return Active(self.latents, F.normalize(self.values, dim=1, eps=1e-8))


class Autoencoder(nn.Module):
    """`a = W (x − b_pre) + b_lat`, `x̂ = Wᵀ z + b_pre`; W is shared (arXiv 2503.01776, section 3).

    W starts as `nn.Linear`'s default and both biases at zero, as in the papers' code.
    """

    def __init__(self, d: int, h: int, generator: torch.Generator | None = None) -> None:
        """Make an untrained model for (B, d) inputs and `h` latents."""
        super().__init__()
        bound = d**-0.5
        self.weight = nn.Parameter(torch.empty(h, d).uniform_(-bound, bound, generator=generator))
        self.latent_bias = nn.Parameter(torch.zeros(h))
        self.pre_bias = nn.Parameter(torch.zeros(d))

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return `a`, (B, h).

        `W b_pre` is taken out of the batch product, so that the gradient of b_pre costs a
        matrix-vector product rather than a second one of the batch's size.
        """
        return F.linear(x, self.weight, self.latent_bias - self.weight @ self.pre_bias)

    def active(self, a: Tensor, k: int) -> Active:
        """Return the k strongest latents of `a`, (B, h), after ReLU; gradients reach `a`."""
        with torch.no_grad():
            values, latents = strongest(a, k)
            order = values.argsort(dim=1, descending=True)
            latents = latents.gather(1, order)
        return Active(latents, a.gather(1, latents).relu())

    def decode(self, active: Active) -> Tensor:
        """Return `Wᵀ z + b_pre`, (B, d).

        Through dense codes: the gradient of a gather of k rows of W is a scatter with sorting,
        which costs more than the product that it saves.
        """
        return densify(active, len(self.latent_bias)) @ self.weight + self.pre_bias

    def to_encoder(self, scale: float = 1.0, **fields: Any) -> Encoder:
        """Return the encoder of unscaled vectors, given a model of vectors divided by `scale`.

        a(x / c) · c = W (x − c·b_pre) + c·b_lat: the same latents, values c times as large, and
        the tied decoder still reconstructs.
        """

        def array(tensor: Tensor) -> Any:
            return tensor.detach().float().cpu().numpy().copy()

        return Encoder(
            weight=array(self.weight),
            latent_bias=array(self.latent_bias * scale),
            pre_bias=array(self.pre_bias * scale),
            **fields,
        )


def densify(active: Active, h: int) -> Tensor:
    """Return codes as (B, h) with zeros; gradients reach the values."""
    zeros = active.values.new_zeros(len(active.values), h)
    return zeros.scatter(1, active.latents, active.values)
