"""Small valid files of every kind that is read, for tests and fuzzing to damage."""

import csv
import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from csr_qdrant.codes import SparseCodes
from csr_qdrant.encoder import Encoder
from csr_qdrant.identity import Identity
from csr_qdrant.linear import LinearAdapter
from csr_qdrant.stores.base import Schema
from csr_qdrant.stores.edge_folder import write_description, write_user_metadata

ROWS, D, H = 4, 3, 8
VECTORS = np.arange(ROWS * D, dtype=np.float32).reshape(ROWS, D)
IDS = list("abcd")
RECORDS: list[dict[str, Any]] = [
    {"_id": name, "vector": vector, "text": f"Größe {name}", "n": row, "deep": {"list": [1, None]}}
    for row, (name, vector) in enumerate(zip(IDS, VECTORS.tolist(), strict=True))
]
TEXTS = [{"_id": name, "title": "t", "text": f"text {name}"} for name in IDS]


def encoder() -> Encoder:
    rng = np.random.default_rng(7)
    return Encoder(
        weight=rng.normal(size=(H, D)).astype(np.float32),
        latent_bias=np.zeros(H, np.float32),
        pre_bias=np.zeros(D, np.float32),
        k=2,
        info={"embedder": "callable", "validations": [{"at": [{"k": 2, "recall": 0.5}]}]},
    )


def json_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def csv_text() -> bytes:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["_id", "vector", "text"])
    writer.writerows([row["_id"], json.dumps(row["vector"]), 'a "b",\nc'] for row in RECORDS)
    return file.getvalue().encode()


