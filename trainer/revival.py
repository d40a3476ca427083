"""Latents that begin, or begin anew, as rows of the data.

A latent that points at a row is active on it at once, so none is dead from the start, and one that
dies gets other work instead of being coaxed back.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.trainer.config import TrainConfig
from csr_qdrant.trainer.model import Autoencoder

EVEN_SHARE = 64  # activations that a latent used evenly would have had before it is given up
LEAST_SHARE = 8  # rows of a batch on which a latent that starts anew is active
TINY = 1e-12


@torch.no_grad()
def start_at_rows(model: Autoencoder, rows: Tensor, sample: Tensor, k: int) -> None:
    """Let each of the first latents point at one of `rows` (m, d), as seen from b_pre.

    The rest keep their random directions. All get one length c, for which x̂ = b_pre + c² Σ ⟨u_l,
    x − b_pre⟩ u_l over the k nearest directions u_l fits `sample` (n, d) best.
    """
    rest = model.weight[len(rows) :]
    unit = F.normalize(torch.cat([rows - model.pre_bias, rest]), dim=1)
    x = sample - model.pre_bias
    strongest = (x @ unit.T).topk(min(k, len(unit)), dim=1)
    z = x.new_zeros(len(x), len(unit)).scatter(1, strongest.indices, strongest.values.relu())
    made = z @ unit
    square = (x * made).sum() / made.square().sum().clamp(min=TINY)
    model.weight.copy_(unit * square.clamp(min=TINY).sqrt())


def idle_steps(config: TrainConfig, h: int) -> int:
    """Return after how many steps without activity a latent is given up.

    By then a latent used evenly would have been active `EVEN_SHARE` times.
    """
    rows = EVEN_SHARE * h / max(config.k)
    return max(config.idle_limit(pairs=False), math.ceil(rows / config.rows_a_step(pairs=False)))


@torch.no_grad()
def start_anew(
    model: Autoencoder,
    optimiser: torch.optim.Optimizer,
    latents: Tensor,
    rows: Tensor,
    batch: Tensor,
    k: int,
) -> None:
    """Let `latents` (m,) point at `rows` (m, d), at the mean length of all, without a past.

    Its bias makes each active on an even share of `batch` (B, d), B k/h rows but eight at least:
    without one the new latents would be active on many, where codes have no use for them yet, and
    on fewer than eight they soon die again.
    """
    share = min(len(batch), max(LEAST_SHARE, round(len(batch) * k / len(model.weight))))
    needed = torch.addmm(model.offset, batch, model.weight.T).topk(k, dim=1).values[:, -1:]
    weight = F.normalize(rows - model.pre_bias, dim=1) * model.weight.norm(dim=1).mean()
    above = (batch - model.pre_bias) @ weight.T - needed.clamp(min=0)
    model.weight[latents] = weight
    model.latent_bias[latents] = -above.topk(share, dim=0).values[-1]
    for parameter in (model.weight, model.latent_bias):
        for moments in optimiser.state[parameter].values():
            if moments.shape == parameter.shape:  # all but Adam's count of steps
                moments[latents] = 0.0
