"""What every embedder does with its texts and its vectors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.errors import ConfigError, CsrError


def text_list(texts: Sequence[str], uri: str) -> list[str]:
    """Return `texts` as a list; raises CsrError for what no tokenizer takes.

    That is a lone text (which is a sequence of letters), other values, and half surrogate pairs,
    which is how Python shows bytes on the command line that are not UTF-8.
    """
    if isinstance(texts, str):
        raise ConfigError(f"{uri} embeds lists of texts, got one text: put it into a list")
    given = list(texts)
    try:
        "".join(given).encode()
    except (TypeError, UnicodeEncodeError) as error:
        raise CsrError(f"{uri} embeds texts only ({error}): check what you give it") from None
    return given


def checked_vectors(vectors: Any, rows: int, dimension: int, uri: str) -> npt.NDArray[np.float32]:
    """Return `vectors` as (rows, dimension) float32; raises CsrError for any other shape."""
    try:
        array = np.ascontiguousarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise CsrError(f"{uri} must give a matrix of numbers ({error}): check the model") from error
    if array.shape != (rows, dimension):
        raise CsrError(
            f"{uri} must give vectors of shape {(rows, dimension)}, got {array.shape}: "
            "check the model"
        )
    return array
