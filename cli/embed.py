"""`csr embed`: texts and images to dense vectors, or texts and vectors to codes, on disk."""

import json as json_format
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from csr_qdrant.atomic import refuse_existing, replaced_file
from csr_qdrant.cli.codes_writer import write_codes
from csr_qdrant.cli.dense import first_dimension, remove_dense, write_dense
from csr_qdrant.cli.embed_images import ImageRun, ImageSettings, check_options, embed_images
from csr_qdrant.cli.embedding import named_embedder
from csr_qdrant.cli.options import AsJson, DryRun, Overwrite, Quiet, configured
from csr_qdrant.cli.output import Output
from csr_qdrant.cli.rows import SourceSettings, about, embedder_for
from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder, check_k
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.ids import ID_KEY
from csr_qdrant.points import directed_codes
from csr_qdrant.sources.base import BLOCK_ROWS
from csr_qdrant.sources.images import holds_images

if TYPE_CHECKING:
    from csr_qdrant.embedders import Embedder
    from csr_qdrant.sources import Source

SourcePath = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="Texts or vectors: .npy, .npz, .parquet, .jsonl[.gz], .csv[.gz] or a BEIR folder; or "
        "images: a folder, or .tar shards of a webdataset.",
    ),
]
OutputFile = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="File to write: .npy for dense vectors, .safetensors for codes (with --encoder).",
    ),
]


@dataclass(frozen=True, kw_only=True)
class EmbedSettings:
    """What makes vectors, and codes of them."""

    embedder: str | None = field(
        default=None,
        metadata=about(
            "What makes vectors of texts or images. [default: the encoder's, for texts]", "URI"
        ),
    )
    encoder: Path | None = field(
        default=None, metadata=about("Folder of an encoder: write codes instead of vectors.")
    )
    k: int | None = field(
        default=None, metadata=about("Active latents of the codes. [default: the encoder's]")
    )
    skip_zero: bool = field(
        default=False, metadata=about("Give all-zero vectors an empty code instead of stopping.")
    )
    device: str | None = field(
        default=None, metadata=about("cpu, cuda or mps; default: the best there is.", "NAME")
    )