def picture(kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


# --- writers of a folder ----------------------------------------------------------------------


def vectors_file(path: Path) -> None:
    """Write the vectors, with what goes with them, in the format of the file's name."""
    name = path.name
    if name.endswith(".npy"):
        np.save(path, VECTORS)
    elif name.endswith(".npz"):
        np.savez_compressed(path, vectors=VECTORS, ids=np.array(IDS), n=np.arange(ROWS))
    elif name.endswith(".parquet"):
        _parquet(path)
    elif name.endswith(".safetensors"):
        SparseCodes.from_dense(VECTORS).save(path)
    else:
        content = csv_text() if ".csv" in name else json_lines(RECORDS)
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


def _parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    columns: dict[str, Any] = {key: [row[key] for row in RECORDS] for key in ("_id", "text", "n")}
    columns["vector"] = pyarrow.array(VECTORS.tolist(), pyarrow.list_(pyarrow.float32()))
    parquet.write_table(pyarrow.table(columns), path)


def side_files(folder: Path) -> None:
    """Write vectors, and every kind of file of ids and payloads that may lie beside them."""
    np.save(folder / "x.npy", VECTORS)
    np.save(folder / "ids.npy", np.array(IDS))
    text, lines = "\n".join(IDS).encode(), json_lines(RECORDS)
    (folder / "ids.txt").write_bytes(text)
    (folder / "ids.txt.gz").write_bytes(gzip.compress(text))
    (folder / "ids.jsonl").write_bytes(lines)
    (folder / "ids.jsonl.gz").write_bytes(gzip.compress(lines))
    payload = json_lines([{"n": row, "deep": [{"a": None}]} for row in range(ROWS)])
    (folder / "payload.jsonl").write_bytes(payload)
    (folder / "payload.jsonl.gz").write_bytes(gzip.compress(payload))


def beir_folder(folder: Path) -> None:
    (folder / "corpus.jsonl").write_bytes(json_lines(TEXTS))
    (folder / "queries.jsonl").write_bytes(json_lines(TEXTS))
    (folder / "qrels").mkdir(exist_ok=True)
    pairs = "query-id\tcorpus-id\tscore\na\tb\t1\nb\tc\t0\n"
    (folder / "qrels" / "test.tsv").write_text(pairs)


def shard(folder: Path) -> None:
    sample = {"png": picture(), "txt": b"a dog\nein Hund", "cls": b"3", "json": b'{"by": "me"}'}
    long = "d/" * 60 + "x.jpg"  # more than a header holds, so that one of another kind precedes it
    with tarfile.open(folder / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        _add(tar, {**{f"a/1.{kind}": content for kind, content in sample.items()}, long: b"no"})
    with tarfile.open(folder / "pax.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, {"ü/1.png": picture(), "ü/1.txt": b"x", long: b"no"})


def _add(tar: tarfile.TarFile, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))


def pictures(folder: Path) -> None:
    for kind in ("PNG", "JPEG", "PPM", "BMP", "TIFF", "WEBP"):
        (folder / f"{kind.lower()}.png").write_bytes(picture(kind))


def encoder_folder(folder: Path) -> None:
    encoder().save(folder / "encoder", overwrite=True)
    pipeline = [{"idx": 0, "path": "1_SparseAutoEncoder", "type": "x.SparseAutoEncoder"}]
    (folder / "modules.json").write_text(json.dumps(pipeline))
    encoder().save(folder / "1_SparseAutoEncoder", overwrite=True)


def adapter_folder(folder: Path) -> None:
    matrix = np.eye(D, dtype=np.float32)
    adapter = LinearAdapter(matrix=matrix, dims=(2,), info={"steps": 3})
    adapter.save(folder / "adapter", overwrite=True)


def checkpoint(folder: Path) -> None:
    import torch

    made = encoder()
    weights = {"encoder.weight": made.weight, "latent_bias": made.latent_bias}
    state = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
    state["pre_bias"] = torch.from_numpy(made.pre_bias.copy())
    torch.save({"epoch": 1, "state_dict": state}, folder / "c.pth")


def run_checkpoint(folder: Path) -> None:
    import torch

    from csr_qdrant.trainer.checkpoint import Checkpoint, write_checkpoint

    tensors = {"weight": torch.ones(H, D)}
    validations = [{"step": 1, "at": []}]
    made = Checkpoint(tensors, step=1, elapsed_s=0.5, scale=1.0, validations=validations)
    write_checkpoint(folder / "c.safetensors", "run", made)


def labelled(folder: Path) -> None:
    np.savez(folder / "x.npz", data=VECTORS, label=np.arange(ROWS))


def annotations(folder: Path) -> None:
    (folder / "a.png").write_bytes(picture())
    sentences = {"sentences": [{"raw": "a dog", "tokens": ["a"]}]}
    karpathy = {"images": [{"filename": "a.png", "split": "test", **sentences}]}
    (folder / "karpathy.json").write_text(json.dumps(karpathy))
    coco: dict[str, Any] = {"images": [{"id": 1, "file_name": "a.png"}]}
    coco["annotations"] = [{"image_id": 1, "caption": "a dog"}]
    (folder / "coco.json").write_text(json.dumps(coco))
    (folder / "flickr.txt").write_text('image,caption\na.jpg,"a dog, asleep"\n')
    (folder / "a.jpg").write_bytes(picture("JPEG"))
    (folder / "test").mkdir(exist_ok=True)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        _add(tar, {"1.png": picture(), "1.txt": b"a dog"})
    (folder / "test" / "nshards.txt").write_text("1")


def image_text_vectors(folder: Path) -> None:
    np.save(folder / "images.npy", VECTORS)
    np.save(folder / "captions.npy", VECTORS)
    np.save(folder / "caption_images.npy", np.arange(ROWS))
    (folder / "info.json").write_text(json.dumps({"name": "x", "skipped": ["y"], "model": "z"}))


def collection_folder(folder: Path) -> None:
    """Write what stands around a collection's points, and the engine's own description."""
    metadata = Identity.of(encoder(), None, None).to_metadata()
    write_description(folder, Schema(h=H, dense_dim=D), metadata)
    write_user_metadata(folder, {"owner": "somebody else", "tags": ["a", 1.5, None]})
    shard = {"vectors": {"dense": {"size": D, "distance": "Dot"}}, "sparse_vectors": {"csr": {}}}
    (folder / "edge_config.json").write_text(json.dumps(shard))


def killed_shard(folder: Path) -> None:
    """Write what is left of a shard that was killed while the name of its codes was removed."""
    codes = {"csr": {"index": {"full_scan_threshold": None}}}
    description = {"format": 1, "schema": {"h": 64, "attached": True}, "metadata": {}}
    (folder / "collection.json").write_text(json.dumps(description))
    (folder / "edge_config.json").write_text(json.dumps({"sparse_vectors": codes}))
    (folder / "wal").mkdir(exist_ok=True)
    for segment, left in (("a", codes), ("b", {})):
        (folder / "segments" / segment).mkdir(parents=True, exist_ok=True)
        content = json.dumps({"config": {"sparse_vector_data": left}})
        (folder / "segments" / segment / "segment.json").write_text(content)


def settings(folder: Path) -> None:
    (folder / "csr.toml").write_text('k = 8\n[train]\nepochs = 3\nname = "ü"\n')
