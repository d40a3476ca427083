"""Any system of the benchmarks as a retriever of mteb: its `SearchProtocol`, version 2.16 or newer.

mteb asks for the whole corpus to be indexed, then for each query's best documents. The corpus is
embedded block by block into a mapped file and indexed from there, so it need not fit into memory.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from csr_qdrant.benchmarks.engine import Found
from csr_qdrant.benchmarks.mteb_texts import Embeddings, slug
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import System
from csr_qdrant.embedders import Embedder
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta

QUERIES = 256  # searched at a time: each holds a thousand results
ORGANISATION = "csr-qdrant"
HUB_SCHEME = "sentence-transformers"

Setting = str | int | float | bool | None


class Part(NamedTuple):
    """A part of a task that has a corpus and queries of its own."""

    subset: str  # a language, say; `default` where there is one only
    split: str


MakeSystem = Callable[[Matrix, Part], System]


def import_mteb() -> Any:
    """Return the module `mteb`; raises MissingExtraError where it is not installed."""
    try:
        import mteb
    except ImportError as error:
        raise MissingExtraError("mteb", "mteb") from error
    return mteb


class SystemRetriever:
    """Embeds, indexes and searches as mteb asks it to.

    One index is open at a time; it lies in a folder of its own, which goes when the next one is
    made or when the retriever is closed.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        make: MakeSystem,
        meta: "ModelMeta",
        folder: Path,
        *,
        depth: int | None = None,
    ) -> None:
        """Search through what `make` gives for the vectors of a corpus, which it does not build.

        `depth` bounds the results a query; None: as many as the task asks for, mostly 1,000.
        """
        if depth is not None and depth < 1:
            raise ConfigError(f"depth must be at least 1, got {depth}")
        self._embeddings = embeddings
        self._make = make
        self._meta = meta
        self._folder = folder
        self._depth = depth
        self._system: System | None = None
        self._place: Path | None = None
        self._corpus: Any = None

    @property
    def mteb_model_meta(self) -> "ModelMeta":
        """What mteb stores scores under: name, revision, settings."""
        return self._meta

    def index(
        self,
        corpus: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        encode_kwargs: Any = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> None:
        """Embed a corpus, a data set with `id`, `text` and perhaps `title`, and index it.

        `encode_kwargs` and `num_proc` are mteb's own encoders' business.
        """
        self.close()
        if not len(corpus):
            raise CsrError(f"{task_metadata.name} has no documents in {hf_subset}/{hf_split}")
        vectors = self._embeddings.documents(corpus)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._place = Path(tempfile.mkdtemp(prefix="index-", dir=self._folder))
        system = self._make(vectors, Part(hf_subset, hf_split))
        system.build(vectors, self._place / "shard")
        self._system = system
        self._corpus = corpus.select_columns(["id"])

    def search(
        self,
        queries: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        top_k: int,
        encode_kwargs: Any = None,
        top_ranked: Any = None,
        num_proc: int | None = None,
        **kwargs: Any,
    ) -> dict[str, dict[str, float]]:
        """Return the best documents of each query and their scores.

        Every query has an entry, also one that found nothing: scorers leave out those that have
        none, which would raise the mean.
        """
        if self._system is None:
            raise CsrError("nothing is indexed: call index before search")
        if top_ranked is not None:
            raise CsrError(
                f"{task_metadata.name} reorders documents that it names itself, and searches none: "
                "choose a retrieval task"
            )
        limit = min(top_k, self._depth or top_k, len(self._corpus))
        vectors, ids = self._embeddings.queries(queries), list(queries["id"])
        run: dict[str, dict[str, float]] = {}
        for start in range(0, len(ids), QUERIES):
            found = self._system.search(np.asarray(vectors[start : start + QUERIES]), limit)
            run.update(zip(ids[start : start + QUERIES], self._named(found), strict=True))
        return run

    def close(self) -> None:
        """Release the index and remove it."""
        if self._system is not None:
            self._system.close()
        if self._place is not None:
            shutil.rmtree(self._place, ignore_errors=True)
        self._system = self._place = self._corpus = None

    def _named(self, found: Found) -> Iterator[dict[str, float]]:
        """Yield each query's scores by document id."""
        # Ids stay in the data set, on disk: a block of queries looks up those that it found.
        rows = np.unique(found.rows[found.rows >= 0])
        named = dict(zip(rows.tolist(), self._corpus[rows.tolist()]["id"], strict=True))
        for best, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
            pairs = [(row, score) for row, score in zip(best, scores, strict=True) if row >= 0]
            # Worst first, so that of documents that share an id the best one stays.
            yield {named[row]: score for row, score in reversed(pairs)}


def model_meta(
    embedder: Embedder,
    system: str,
    settings: Mapping[str, Setting],
    revision: str,
    *,
    sparse: bool = False,
    trained_on: set[str] | None = None,
) -> "ModelMeta":
    """Return what mteb keeps of a model: it stores scores under name, revision and settings.

    Args:
        embedder: named by its URI.
        system: its name in tables, a setting among `settings`.
        settings: k, dimensions, quantisation: whatever tells systems of one embedder apart.
        revision: fingerprint of the encoder, or some word for systems without one.
        sparse: whether codes are searched, and not dense vectors.
        trained_on: names of mteb's tasks whose corpora the encoder was trained on, None if that
            is not known.
    """
    import_mteb()
    from mteb.models.model_meta import ModelMeta, ScoringFunction

    scheme, _, model = embedder.uri.partition(":")
    return ModelMeta(
        loader=None,
        name=f"{ORGANISATION}/{slug(embedder.uri)}",
        revision=revision,
        release_date=None,
        languages=None,
        n_parameters=None,
        memory_usage_mb=None,
        max_tokens=None,
        embed_dim=embedder.dimension,
        license=None,
        open_weights=None,
        public_training_code=None,
        public_training_data=None,
        framework=["NumPy"],
        similarity_fn_name=ScoringFunction.COSINE,
        use_instructions=None,
        training_datasets=trained_on,
        # A folder of this machine says nothing to others.
        adapted_from=model if scheme == HUB_SCHEME and not Path(model).exists() else None,
        modalities=["text"],
        model_type=["sparse" if sparse else "dense"],
        experiment_kwargs={"system": system, **settings},
    )
