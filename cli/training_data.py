"""What `csr train` learns from, whichever the method: vectors, labels, pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from csr_qdrant.cli.output import Output
from csr_qdrant.cli.rows import SourceFields, about, embedder_for
from csr_qdrant.cli.supervision import (
    JudgedRows,
    Supervision,
    pair_summary,
    read_judged,
    read_labels,
)

if TYPE_CHECKING:
    from csr_qdrant.embedders import Embedder
    from csr_qdrant.sources import Source
    from csr_qdrant.trainer import TrainConfig


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run computes, what makes its vectors, and where it logs."""

    embedder: str | None = field(
        default=None,
        metadata=about(
            "What makes vectors of texts: wordllama, sentence-transformers:NAME-or-PATH.", "URI"
        ),
    )
    device: str | None = field(
        default=None, metadata=about("cpu, cuda or mps; default: the best there is.", "NAME")
    )
    tensorboard: Path | None = field(
        default=None, metadata=about("Log to TensorBoard in this folder.", "DIR")
    )


class TrainingData(NamedTuple):
    """What a run learns from, before any vector is made."""

    source: "Source"
    embedder: "Embedder | None"  # of texts
    named_embedder: str | None  # by the user, for vectors too
    labels: Any
    judged: JudgedRows | None
    dimension: int
    collection: Mapping[str, Any] | None = None  # what is remembered of one that the rows are from

    @classmethod
    def read(
        cls, path: Path, run: RunSettings, supervision: Supervision, fields: SourceFields
    ) -> "TrainingData":
        """Open the source and read the supervision; raises CsrError for what cannot be used."""
        from csr_qdrant.cli.dense import first_dimension

        source = fields.opened(path, payload_fields=None)
        embedder = embedder_for(source, run.embedder, run.device)
        labels = judged = None
        if supervision.labels is not None:
            labels = read_labels(supervision.labels, path, fields, len(source))
        if supervision.pairs_rows:
            judged = read_judged(supervision, path, source)
            embedder = embedder or embedder_for(judged.queries, run.embedder, run.device)
        embed = embedder.embed_documents if embedder else None
        dimension = first_dimension(source, embed)
        return cls(source, embedder, run.embedder, labels, judged, dimension)

    @property
    def summary(self) -> Mapping[str, Any] | None:
        """Counts of the supervision, for reports."""
        if self.labels is not None:
            return {"labels": len(self.labels)}
        return pair_summary(self.judged)

    def hidden_size(self, config: "TrainConfig") -> int:
        """Return the number of latents of an encoder; raises ConfigError for a k above it."""
        from csr_qdrant.trainer.supervision import Labels

        rows = len(self.source)
        classes = 0 if self.labels is None else Labels.of(self.labels, rows).classes
        return config.hidden_size(self.dimension, rows, classes)

    @property
    def info(self) -> dict[str, Any]:
        """What is remembered in the folder that is written."""
        uri = self.embedder.uri if self.embedder else self.named_embedder
        described = {"source": self.source.name, "rows": len(self.source), **(self.summary or {})}
        described |= self.collection or {}
        return {"embedder": uri, "data": described}

    @property
    def spilled_bytes(self) -> int:
        """Size of the vectors on disk, where those of the source cannot be mapped."""
        mapped = getattr(self.source, "array", None) is not None
        return 0 if mapped else 4 * len(self.source) * self.dimension

    def vectors(self, out: Output, work: Path) -> Any:
        """Return the vectors, (n, d), mapped; those that must be made are kept in `work`."""
        return self._dense(out, self.source, work / "vectors.npy", queries=False)

    def pairs(self, out: Output, work: Path) -> Any:
        """Return the pairs, or None; vectors of queries are made as those of documents."""
        from csr_qdrant.trainer import Pairs

        judged = self.judged
        if judged is None:
            return None
        queries = self._dense(out, judged.queries, work / "queries.npy", queries=True)
        return Pairs.of(queries, judged.query_rows, judged.document_rows, judged.scores)

    def _dense(self, out: Output, source: "Source", path: Path, *, queries: bool) -> Any:
        from csr_qdrant.cli.dense import dense_on_disk

        embedder, embed, label = self.embedder, None, "reading"
        if source.kind == "texts" and embedder is not None:
            embed = embedder.embed_queries if queries else embedder.embed_documents
            label = "embedding queries" if queries else "embedding"
        maker = embedder.uri if embed and embedder else None
        with out.progress(label, len(source)) as progress:
            return dense_on_disk(source, path, embed, maker=maker, on_rows=progress.update)
