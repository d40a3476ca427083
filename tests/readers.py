"""Everything that reads files which others may have made: one list, for tests and fuzzing.

`test_readers.py` fails until a new format, or a new module that parses files, is in it.
"""

import gzip
import io
import zipfile
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
from csr_qdrant.errors import CsrError
from csr_qdrant.identity import Identity
from csr_qdrant.images import decoded
from csr_qdrant.integrations.model_card import model_card
from csr_qdrant.linear import LinearAdapter
from csr_qdrant.sources import open_source, read_beir, read_pairs
from csr_qdrant.sources.images import open_images
from csr_qdrant.sources.npy import map_npy
from csr_qdrant.sources.open import SUFFIXES
from csr_qdrant.stores.edge_folder import read_description, read_user_metadata
from csr_qdrant.stores.edge_reader import read_layout
from csr_qdrant.stores.edge_repair import mended
from csr_qdrant.stores.whole_points_edge_setup import read_setup

REPORT = Path(__file__).parent / "data" / "bench_report.json"


class Reader(NamedTuple):
    """How to read a file, and how to make a valid one."""

    file: str  # which is damaged; the folder may need others
    write: Callable[[Path], None]  # into a folder
    read: Callable[[Path], object]  # from that folder
    member: str | None = None  # of a zip file: what is damaged in it

    def seed(self, folder: Path) -> bytes:
        """Write a folder that can be read, and return the content of the file."""
        self.write(folder)
        return (folder / self.file).read_bytes()

    def refuses(self, folder: Path, content: bytes) -> str | None:
        """Read `content` in place of the file; return the sentence of its refusal, if any.

        `folder` is one that `seed` has written. Anything raised but CsrError is a mistake of ours.
        """
        (folder / self.file).write_bytes(content)
        try:
            self.read(folder)
        except CsrError as error:
            return str(error)
        return None

    def layers(self, seed: bytes) -> list[bytes]:
        """Return what `damaged` would change."""
        found: list[bytes] = []

        def noted(content: bytes) -> bytes:
            found.append(content)
            return content

        self.damaged(seed, noted)
        return found

    def damaged(self, seed: bytes, change: Callable[[bytes], bytes]) -> bytes:
        """Return the file with `change` applied below its compression, its checksums right."""
        if self.file.endswith(".gz"):
            return gzip.compress(change(gzip.decompress(seed)), 1)
        if self.file.endswith(".tar"):
            return _with_checksum(change(seed))
        return change(seed) if self.member is None else _with_member(seed, self.member, change)


def _with_checksum(content: bytes) -> bytes:
    header = bytearray(content[:512].ljust(512, b"\0"))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + content[512:]


def _with_member(seed: bytes, name: str, change: Callable[[bytes], bytes]) -> bytes:
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(seed)) as old, zipfile.ZipFile(changed, "w") as new:
        for each in old.infolist():
            content = old.read(each)
            new.writestr(each.filename, change(content) if each.filename == name else content)
    return changed.getvalue()


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


def _archive(member: str) -> Reader:
    return _source(".npz")._replace(member=member)


def _labelled(member: str | None) -> Reader:
    return Reader("x.npz", seeds.labelled, lambda f: load_rows(f / "x.npz"), member)


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


def _run_checkpoint(folder: Path) -> None:
    import torch

    from csr_qdrant.trainer.checkpoint import read_checkpoint

    read_checkpoint(folder / "c.safetensors", "run", torch.device("cpu"))


def _collection(folder: Path) -> None:
    schema, metadata = read_description(folder)
    schema.to_json()
    Identity.from_metadata(metadata, str(folder)).to_metadata()


def _killed_shard(folder: Path) -> None:
    if not mended(folder, folder):
        raise CsrError(f"{folder} is not mended")


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
_LABELLED = {"": None, ", data": "data.npy", ", labels": "label.npy"}
_MODULE = "1_SparseAutoEncoder"

READERS: dict[str, Reader] = {
    **{f"source {suffix}": _source(suffix) for suffix in SUFFIXES},
    **{f"ids {end}": _ids(f"ids{end}") for end in (".npy", ".txt", ".txt.gz", ".jsonl")},
    **{f"source .npz, {name}": _archive(f"{name}.npy") for name in ("vectors", "ids", "n")},
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
    "checkpoint .pth, pickle": Reader("c.pth", seeds.checkpoint, _checkpoint, "c/data.pkl"),
    "checkpoint of a run": Reader("c.safetensors", seeds.run_checkpoint, _run_checkpoint),
    **{f"labelled .npz{end}": _labelled(name) for end, name in _LABELLED.items()},
    "image-text karpathy": _annotations("karpathy.json"),
    "image-text coco": _annotations("coco.json"),
    "image-text flickr": _annotations("flickr.txt"),
    "image-text shards": _annotations("test/nshards.txt"),
    "image-text vectors": Reader("info.json", seeds.image_text_vectors, load_vectors),
    "report": Reader("report.json", _report, lambda f: load_report(f / "report.json")),
    "collection": Reader("collection.json", seeds.collection_folder, _collection),
    "metadata of others": Reader("user_metadata.json", seeds.collection_folder, read_user_metadata),
    **{
        f"killed shard, {file}": Reader(file, seeds.killed_shard, _killed_shard)
        for file in ("edge_config.json", "segments/a/segment.json")
    },
    "edge shard": Reader(
        "edge_config.json", seeds.collection_folder, lambda folder: read_layout(folder, folder)
    ),
    "edge shard, whole": Reader(
        "edge_config.json", seeds.collection_folder, lambda folder: read_setup(folder, {}, {})
    ),
    "settings .toml": Reader("csr.toml", seeds.settings, _settings),
}