@configured
def embed(
    source: SourcePath,
    output: OutputFile,
    settings: EmbedSettings,
    rows: SourceSettings,
    images: ImageSettings,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Turn texts, images or vectors into dense vectors or codes on disk.

    Ids and payloads are written beside them, to NAME.rows.jsonl, which csr index takes as --ids and
    --payload. Dense vectors of an interrupted run are kept, and the same command goes on from
    there. Labels of images are written to NAME.labels.npy, which csr train takes as --labels;
    images that do not decode are left out, and listed in NAME.skipped.jsonl.
    """
    out = Output(as_json=json, quiet=quiet)
    encoder = _encoder(output, settings)
    if holds_images(source):
        check_options(source, rows, codes=encoder is not None)
        device, uri = settings.device, settings.embedder
        embed_images(out, ImageRun(source, output, uri, device, images, overwrite, dry_run))
        return
    work = output.with_name(output.name + ".partial")
    refuse_existing(output, overwrite)
    refuse_existing(_rows_path(output), overwrite or work.exists())
    read = rows.opened(source)
    embedder = _embedder(read, encoder, settings)
    if dry_run:
        _show_plan(out, read, output, encoder, embedder)
        return
    if encoder is None:
        _write_dense(out, read, work, embedder)
    else:
        _write_codes(out, read, work, _Coder(read, encoder, embedder, settings))
    _write_rows(read, _rows_path(output))
    work.replace(output)
    remove_dense(work)
    result = {
        "output": str(output),
        "rows_file": str(_rows_path(output)),
        "rows": len(read),
        "kind": "vectors" if encoder is None else "codes",
        "embedder": embedder.uri if embedder else None,
        "encoder": encoder.fingerprint if encoder else None,
        "bytes": output.stat().st_size,
    }
    out.result(
        result,
        f"wrote {result['kind']} of {len(read):,} rows to {output} ({result['bytes']:,} bytes), "
        f"ids and payloads to {_rows_path(output)}",
    )


def _encoder(output: Path, settings: EmbedSettings) -> Encoder | None:
    """Load the encoder; raises ConfigError unless the name of the output fits to what it gets."""
    suffix = ".npy" if settings.encoder is None else ".safetensors"
    if output.suffix != suffix:
        what = "dense vectors" if settings.encoder is None else "codes"
        raise ConfigError(
            f"{what} are written to a {suffix} file, got {output}: choose such a name, or pass "
            f"--encoder for codes (.safetensors) and leave it out for vectors (.npy)"
        )
    if settings.encoder is None:
        if settings.k is not None:
            raise ConfigError("--k counts latents of codes: pass --encoder, or drop it")
        return None
    encoder = Encoder.load(settings.encoder)
    check_k(settings.k or encoder.k, encoder.h)
    return encoder


def _embedder(
    source: "Source", encoder: Encoder | None, settings: EmbedSettings
) -> "Embedder | None":
    if source.kind == "texts" and settings.embedder is not None:
        return named_embedder(settings.embedder, settings.device)
    return embedder_for(source, encoder.embedder if encoder else None, settings.device)


def _rows_path(output: Path) -> Path:
    return output.with_suffix(".rows.jsonl")


def _show_plan(
    out: Output,
    source: "Source",
    output: Path,
    encoder: Encoder | None,
    embedder: "Embedder | None",
) -> None:
    d = first_dimension(source, embedder.embed_documents if embedder else None)
    size = len(source) * (4 * d if encoder is None else 8 * (encoder.k + 1))
    result = {
        "dry_run": True,
        "source": source.name,
        "kind": source.kind,
        "rows": len(source),
        "d": d,
        "embedder": embedder.uri if embedder else None,
        "encoder": encoder.fingerprint if encoder else None,
        "bytes": size,
        "output": str(output),
    }
    out.result(
        result,
        f"would write {'vectors' if encoder is None else 'codes'} of {len(source):,} rows "
        f"({source.kind} of {source.name}) to {output}: about {size / 1e6:,.1f} MB",
    )


# --- writing ----------------------------------------------------------------------------------


def _write_dense(out: Output, source: "Source", work: Path, embedder: "Embedder | None") -> None:
    if source.kind == "codes":
        raise CsrError(f"{source.name} holds codes already: csr index takes them as they are")
    maker = embedder.uri if embedder else None
    function = embedder.embed_documents if embedder else None
    with out.progress("embedding", len(source)) as progress:
        write_dense(source, work, function, maker=maker, on_rows=progress.update)


@dataclass(frozen=True)
class _Coder:
    """Codes of a source, batch by batch."""

    source: "Source"
    encoder: Encoder
    embedder: "Embedder | None"
    settings: EmbedSettings

    def batches(self) -> Iterator[SparseCodes]:
        if self.source.kind == "codes":
            raise CsrError(f"{self.source.name} holds codes already: there is nothing to encode")
        for block in self.source.blocks(BLOCK_ROWS[self.source.kind]):
            vectors = block.vectors
            if block.texts is not None and self.embedder is not None:
                vectors = self.embedder.embed_documents(block.texts)
            assert vectors is not None, "a source of texts has its embedder"
            yield self._coded(vectors, block.start)

    def _coded(self, vectors: Any, first: int) -> SparseCodes:
        codes = self.encoder.encode(
            vectors,
            self.settings.k,
            device=self.settings.device,
            first_row=first,
            name=self.source.name,
        )
        directed = vectors.any(axis=1)
        if not self.settings.skip_zero and not directed.all():
            raise CsrError(
                f"row {first + int(np.argmin(directed))} of {self.source.name} is all zeros: "
                f"it has no direction; remove it, or pass --skip-zero to give it an empty code"
            )
        return directed_codes(codes, directed)


def _write_codes(out: Output, source: "Source", work: Path, coder: _Coder) -> None:
    with out.progress("encoding", len(source)) as progress:
        write_codes(coder.batches(), coder.encoder.h, work, progress.update)


def _write_rows(source: "Source", path: Path) -> None:
    """Write one object a row: its id, and what payload it has."""
    with replaced_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for block in source.blocks(BLOCK_ROWS["vectors"]):
            payloads: Any = block.payloads or [{}] * len(block)
            for name, payload in zip(block.ids, payloads, strict=True):
                row = {ID_KEY: name, **payload}
                file.write(json_format.dumps(row, ensure_ascii=False) + "\n")
