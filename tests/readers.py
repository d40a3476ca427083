"""Everything that reads a file which somebody else may have made: one list, for tests and fuzzing.

A new format of sources, or a new module that parses files, belongs in here: `test_readers.py` fails
until it does.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import reader_seeds as seeds

from csr_qdrant.benchmarks.image_text_layouts import open_image_text
from csr_qdrant.benchmarks.image_text_task import load_vectors
from csr_qdrant.benchmarks.labelled_task import load_rows
from csr_qdrant.benchmarks.report.format import load_report
from csr_qdrant.cli.options import read_settings
from csr_qdrant.encoder import Encoder
from csr_qdrant.identity import Identity
from csr_qdrant.images import decoded
from csr_qdrant.integrations.model_card import model_card
from csr_qdrant.linear import LinearAdapter
from csr_qdrant.sources import open_source, read_beir, read_pairs
from csr_qdrant.sources.images import open_images
from csr_qdrant.sources.npy import map_npy
from csr_qdrant.sources.open import SUFFIXES
from csr_qdrant.stores.edge_folder import read_description
from csr_qdrant.stores.edge_reader import read_layout

REPORT = Path(__file__).parent / "data" / "bench_report.json"


class Reader(NamedTuple):
    """How to read a file, and how to make a valid one."""

    file: str  # which is damaged; the folder may need others
    write: Callable[[Path], None]  # into a folder
    read: Callable[[Path], object]  # from that folder

    def write_with(self, folder: Path, content: bytes) -> None:
        """Write the folder, `content` in place of the file."""
        self.write(folder)
        (folder / self.file).write_bytes(content)

    def seed(self, folder: Path) -> bytes:
        """Return the content of a valid file; the folder is left with it."""
        self.write(folder)
        return (folder / self.file).read_bytes()


def read_source(path: Path, **options: object) -> None:
    """Read all blocks of a source, from its start and from its second row."""
    source = open_source(path, **options)  # type: ignore[arg-type]
    for start in (0, 1):
        for block in source.blocks(2, min(start, len(source))):
            assert len(block)


def _source(suffix: str) -> Reader:
    file = f"x{suffix}"
    return Reader(
        file, lambda folder: seeds.vectors_file(folder / file), lambda f: read_source(f / file)
    )


def _ids(file: str) -> Reader:
    def read(folder: Path) -> None:
        read_source(folder / "x.npy", ids=folder / file)

    return Reader(file, seeds.side_files, read)


def _payload(file: str) -> Reader:
    def read(folder: Path) -> None:
        read_source(folder / "x.npy", payload=folder / file)

    return Reader(file, seeds.side_files, read)


def _shards(file: str) -> Reader:
    def read(folder: Path) -> None:
        for row in open_images(folder / file).rows():
            assert isinstance(row.data, bytes) and all(row.captions)

    return Reader(file, seeds.shard, read)


def _picture(kind: str) -> Reader:
    file = f"{kind}.png"
    return Reader(file, seeds.pictures, lambda folder: decoded(folder / file))


def _encoder(file: str, folder: str) -> Reader:
    def read(parent: Path) -> None:
        encoder = Encoder.load(parent / folder)
        encoder.encode(seeds.VECTORS)
        model_card(encoder, "owner/name")

    return Reader(file, seeds.encoder_folder, read)


def _annotations(file: str) -> Reader:
    def read(folder: Path) -> None:
        place = folder if file.startswith("test/") else folder / file
        for row in open_image_text(place).rows():
            assert row.captions

    return Reader(file, seeds.annotations, read)


def _checkpoint(folder: Path) -> None:
    from csr_qdrant.integrations.checkpoint import read_checkpoint

    read_checkpoint(folder / "c.pth", 2)


def _collection(folder: Path) -> None:
    schema, metadata = read_description(folder)
    schema.to_json()
    Identity.from_metadata(metadata, str(folder)).to_metadata()


def _pairs(folder: Path) -> None:
    read_beir(folder, "test")
    read_pairs(folder / "qrels" / "test.tsv")


def _adapter(file: str) -> Reader:
    def read(folder: Path) -> None:
        LinearAdapter.load(folder / "adapter").apply(seeds.VECTORS)

    return Reader(f"adapter/{file}", seeds.adapter_folder, read)


def _report(folder: Path) -> None:
    (folder / "report.json").write_bytes(REPORT.read_bytes())


def _settings(folder: Path) -> None:
    read_settings(folder / "csr.toml", "train", ["k", "epochs", "name"])


_BEIR = partial(Reader, write=seeds.beir_folder)
_MODULE = "1_SparseAutoEncoder"

READERS: dict[str, Reader] = {
    **{f"source {suffix}": _source(suffix) for suffix in SUFFIXES},
    **{f"ids {end}": _ids(f"ids{end}") for end in (".npy", ".txt", ".txt.gz", ".jsonl")},
    "ids .jsonl.gz": _ids("ids.jsonl.gz"),
    "payload .jsonl": _payload("payload.jsonl"),
    "payload .jsonl.gz": _payload("payload.jsonl.gz"),
    "labels .npy": Reader("ids.npy", seeds.side_files, lambda f: map_npy(f / "ids.npy").sum),
    "beir corpus": _BEIR("corpus.jsonl", read=read_source),
    "beir queries": _BEIR("queries.jsonl", read=lambda folder: read_beir(folder, "test")),
    "beir judgements": _BEIR("qrels/test.tsv", read=_pairs),
    "shard": _shards("0.tar"),
    "shard of pax": _shards("pax.tar"),
    **{f"picture {kind}": _picture(kind) for kind in ("png", "jpeg", "ppm", "bmp", "tiff", "webp")},
    "encoder config": _encoder("encoder/config.json", "encoder"),
    "encoder weights": _encoder("encoder/model.safetensors", "encoder"),
    "encoder info": _encoder("encoder/csr.json", "encoder"),
    "pipeline modules": _encoder("modules.json", "."),
    "pipeline config": _encoder(f"{_MODULE}/config.json", "."),
    "adapter description": _adapter("linear.json"),
    "adapter weights": _adapter("linear.safetensors"),
    "checkpoint .pth": Reader("c.pth", seeds.checkpoint, _checkpoint),
    "labelled .npz": Reader("x.npz", seeds.labelled, lambda f: load_rows(f / "x.npz")),
    "image-text karpathy": _annotations("karpathy.json"),
    "image-text coco": _annotations("coco.json"),
    "image-text flickr": _annotations("flickr.txt"),
    "image-text shards": _annotations("test/nshards.txt"),
    "image-text vectors": Reader("info.json", seeds.image_text_vectors, load_vectors),
    "report": Reader("report.json", _report, lambda f: load_report(f / "report.json")),
    "collection": Reader("collection.json", seeds.collection_folder, _collection),
    "edge shard": Reader(
        "edge_config.json", seeds.collection_folder, lambda folder: read_layout(folder, folder)
    ),
    "settings .toml": Reader("csr.toml", seeds.settings, _settings),
}
