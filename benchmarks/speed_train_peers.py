"""The systems that `speed_train` compares: each makes the same training step of the same case.

A step is: loss, gradients, clipping, AdamW. The objective is the papers' (arXiv 2503.01776):
reconstruction from k and from 4k latents, the auxiliary term on dead latents, and the contrastive
term over 2B codes whose two views are the same.
"""

import itertools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csr_qdrant.benchmarks.plain import PlainAutoencoder, plain_loss
from csr_qdrant.errors import MissingExtraError
from csr_qdrant.trainer import TrainConfig
from csr_qdrant.trainer.batch import TorchBatch
from csr_qdrant.trainer.model import Autoencoder
from csr_qdrant.trainer.ops import ops_for
from csr_qdrant.trainer.step import Plan, Step

LR = 1e-5  # small: the same batch is learned again and again, and dead latents stay dead
SPREAD = 0.4  # of the latents' biases, in deviations of their pre-activations


class Case(NamedTuple):
    """A batch, the parameters before the step, and which latents are dead."""

    config: TrainConfig
    x: Tensor  # (B, d) at L2 norm 1
    weight: Tensor  # (h, d)
    latent_bias: Tensor  # (h,)
    pre_bias: Tensor  # (d,)
    dead: Tensor  # (m,) numbers of latents


def paper_config(k: int) -> TrainConfig:
    """Return the papers' objective, in squared norms instead of means over dimensions."""
    return TrainConfig(k=(k,), multi_k=1 / 8, contrastive=0.1, distillation=0, lr=LR)


def make_case(config: TrainConfig, rows: int, d: int, h: int, dead: float, seed: int = 0) -> Case:
    """Make up a case in which the share `dead` of the latents is dead.

    Latents of an untrained W are used too evenly, which would make codes cheap to compare. Spread
    biases make a query touch nearly twice as many postings as it would then, as trained codes do.
    """
    random = torch.Generator().manual_seed(seed)
    x = F.normalize(torch.randn(rows, d, generator=random), dim=1)
    weight = Autoencoder(d, h, random).weight.detach()
    deviation = (3 * d) ** -0.5  # of pre-activations, W being uniform in ±1/√d
    latent_bias = SPREAD * deviation * torch.randn(h, generator=random)
    pre_bias = 0.01 * d**-0.5 * torch.randn(d, generator=random)
    numbers = torch.randperm(h, generator=random)[: round(dead * h)].sort().values
    # Now and then above zero, but too weak for the strongest 4k.
    weight[numbers] *= 0.3
    latent_bias[numbers] = -0.6 * deviation
    return Case(config, x, weight, latent_bias, pre_bias, numbers)


@dataclass(frozen=True)
class TrainingStep:
    """A step that can be made again and again."""

    parameters: list[nn.Parameter]  # W, b_lat, b_pre
    gradients: Callable[[], Tensor]  # leaves them in the parameters and returns the loss
    config: TrainConfig
    optimiser: torch.optim.AdamW
    block: Callable[[], AbstractContextManager[None]] = nullcontext

    def __call__(self) -> Tensor:
        """Make a step and return its loss."""
        with self.block():
            loss = self.gradients()
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
            self.optimiser.step()
        return loss


def _step(
    case: Case,
    parameters: list[nn.Parameter],
    gradients: Callable[[], Tensor],
    block: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> TrainingStep:
    optimiser = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0, fused=True)
    return TrainingStep(parameters, gradients, case.config, optimiser, block)


def ours(case: Case) -> TrainingStep:
    """The trainer's step, as `fit` makes it; a list of k is gone through."""
    h, d = case.weight.shape
    model, ops = Autoencoder(d, h), ops_for(torch.device("cpu"))
    model.load_state_dict(
        {"weight": case.weight, "latent_bias": case.latent_bias, "pre_bias": case.pre_bias}
    )
    step, numbers = Step(model, case.config, ops), itertools.count()
    begun = torch.zeros(h, dtype=torch.int64)
    begun[case.dead] = case.config.idle_limit(pairs=False)

    def gradients() -> Tensor:
        since_active = begun.clone()  # every step sees the same latents dead
        dead = (since_active >= case.config.idle_limit(pairs=False)).nonzero().squeeze(1)
        outcome = step(TorchBatch(case.x), dead, step=next(numbers), progress=0.0)
        since_active += 1
        since_active[outcome.used] = 0
        return outcome.loss

    return _step(case, [model.weight, model.latent_bias, model.pre_bias], gradients, ops.leading)


