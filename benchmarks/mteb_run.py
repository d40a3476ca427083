"""A task of mteb over several systems: scores in mteb's own files, and each query's nDCG@10.

OUTPUT/results/      mteb's JSON, as its leaderboard takes it
OUTPUT/predictions/  each system's best documents a query, for statistics and error analysis
OUTPUT/work/         embeddings, encoders, the index at hand; may be removed
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from csr_qdrant.atomic import write_json
from csr_qdrant.benchmarks.mteb_search import Part, SystemRetriever, import_mteb, model_meta
from csr_qdrant.benchmarks.mteb_systems import Candidate, Systems
from csr_qdrant.benchmarks.mteb_tasks import (
    PartScores,
    data_digest,
    load_task,
    part_data,
    parts,
    scores_by_query,
)
from csr_qdrant.benchmarks.mteb_texts import Embeddings, slug
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.benchmarks.systems import System
from csr_qdrant.embedders import Embedder
from csr_qdrant.errors import ConfigError, CsrError

if TYPE_CHECKING:
    from mteb.models.model_meta import ModelMeta
    from mteb.results import TaskResult

Tell = Callable[[str], None]


class Scored(NamedTuple):
    """A system's scores on a task."""

    system: str
    main_scores: dict[Part, float]  # as mteb wrote them
    by_query: list[PartScores]  # for paired comparisons: the same queries for every system
    result: Path  # mteb's file
    predictions: Path


def run_mteb(
    task: Any,
    embedder: Embedder,
    systems: Systems,
    output: Path,
    *,
    local: Path | None = None,
    splits: Sequence[str] | None = None,
    subsets: Sequence[str] | None = None,
    depth: int | None = None,
    overwrite: bool = False,
    tell: Tell = lambda step: None,
) -> list[Scored]:
    """Score systems on a retrieval task of mteb; what an earlier run finished is not repeated.

    Args:
        task: its name in mteb, or a task of your own.
        embedder: embeds corpus and queries, once for all systems.
        systems: names them, given the vectors of a corpus.
        output: takes results, predictions and work.
        local: a folder with a copy of the task's data set; None: the hub.
        splits: those to evaluate on; None: those of the leaderboard.
        subsets: those to evaluate on, such as languages; None: all.
        depth: results a query at most; None: as many as mteb asks for, 1,000. Fewer measure a
            search as it is used, since graphs and rescoring look further the more is asked of them.
        overwrite: score anew what was scored already.
        tell: told what begins.

    Raises what `load_task` raises, ConfigError for systems without names of their own, and
    whatever embedding, training and building raise; what was finished before stays.
    """
    loaded = load_task(task, local=local, splits=splits, subsets=subsets)
    embeddings = Embeddings(embedder, output / "work" / "embeddings", tell)
    run = _Run(loaded, embeddings, output, data_digest(loaded), depth)
    listed = run.listed(systems)
    scored = []
    for name in (candidate.name for candidate in listed[parts(loaded)[0]]):
        tell(name)
        scored.append(
            run.scored({part: _called(name, own) for part, own in listed.items()}, overwrite)
        )
    return scored


def _called(name: str, candidates: Sequence[Candidate]) -> Candidate:
    return next(candidate for candidate in candidates if candidate.name == name)


