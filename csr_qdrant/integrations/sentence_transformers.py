"""Whole pipelines of sentence-transformers: its `SparseEncoder`, made of a backbone and an encoder.

`export_pipeline` writes one, `import_pipeline` reads the encoder of one, and the embedder
`sparse-encoder:NAME-or-PATH` makes the dense vectors that such an encoder expects.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant.atomic import refuse_existing, replaced_folder
from csr_qdrant.embedders.checks import checked_vectors, text_list
from csr_qdrant.embedders.sentence_transformer import SentenceTransformerEmbedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError
from csr_qdrant.interchange import INFO, MODULES, module_folder

SCHEME = "sparse-encoder"
DENSE_SCHEME = "sentence-transformers"
CODES_MODULE = "SparseAutoEncoder"


def export_pipeline(
    encoder: Encoder,
    folder: str | Path,
    backbone: Any = None,
    *,
    device: str | None = None,
    overwrite: bool = False,
) -> None:
    """Write texts-to-codes as a folder that `sentence_transformers.SparseEncoder` loads.

    Its codes are the raw ones of `encoder.encode` on the embedder's vectors, for documents and
    queries with their prompts, at the encoder's k.

    Args:
        encoder: makes the codes.
        folder: appears whole or not at all.
        backbone: what makes the dense vectors: a `SentenceTransformer` (its vectors are
            normalised, as embedders here do), or a URI of an embedder, `sentence-transformers:…`
            or `sparse-encoder:…`. None: the embedder that the encoder remembers.
        device: torch's name of one, to load a backbone onto.
        overwrite: replace an existing folder.

    Raises:
        ConfigError: the folder exists, or the backbone is no model of sentence-transformers.
        CsrError: the backbone cannot be loaded, or makes vectors of another dimension.
    """
    target = Path(folder)
    refuse_existing(target, overwrite)
    model, options = _backbone(encoder, backbone, device)
    with tempfile.TemporaryDirectory() as scratch:
        encoder.save(Path(scratch) / "encoder")
        codes_module = _load_codes_module(Path(scratch) / "encoder")
        pipeline = _pipeline([*model, codes_module], options)
        _check_dimension(pipeline, encoder)
        with replaced_folder(target, overwrite=overwrite) as unfinished:
            pipeline.save(str(unfinished), create_model_card=False)
            # What the encoder remembers travels with its weights.
            info = (Path(scratch) / "encoder" / INFO).read_bytes()
            (module_folder(unfinished) / INFO).write_bytes(info)


def import_pipeline(source: str | Path) -> Encoder:
    """Return the encoder of a `SparseEncoder` with CSR codes, a folder or OWNER/NAME on the hub.

    It remembers the pipeline's backbone as its embedder. Of the hub only the module's own files
    are downloaded. Raises CsrError if there is none, or it makes no CSR codes.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        encoder, uri = Encoder.load(folder), f"{SCHEME}:{folder.resolve()}"
        if not (folder / MODULES).is_file():
            raise CsrError(
                f"{folder} is an encoder without a backbone, no pipeline: use Encoder.load"
            )
    else:
        from csr_qdrant.integrations.hub import from_hub

        encoder, uri = from_hub(str(source)), f"{SCHEME}:{source}"
    return replace(encoder, info={**encoder.info, "embedder": uri})