def plain(case: Case) -> TrainingStep:
    """The plain reference: three dense passes, similarities of 2B × 2B."""
    model = PlainAutoencoder(case.weight, case.latent_bias, case.pre_bias)
    k = Plan.of(case.config, len(case.weight), 0, 0.0).k
    parameters = [model.weight, model.latent_bias, model.pre_bias]

    def gradients() -> Tensor:
        _forget(parameters)
        loss = plain_loss(model, case.x, case.config, k, dead=case.dead)
        torch.autograd.backward(loss)
        return loss.detach()

    return _step(case, parameters, gradients)


def sentence_transformers(case: Case) -> TrainingStep:
    """The parts of sentence-transformers on one pass of its autoencoder, the least that they need.

    That is CSRReconstructionLoss, and its ranking loss on the same codes as both views.
    """
    return _sentence_transformers(case, columns=1)


def sentence_transformers_columns(case: Case) -> TrainingStep:
    """CSRLoss as sentence-transformers' own trainer calls it, on two columns of the same rows."""
    return _sentence_transformers(case, columns=2)


def _sentence_transformers(case: Case, columns: int) -> TrainingStep:
    """Terms there are means over dimensions: weights are divided by d, and the loss is that × d."""
    coder, loss = _coder(case), _csr_loss(case)
    parameters = [coder.encoder.weight, coder.latent_bias, coder.pre_bias]
    begun = torch.zeros_like(coder.stats_last_nonzero)
    begun[case.dead] = coder.dead_threshold + 1

    def terms() -> dict[str, Tensor]:
        features = [{"sentence_embedding": case.x} for _ in range(columns)]
        if columns == 2:
            found: dict[str, Tensor] = loss(features)
            return found
        output = coder(features[0])
        codes = output["sentence_embedding"]
        ranking = loss.loss.compute_loss_from_embeddings([codes, codes], None)
        parts = loss.reconstruction_loss.compute_loss_from_embeddings([output])
        return {**parts, "base_loss": ranking * loss.gamma}

    def gradients() -> Tensor:
        _forget(parameters)
        coder.stats_last_nonzero.copy_(begun)  # every step sees the same latents dead
        found = terms()
        total = torch.stack(list(found.values())).sum()
        torch.autograd.backward(total)
        if not len(case.dead):  # its auxiliary term is computed even so
            total = total - found["reconstruction_loss_aux"]
        return total.detach() * case.x.shape[1]

    loss.model = loss.reconstruction_loss.model = coder
    return _step(case, parameters, gradients)


def _coder(case: Case) -> Any:
    try:
        from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder
    except ImportError as error:
        raise MissingExtraError("sentence-transformers 6.2 or newer", "text") from error
    (h, d), config = case.weight.shape, case.config
    coder: Any = SparseAutoEncoder(
        d, h, max(config.k), min(config.k_aux, h), False, config.idle_limit(pairs=False)
    )
    with torch.no_grad():
        coder.encoder.weight.copy_(case.weight)
        coder.latent_bias.copy_(case.latent_bias)
        coder.pre_bias.copy_(case.pre_bias)
    return coder


def _csr_loss(case: Case) -> Any:
    """Each code against both views of all others, in one softmax: the papers' contrastive term."""
    from sentence_transformers.sparse_encoder.losses import (
        CSRLoss,
        SparseMultipleNegativesRankingLoss,
    )
    from sentence_transformers.util import cos_sim

    nobody: Any = None  # the losses only keep the model, to call it
    config, d = case.config, case.x.shape[1]
    ranking = SparseMultipleNegativesRankingLoss(
        nobody,
        scale=1 / config.contrastive_temperature,
        similarity_fct=cos_sim,
        directions=("query_to_doc", "query_to_query"),
    )
    assert config.contrastive is not None
    return CSRLoss(nobody, ranking, beta=config.aux / d, gamma=config.contrastive / d)


def _forget(parameters: list[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def floor(case: Case) -> Callable[[], None]:
    """Return a call of the two products without which no step gets by: X Wᵀ and Aᵀ X."""
    a, by_weight = case.x.new_empty(len(case.x), len(case.weight)), torch.empty_like(case.weight)

    def products() -> None:
        torch.mm(case.x, case.weight.T, out=a)
        torch.mm(a.T, case.x, out=by_weight)

    return products


STEPS: dict[str, Callable[[Case], TrainingStep]] = {
    "ours": ours,
    "plain": plain,
    "sentence-transformers": sentence_transformers,
    "sentence-transformers, two columns": sentence_transformers_columns,
}
