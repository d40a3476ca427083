"""The objective written as the papers write it: the reference for speed and for the tests.

Three dense passes a step (k, 4k, and the contrastive view), codes of h numbers a row, a similarity
matrix of 2B × 2B, automatic differentiation throughout. Nothing here is shared with the trainer.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csr_qdrant.trainer.config import TrainConfig


class PlainAutoencoder(nn.Module):
    """A tied autoencoder with TopK (arXiv 2503.01776, section 3)."""

    def __init__(self, weight: Tensor, latent_bias: Tensor, pre_bias: Tensor) -> None:
        """Copy the parameters: W (h, d), b_lat (h,) and b_pre (d,)."""
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.latent_bias = nn.Parameter(latent_bias.detach().clone())
        self.pre_bias = nn.Parameter(pre_bias.detach().clone())

    def pre_activations(self, x: Tensor) -> Tensor:
        """Return (B, h)."""
        return (x - self.pre_bias) @ self.weight.T + self.latent_bias

    def codes(self, x: Tensor, k: int) -> Tensor:
        """Return dense codes (B, h) of the k strongest latents."""
        a = self.pre_activations(x)
        strongest = a.topk(k, dim=1)
        return torch.zeros_like(a).scatter(1, strongest.indices, strongest.values.relu())

    def forward(self, x: Tensor, k: int) -> Tensor:
        """Return the reconstruction (B, d) from k latents."""
        made: Tensor = self.codes(x, k) @ self.weight + self.pre_bias
        return made


def plain_loss(
    model: PlainAutoencoder,
    x: Tensor,
    config: TrainConfig,
    k: int,
    *,
    dead: Tensor,
    largest: int | None = None,
    labels: Tensor | None = None,
    pairs: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Return the whole loss of a batch.

    Args:
        model: the autoencoder.
        x: rows, (B, d).
        config: weights and temperatures; a term of weight 0 is left out.
        k: active latents that reconstruct.
        dead: numbers of the dead latents, (m,).
        largest: active latents of the codes whose similarities count; four times as many make the
            second reconstruction. Default: k.
        labels: one a row, −1 for none.
        pairs: positions of queries and of documents in the batch, (p,) each; (p, p) bool of other
            pairs that are no negatives; weights (p,).
    """
    h, config, largest = len(model.latent_bias), config.resolved(), largest or k
    reconstruction = model(x, k)
    loss: Tensor = config.reconstruction * (x - reconstruction).pow(2).sum(1).mean()
    if config.multi_k:
        loss = loss + config.multi_k * (x - model(x, min(4 * largest, h))).pow(2).sum(1).mean()
    if config.aux and len(dead):
        residual = (x - reconstruction).detach()
        loss = loss + config.aux * plain_auxiliary(model, x, residual, dead, config.k_aux)
    z = F.normalize(model.codes(x, largest), dim=1)
    if config.contrastive:
        loss = loss + config.contrastive * plain_contrastive(z, z, config.contrastive_temperature)
    if config.distillation:
        assert config.distillation_temperature and config.dense_temperature
        temperatures = config.distillation_temperature, config.dense_temperature
        found = plain_distillation(z, x, *temperatures)
        loss = loss + config.distillation * found
    assert config.supervised_temperature
    if config.supervised and labels is not None:
        found = plain_same_label(z, labels, config.supervised_temperature)
        loss = loss + config.supervised * found
    if config.supervised and pairs is not None:
        found = plain_pairs(z, *pairs, config.supervised_temperature)
        loss = loss + config.supervised * found
    return loss


def plain_auxiliary(
    model: PlainAutoencoder, x: Tensor, residual: Tensor, dead: Tensor, k_aux: int
) -> Tensor:
    """Normalised MSE of the residual from dead latents, those below zero raised but never lowered.

    b_pre is a constant of this term.
    """
    weight, bias = model.weight[dead], model.latent_bias[dead]
    a = (x - model.pre_bias.detach()) @ weight.T + bias
    chosen = a.topk(min(k_aux, len(dead)), dim=1)
    awake = chosen.values.relu()
    if chosen.values.requires_grad:
        # What ReLU stops, but for gradients that would lower a latent further.
        below = chosen.values.clamp(max=0)
        below.register_hook(lambda by: by.clamp(max=0))  # type: ignore[no-untyped-call]
        awake = awake + (below - below.detach())
    z = torch.zeros_like(a).scatter(1, chosen.indices, awake)
    error = (z @ weight - residual).pow(2).mean()
    around = (residual - residual.mean(0)).pow(2).mean()
    return error / around


def plain_contrastive(one: Tensor, other: Tensor, temperature: float) -> Tensor:
    """−log(pos / (pos + neg)) over 2B codes, the positive of each being its other view."""
    views, count = torch.cat([one, other]), len(one)
    scores = views @ views.T / temperature
    scores = scores.masked_fill(
        torch.eye(2 * count, dtype=torch.bool, device=one.device), -torch.inf
    )
    truth = (torch.arange(2 * count, device=one.device) + count) % (2 * count)
    return F.cross_entropy(scores, truth)


def plain_distillation(
    z: Tensor, x: Tensor, temperature: float, dense_temperature: float
) -> Tensor:
    """KL from the softmax of dense similarities to that of the codes', each row without itself."""
    others = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    unit = F.normalize(x, dim=1)
    target = ((unit @ unit.T)[others].view(len(x), -1) / dense_temperature).log_softmax(1)
    learned = ((z @ z.T)[others].view(len(x), -1) / temperature).log_softmax(1)
    return F.kl_div(learned, target, reduction="batchmean", log_target=True)


def plain_same_label(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over rows with a partner of −log(Σ_pos / (Σ_pos + Σ_neg)) (arXiv 2602.05735)."""
    shares, total = (z @ z.T / temperature).exp(), z.new_zeros(())
    anchors = 0
    for i, label in enumerate(labels.tolist()):
        others = [j for j, each in enumerate(labels.tolist()) if j != i and each >= 0]
        positive = [j for j in others if labels[j] == label]
        if label >= 0 and positive:
            total = total - (shares[i, positive].sum() / shares[i, others].sum()).log()
            anchors += 1
    return total / max(1, anchors)


def plain_pairs(
    z: Tensor,
    queries: Tensor,
    documents: Tensor,
    known: Tensor,
    weights: Tensor,
    temperature: float,
) -> Tensor:
    """Weighted mean of the cross-entropy of each pair, from its query and from its document."""
    scores = (z[queries] @ z[documents].T / temperature).masked_fill(known, -torch.inf)
    truth = torch.arange(len(scores), device=z.device)
    forth = F.cross_entropy(scores, truth, reduction="none")
    back = F.cross_entropy(scores.T, truth, reduction="none")
    return ((forth + back) / 2 * weights).sum() / weights.sum()
