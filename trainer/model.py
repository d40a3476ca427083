"""The tied autoencoder: its parameters. What a step does with them stands in `step`."""

from typing import Any

import torch
from torch import Tensor, nn

from csr_qdrant.encoder import Encoder


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

    @property
    def offset(self) -> Tensor:
        """`b_lat − W b_pre`, (h,), so that `a = W x + offset`."""
        return self.latent_bias - self.weight @ self.pre_bias

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
