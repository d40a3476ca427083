"""The card of an encoder on the Hugging Face Hub: what it is, and what training measured."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from csr_qdrant.encoder import Encoder

TAGS = ("csr", "sparse", "sparse-encoder", "qdrant", "arxiv:2503.01776")
_LARGEST = 2.0**63  # figures beyond it, and integers that no float holds, are none
# Key in a validation, heading, and how to write it.
COLUMNS = (
    ("k", "k", "{:.0f}"),
    ("recall", "recall@10", "{:.3f}"),
    ("fvu", "unexplained variance", "{:.4f}"),
    ("postings", "postings/query (of N)", "{:.3f}"),
    ("longest_list", "longest list (of N)", "{:.3f}"),
)


def model_card(encoder: Encoder, repo: str) -> str:
    """Return a README.md for `repo` with the figures in `encoder.info`, and no others."""
    return "\n".join([*_front_matter(encoder), *_description(encoder, repo), *_measured(encoder)])


def _front_matter(encoder: Encoder) -> list[str]:
    base = base_model(encoder.embedder)
    return [
        "---",
        "library_name: csr-qdrant",
        "pipeline_tag: feature-extraction",
        f"tags: {json.dumps(TAGS)}",  # JSON is YAML, and needs no care about special characters
        *([] if base is None else [f"base_model: {json.dumps(base)}"]),
        "---",
    ]


def base_model(embedder: str | None) -> str | None:
    """Return the hub's name of the embedder's model, None if that is not on the hub."""
    scheme, _, rest = (embedder or "").partition(":")
    name = rest.partition("?")[0]
    on_hub = scheme == "sentence-transformers" and name.count("/") == 1
    return name if on_hub and not name.startswith(("/", ".", "~")) else None


def _description(encoder: Encoder, repo: str) -> list[str]:
    known = encoder.info
    facts = [
        ("dimensions of the dense vectors", f"{encoder.d:,}"),
        ("latents", f"{encoder.h:,}"),
        ("active latents k", f"{encoder.k:,}"),
        ("embedder", _word(encoder.embedder)),
        *((f"data: {key}", _word(value)) for key, value in _mapping(known.get("data")).items()),
        ("steps of training", _word(known.get("steps"))),
        ("seconds of training", _word(known.get("seconds"))),
        ("fingerprint", f"`{encoder.fingerprint}`"),
    ]
    return [
        "",
        f"# {repo.rpartition('/')[2]}",
        "",
        "Turns dense embeddings into sparse codes for Qdrant by CSR, Contrastive Sparse",
        "Representation ([arXiv 2503.01776](https://arxiv.org/abs/2503.01776)).",
        "",
        *_table(("what", "value"), [fact for fact in facts if fact[1]]),
        "",
        "```python",
        "from csr_qdrant import Encoder",
        "",
        f'encoder = Encoder.load("hf:{repo}")',
        "codes = encoder.encode(vectors)  # (n, d) floats, of the embedder above",
        "```",
        "",
    ]


def _measured(encoder: Encoder) -> list[str]:
    validations = encoder.info.get("validations") or []
    last = _mapping(validations[-1]) if isinstance(validations, list) and validations else {}
    at = last.get("at")
    rows = [row for row in at if isinstance(row, Mapping)] if isinstance(at, list) else []
    heading = ["## Measured", ""]
    if not rows:
        return [*heading, "Nothing was recorded in this encoder.", ""]
    shown = [column for column in COLUMNS if all(_is_number(row.get(column[0])) for row in rows)]
    cells = [[text.format(row[key]) for key, _, text in shown] for row in rows]
    dead = last.get("dead")
    return [
        *heading,
        "By queries held out of training, among a sample of its documents, in its last validation;",
        "recall is that of the ten nearest by dense vectors, N the number of documents.",
        "",
        *_table([name for _, name, _ in shown], cells),
        "",
        *(
            [f"Latents that no document of the sample uses: {100 * dead:.1f} %.", ""]
            if _is_number(dead)
            else []
        ),
    ]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell.replace('|', ' ') for cell in line)} |" for line in lines]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_number(value: Any) -> TypeGuard[int | float]:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < _LARGEST


def _word(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:,}" if _is_number(value) else " ".join(str(value).split())
