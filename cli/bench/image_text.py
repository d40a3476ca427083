"""`csr bench image-text`: images and captions, such as COCO and Flickr30k."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from csr_qdrant.benchmarks.matrix.config import BenchConfig
from csr_qdrant.cli.bench.running import (
    OF_SOME,
    SECTION,
    BenchFolder,
    EngineSettings,
    run,
    work_folder,
)
from csr_qdrant.cli.options import AsJson, Quiet, configured_as
from csr_qdrant.cli.output import Output
from csr_qdrant.errors import ConfigError

if TYPE_CHECKING:
    from csr_qdrant.benchmarks.image_text_task import ImageTextVectors


@configured_as(SECTION, OF_SOME)
def image_text(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Karpathy's or COCO's JSON, Flickr's .txt, a webdataset, or a folder of vectors "
            "(images.npy, captions.npy, caption_images.npy).",
        ),
    ],
    config: BenchConfig,
    server: EngineSettings,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images.  [default: that of SOURCE]")
    ] = None,
    split: Annotated[str, typer.Option(help="Part of the data to measure on.")] = "test",
    embedder: Annotated[
        str | None, typer.Option(metavar="URI", help="open_clip:MODEL/PRETRAINED.")
    ] = None,
    output: BenchFolder = Path("bench-image-text"),
    json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure retrieval between images and captions, both ways: R@1, R@5 and R@10.

    By CLIP_benchmark's protocol, with intervals over images. Encoders are trained on what is
    searched alone; give --encoder for one that has seen pairs of other data.
    """
    from csr_qdrant.benchmarks.image_bench import image_text_bench

    out = Output(as_json=json, quiet=quiet)
    vectors = _vectors(out, source, images, split, embedder, config.device, output)
    for task in image_text_bench(source.stem, vectors, embedder=embedder):
        direction = task.name.rpartition(", ")[2].replace(" ", "-")
        run(out, task, config, output / direction, server)


def _vectors(
    out: Output,
    source: Path,
    images: Path | None,
    split: str,
    uri: str | None,
    device: str | None,
    output: Path,
) -> "ImageTextVectors":
    from csr_qdrant.benchmarks.image_text_layouts import open_image_text
    from csr_qdrant.benchmarks.image_text_task import embedded, load_vectors

    if (source / "images.npy").exists():
        return load_vectors(source)
    if uri is None:
        raise ConfigError(f"{source} holds images and texts: pass --embedder, open_clip:MODEL/…")
    kept = work_folder(output, f"{uri} {split}", source)
    if not kept.exists():
        opened = open_image_text(source, images=images, split=split)
        model, rows = _towers(uri, device)
        with out.progress("embedding images") as progress:
            done = 0

            def count(more: int) -> None:
                nonlocal done
                done += more
                progress.update(done)

            made = embedded(opened, rows.batches, model.embed_documents, progress=count)
        kept.parent.mkdir(parents=True, exist_ok=True)
        made.save(kept)
    vectors = load_vectors(kept)
    if vectors.left_out is not None:
        out.warn(vectors.left_out)
    return vectors


def _towers(uri: str, device: str | None) -> tuple[Any, Any]:
    from csr_qdrant.cli.embedding import named_embedder
    from csr_qdrant.embedders.image_rows import RowEmbedder

    model: Any = named_embedder(uri, device)
    if not hasattr(model, "embed_prepared") or not hasattr(model, "embed_documents"):
        raise ConfigError(f"{uri} does not embed both images and texts: use open_clip:MODEL/…")
    return model, RowEmbedder(model)