class SparseEncoderBackbone:
    """Dense vectors as they reach the codes' module of a `SparseEncoder`: not normalised here."""

    def __init__(self, model: str, device: str | None = None) -> None:
        """Load `model`, a folder or a name on the hub, onto `device` (None: the best there is).

        Raises CsrError if it cannot be loaded or makes no CSR codes.
        """
        self.uri = f"{SCHEME}:{model}"
        if not model:
            raise ConfigError(f"{SCHEME} needs a model: write {SCHEME}:NAME-or-PATH")
        self.pipeline = _load_pipeline(model, device)
        names = [type(module).__name__ for module in self.pipeline]
        if CODES_MODULE not in names:
            raise CsrError(
                f"{self.uri} is a pipeline without a {CODES_MODULE}: it makes no CSR codes"
            )
        where = names.index(CODES_MODULE)
        self.dimension = int(self.pipeline[where].input_dim)
        self._model = _dense_model(list(self.pipeline)[:where], self.pipeline)

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""
        return self._embed(self._model.encode_document, texts)

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Return (n, d) float32."""
        return self._embed(self._model.encode_query, texts)

    @property
    def modules(self) -> list[Any]:
        """The modules before the codes."""
        return list(self._model)

    def _embed(self, encode: Callable[..., Any], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        given = text_list(texts, self.uri)
        if not given:
            return np.zeros((0, self.dimension), np.float32)
        vectors = encode(given, convert_to_numpy=True, show_progress_bar=False)
        return checked_vectors(vectors, len(given), self.dimension, self.uri)


# --- the parts of a pipeline ----------------------------------------------------------------------


def _backbone(encoder: Encoder, given: Any, device: str | None) -> tuple[list[Any], dict[str, Any]]:
    """Return modules that make the vectors the encoder expects, and settings of the pipeline."""
    uri = encoder.embedder if given is None else given
    if uri is None:
        raise ConfigError("the encoder remembers no embedder: pass the backbone of the pipeline")
    if not isinstance(uri, str):
        return _modules(_checked_model(uri)), _settings(uri)
    scheme, _, rest = uri.partition(":")
    if scheme == SCHEME:
        known = SparseEncoderBackbone(rest, device)
        return known.modules, _settings(known.pipeline)
    if scheme != DENSE_SCHEME:
        raise ConfigError(
            f"{uri} is no model of sentence-transformers, which a pipeline is made of: pass a "
            f"backbone {DENSE_SCHEME}:NAME-or-PATH that makes the same vectors"
        )
    embedder = SentenceTransformerEmbedder(rest, device)
    return _modules(embedder.model), _settings(embedder.model, embedder.prompt)


def _checked_model(given: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    if not isinstance(given, SentenceTransformer):
        raise ConfigError(
            f"backbone must be a SentenceTransformer or the URI of an embedder, got "
            f"{type(given).__name__}: write {DENSE_SCHEME}:NAME-or-PATH"
        )
    return given


def _modules(model: Any) -> list[Any]:
    """Return modules that make a model's vectors at norm 1, and truncated if it does that."""
    modules = list(model)
    if model.truncate_dim is not None:
        modules.append(_first_dimensions(model.truncate_dim, _width(model)))
    return _normalised(modules)


def _settings(model: Any, prompt: str | None = None) -> dict[str, Any]:
    """Return prompts and device; with `prompt`, that one for documents and queries alike."""
    prompts, default = dict(model.prompts), model.default_prompt_name
    if prompt is not None:
        prompts |= {"query": prompts[prompt], "document": prompts[prompt]}
        default = prompt
    return {"prompts": prompts, "default_prompt_name": default, "device": str(model.device)}


def _width(model: Any) -> int:
    """Return the dimension of a model before it is truncated."""
    truncated, model.truncate_dim = model.truncate_dim, None
    try:
        return int(np.shape(model.encode(["a"]))[-1])
    finally:
        model.truncate_dim = truncated


def _first_dimensions(kept: int, width: int) -> Any:
    """Return a module that keeps the first dimensions, as `truncate_dim` does."""
    import torch
    from sentence_transformers.sentence_transformer.modules import Dense

    identity = torch.nn.Identity()
    return Dense(
        width, kept, bias=False, activation_function=identity, init_weight=torch.eye(kept, width)
    )


def _normalised(modules: list[Any]) -> list[Any]:
    from sentence_transformers.sentence_transformer.modules import Normalize

    return modules if type(modules[-1]) is Normalize else [*modules, Normalize()]


def _load_codes_module(folder: Path) -> Any:
    from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder

    return SparseAutoEncoder.load(str(folder))


def _pipeline(modules: list[Any], settings: dict[str, Any]) -> Any:
    from sentence_transformers import SparseEncoder

    # Stores keep codes at norm 1, so that is how they are to be compared here, too.
    return SparseEncoder(modules=modules, similarity_fn_name="cosine", **settings)


def _dense_model(modules: list[Any], pipeline: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(modules=modules, **_settings(pipeline))


def _check_dimension(pipeline: Any, encoder: Encoder) -> None:
    got = int(np.shape(_dense_model(list(pipeline)[:-1], pipeline).encode(["a"]))[-1])
    if got != encoder.d:
        raise CsrError(
            f"this encoder takes vectors of {encoder.d} dimensions, the backbone makes {got}: "
            f"pass the model that it was trained on"
        )


def _load_pipeline(model: str, device: str | None) -> Any:
    try:
        from sentence_transformers import SparseEncoder
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", "text") from error
    try:
        place = str(Path(model).expanduser()) if model.startswith("~") else model
        if Path(place).is_dir():
            module_folder(Path(place))  # the library would invent codes for a dense model
        return SparseEncoder(place, device=device)
    except CsrError:
        raise
    except Exception as error:  # of any kind: the hub's, torch's, transformers', safetensors'
        lines = str(error).splitlines() or [type(error).__name__]
        raise CsrError(
            f"{SCHEME} cannot load {model!r} ({lines[0].rstrip('.')}): check the path or name "
            f"and the device, and be online for models of the hub"
        ) from error
