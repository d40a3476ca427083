"""`csr embed` of images: vectors in shards while the run lasts, then one file and its rows."""

import os
import warnings
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from csr_qdrant.atomic import refuse_existing, replaced_file
from csr_qdrant.cli.embedding import named_image_embedder
from csr_qdrant.cli.image_shards import ImageShards, Origin
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.rows import SourceSettings, about
from csr_qdrant.embedders import KNOWN_OF_IMAGES
from csr_qdrant.embedders.image_rows import RowEmbedder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources.images import ImageSource, open_images


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How images are worked through."""

    batch_size: int = field(default=64, metadata=about("Of images: how many the model takes."))
    workers: int | None = field(
        default=None,
        metadata=about("Of images: threads that decode. [default: one a core, 16 at most]"),
    )
    shard_rows: int = field(
        default=4096,
        metadata=about("Of images: how many are written at once while the run lasts."),
    )

    @property
    def threads(self) -> int:
        """Number of threads that decode."""
        return min(os.cpu_count() or 1, 16) if self.workers is None else self.workers


class ImageRun(NamedTuple):
    """What one command was asked to do with images."""

    source: Path
    output: Path  # .npy
    embedder: str | None  # URI
    device: str | None
    settings: ImageSettings
    overwrite: bool
    dry_run: bool


def check_options(source: Path, rows: SourceSettings, *, codes: bool) -> None:
    """Raise ConfigError if codes, or fields or files that images lack, were asked for."""
    if codes:
        raise ConfigError(
            f"{source} holds images, of which vectors are made first: leave --encoder out and "
            "write a .npy file, then pass that with --encoder"
        )
    if given := [name for name, value in vars(rows).items() if value is not None]:
        flag = "--" + given[0].replace("_", "-")
        raise ConfigError(f"{flag} means nothing for images, got it for {source}: drop it")


def embed_images(out: Output, run: ImageRun) -> None:
    """Write the vectors of images, and their ids, labels and captions beside them."""
    work, (rows_file, labels_file, skipped_file) = _work(run.output), _beside(run.output)
    for path in (run.output, rows_file, labels_file, skipped_file):
        refuse_existing(path, run.overwrite or (path != run.output and work.exists()))
    if run.embedder is None:
        raise ConfigError(f"{run.source} holds images: pass --embedder, one of {KNOWN_OF_IMAGES}")
    source = open_images(run.source)
    embedder = named_image_embedder(run.embedder, run.device)
    rows = RowEmbedder(embedder, run.settings.batch_size, run.settings.threads)
    if run.dry_run:
        _show_plan(out, run, source, embedder.dimension)
        return
    origin = Origin(embedder.uri, source.fingerprint, len(source))
    shards = ImageShards(work, origin, run.settings.shard_rows, restart=run.overwrite)
    _fill(out, shards, source, rows)
    result = _finish(shards, run.output) | {"embedder": embedder.uri}
    if result["skipped"]:
        out.warn(
            f"{result['skipped']:,} of {len(source):,} images could not be used, and were left "
            f"out: {skipped_file} lists them"
        )
    out.result(
        result,
        f"wrote vectors of {result['rows']:,} images to {run.output} ({result['bytes']:,} bytes), "
        f"ids, labels and captions to {rows_file}",
    )


def _fill(out: Output, shards: ImageShards, source: ImageSource, embedder: RowEmbedder) -> None:
    """Embed the images that no shard holds yet."""
    done = min(shards.done * shards.rows, len(source))
    with out.progress("embedding", len(source), "images") as progress, warnings.catch_warnings():
        # Pillow warns where `decoded` refuses.
        warnings.filterwarnings("ignore", r"Image size .* exceeds limit")
        progress.update(done)
        rows = source.rows(done)
        while done < len(source):
            batches, wanted = [], min(shards.rows, len(source) - done)
            for batch in embedder.batches(islice(rows, wanted)):
                batches.append(batch)
                progress.advance(len(batch.rows) + len(batch.skipped))
            if sum(len(batch.rows) + len(batch.skipped) for batch in batches) != wanted:
                raise CsrError(f"{source.name} changed while being read: run the command again")
            shards.append(batches)
            done += wanted


def _finish(shards: ImageShards, output: Path) -> dict[str, Any]:
    """Make the files of the result from the shards, and remove these."""
    rows_file, labels_file, skipped_file = _beside(output)
    vectors, skipped, labels = shards.vectors, shards.skipped, shards.labels()
    shards.write_lines("rows", rows_file)
    if labels is None:
        labels_file.unlink(missing_ok=True)
    else:
        with replaced_file(labels_file) as temporary, temporary.open("wb") as file:
            np.save(file, labels)
    if skipped:
        shards.write_lines("skipped", skipped_file)
    else:
        skipped_file.unlink(missing_ok=True)
    shards.write_vectors(output)
    shards.remove()
    return {
        "output": str(output),
        "rows_file": str(rows_file),
        "rows": vectors,
        "kind": "vectors",
        "encoder": None,
        "bytes": output.stat().st_size,
        "labels_file": None if labels is None else str(labels_file),
        "skipped": skipped,
        "skipped_file": str(skipped_file) if skipped else None,
    }


def _show_plan(out: Output, run: ImageRun, source: ImageSource, d: int) -> None:
    size = 4 * len(source) * d
    result = {
        "dry_run": True,
        "source": source.name,
        "kind": "images",
        "rows": len(source),
        "d": d,
        "embedder": run.embedder,
        "encoder": None,
        "bytes": size,
        "output": str(run.output),
    }
    out.result(
        result,
        f"would write vectors of {len(source):,} images of {source.name} to {run.output}: about "
        f"{size / 1e6:,.1f} MB",
    )


def _work(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


def _beside(output: Path) -> tuple[Path, Path, Path]:
    """Return the files of the rows, of the labels and of the skipped images."""
    return (
        output.with_suffix(".rows.jsonl"),
        output.with_suffix(".labels.npy"),
        output.with_suffix(".skipped.jsonl"),
    )
