"""Linear maps of the input, folded into an encoder's own weights."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from csr_qdrant.encoder import Encoder


def folded(encoder: Encoder, adapter: Tensor) -> Encoder:
    """Return the encoder of x that computes what `encoder` computes of A x; `adapter` is (d, d).

    W (A x − b_pre) + b_lat = (W A) x + (b_lat − W b_pre). Its decoder reconstructs nothing: the
    adapter is not orthogonal.
    """
    weight = encoder.weight @ adapter.cpu().numpy()
    return replace(
        encoder,
        weight=np.ascontiguousarray(weight, np.float32),
        latent_bias=encoder.offset,
        pre_bias=np.zeros_like(encoder.pre_bias),
    )