@dataclass(frozen=True)
class _Run:
    """A task with all that its systems share."""

    task: Any
    embeddings: Embeddings
    output: Path
    data: str  # digest of the task's data
    depth: int | None

    def listed(self, systems: Systems) -> dict[Part, Sequence[Candidate]]:
        """Embed each part's corpus and return its systems, which have the same names in all."""
        place = self.output / "work" / "models" / self.embeddings.name / f"{self._name}-{self.data}"
        listed: dict[Part, Sequence[Candidate]] = {}
        for part in parts(self.task):
            vectors = self.embeddings.documents(part_data(self.task, part).corpus)
            listed[part] = systems(vectors, place / slug("-".join(part)))
        names = [[candidate.name for candidate in own] for own in listed.values()]
        if not names[0] or len(set(names[0])) < len(names[0]) or any(n != names[0] for n in names):
            raise ConfigError(
                "systems need names of their own, the same in all parts of a task, got "
                f"{', '.join(names[0]) or 'no systems'}"
            )
        return listed

    def scored(self, candidates: Mapping[Part, Candidate], overwrite: bool) -> Scored:
        """Let mteb score one system, which stands in `candidates` for each part."""
        meta = self._meta(candidates)
        folder = self._predictions_folder(meta)
        path = folder / self.task.prediction_file_name
        stale = overwrite or not self._is_of_this_data(folder)
        if stale:
            shutil.rmtree(folder, ignore_errors=True)
            write_json(folder / "about.json", self._about(meta))
        _remove_broken(path)
        result = self._evaluated(meta, candidates, folder, anew=stale)
        if not self._has_all(path):  # mteb does not predict anew what it has scores of
            result = self._evaluated(meta, candidates, folder, anew=True)
        predictions = json.loads(path.read_text("utf-8"))
        return Scored(
            next(iter(candidates.values())).name,
            {part: _main_score(result, part) for part in candidates},
            [scores_by_query(self.task, p, predictions[p.subset][p.split]) for p in candidates],
            self._cache.get_task_result_path(self._name, meta),
            path,
        )

    def _evaluated(
        self, meta: "ModelMeta", candidates: Mapping[Part, Candidate], folder: Path, *, anew: bool
    ) -> "TaskResult":
        _remove_broken(self._cache.get_task_result_path(self._name, meta))
        indexes = self.output / "work" / "indexes"
        retriever = SystemRetriever(
            self.embeddings, partial(_made, candidates), meta, indexes, depth=self.depth
        )
        try:
            found = import_mteb().evaluate(
                retriever,
                self.task,
                cache=self._cache,
                overwrite_strategy="always" if anew else "only-missing",
                co2_tracker=False,
                prediction_folder=folder,
                show_progress_bar=False,
            )
        finally:
            retriever.close()
        result: TaskResult = found.task_results[0]
        return result

    def _meta(self, candidates: Mapping[Part, Candidate]) -> "ModelMeta":
        one = next(iter(candidates.values()))
        revisions = list(dict.fromkeys(own.revision for own in candidates.values()))
        if len(revisions) > 1:  # an encoder a part
            revisions = [hashlib.sha256(" ".join(revisions).encode()).hexdigest()[:16]]
        return model_meta(
            self.embeddings.embedder,
            one.name,
            {**one.settings, **({} if self.depth is None else {"depth": self.depth})},
            revisions[0],
            sparse=one.sparse,
            trained_on={self._name} if one.trained_here else None,
        )

    # --- predictions --------------------------------------------------------------------------

    def _predictions_folder(self, meta: "ModelMeta") -> Path:
        said = json.dumps([meta.name, meta.revision, meta.experiment_name])
        key = hashlib.sha256(said.encode()).hexdigest()[:8]
        system = (meta.experiment_kwargs or {})["system"]
        return self.output / "predictions" / f"{self._name}-{slug(str(system))}-{key}"

    def _about(self, meta: "ModelMeta") -> dict[str, Any]:
        return {
            "model": meta.name,
            "revision": meta.revision,
            "settings": dict(meta.experiment_kwargs or {}),
            "data": self.data,
        }

    def _is_of_this_data(self, folder: Path) -> bool:
        """Tell whether an earlier run began here with the data as they are now."""
        try:
            about: Any = json.loads((folder / "about.json").read_text("utf-8"))
            return bool(about["data"] == self.data)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _has_all(self, path: Path) -> bool:
        """Tell whether there are predictions for all parts."""
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return all(part.split in found.get(part.subset, {}) for part in parts(self.task))

    @property
    def _name(self) -> str:
        return str(self.task.metadata.name)

    @property
    def _cache(self) -> Any:
        return import_mteb().ResultCache(self.output)


def _made(candidates: Mapping[Part, Candidate], vectors: Matrix, part: Part) -> System:
    return candidates[part].make()


def _main_score(result: "TaskResult", part: Part) -> float:
    for scores in result.scores.get(part.split, []):
        if scores["hf_subset"] == part.subset:
            return float(scores["main_score"])
    raise CsrError(f"mteb gave no score of {part.subset}/{part.split}: run it again")


def _remove_broken(path: Path) -> None:
    """Remove a file that a killed run left half written: mteb would stumble over it."""
    try:
        json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return
    except ValueError:
        path.unlink()
