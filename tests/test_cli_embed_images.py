"""`csr embed` of images: vectors, labels and captions; killed runs go on; bad images are listed."""

import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csr_qdrant.cli.image_shards import ImageShards
from csr_qdrant.embedders.image_rows import RowEmbedder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.sources import open_source
from csr_qdrant.sources.images import ImageRow, open_images

Csr = Callable[..., Any]
F32 = np.dtype(np.float32)

WORKER = Path(__file__).with_name("image_worker.py")
MEANS = ("--embedder", "python:colours:means", "--batch-size", 2, "--workers", 2)


def colour(number: int) -> Image.Image:
    return Image.new("RGB", (8 + number, 6), (10 * number, number, 255 - number))


def png(number: int) -> bytes:
    file = io.BytesIO()
    colour(number).save(file, "PNG")
    return file.getvalue()


def mean(number: int) -> list[float]:
    return [10 * number, number, 255 - number]


def names() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.fixture
def photos(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> Csr:
    """Write ten images of two classes, and a module that embeds them by their mean colour."""
    for number in range(10):
        file = Path("photos", "cat" if number < 4 else "dog", f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(number))
    Path("colours.py").write_text(
        "import numpy as np\n"
        "def means(images):\n"
        "    return np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])\n"
        "def nothing(images):\n"
        "    return np.full((len(images), 3), np.nan)\n"
    )
    monkeypatch.setattr(sys, "path", sys.path[:])  # the command adds the current folder
    monkeypatch.delitem(sys.modules, "colours", raising=False)
    return csr


def embedded(run: Csr, *arguments: object, source: str = "photos") -> Any:
    return run("embed", source, "-o", "x.npy", *MEANS, *arguments, "--json").json


# --- what is written --------------------------------------------------------------------------


def test_a_folder_becomes_vectors_with_labels_beside_them(photos: Csr) -> None:
    told = embedded(photos, "--shard-rows", 3)
    assert told == {
        "output": "x.npy",
        "rows_file": "x.rows.jsonl",
        "rows": 10,
        "kind": "vectors",
        "encoder": None,
        "bytes": Path("x.npy").stat().st_size,
        "labels_file": "x.labels.npy",
        "skipped": 0,
        "skipped_file": None,
        "embedder": "python:colours:means",
    }
    vectors = np.load("x.npy")
    assert vectors.dtype == F32
    np.testing.assert_allclose(vectors, [mean(number) for number in range(10)], rtol=1e-6)
    document = (Path(__file__).parents[1] / "docs" / "cli.md").read_text("utf-8")
    section = document.split("\n## `csr embed`\n")[1].split("\n## ")[0]
    assert all(f"`{key}`" in section for key in told)
    assert np.load("x.labels.npy").tolist() == ["cat"] * 4 + ["dog"] * 6
    assert names() == ["colours.py", "photos", "x.labels.npy", "x.npy", "x.rows.jsonl"]
    block = next(open_source("x.npy", ids="x.rows.jsonl", payload="x.rows.jsonl").blocks(99))
    assert block.ids[4] == "dog/4.png"
    assert block.payloads is not None and block.payloads[4] == {"label": "dog"}


@pytest.mark.parametrize("batch", [1, 3, 64])
@pytest.mark.parametrize("shard", [1, 4, 10, 4096])
def test_batches_and_shards_make_no_difference(photos: Csr, batch: int, shard: int) -> None:
    embedded(photos, "--batch-size", batch, "--shard-rows", shard, "--workers", 3)
    np.testing.assert_allclose(np.load("x.npy"), [mean(i) for i in range(10)], rtol=1e-6)


def test_a_webdataset_keeps_captions_and_numbers(photos: Csr) -> None:
    Path("shards").mkdir()
    for shard in range(2):
        with tarfile.open(f"shards/{shard}.tar", "w") as tar:
            for i in range(3):
                number = 3 * shard + i
                beside = {"txt": f"picture {number}\nanother\n", "cls": str(number % 2)}
                members = {"png": png(number), "json": b'{"url": "u"}'}
                members |= {ending: text.encode() for ending, text in beside.items()}
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"{i}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    told = embedded(photos, "--shard-rows", 4, source="shards")
    assert told["rows"] == 6
    np.testing.assert_allclose(np.load("x.npy"), [mean(i) for i in range(6)], rtol=1e-6)
    labels = np.load("x.labels.npy")
    assert (labels.dtype, labels.tolist()) == (np.int64, [0, 1, 0, 1, 0, 1])
    rows = [json.loads(line) for line in Path("x.rows.jsonl").read_text().splitlines()]
    assert rows[5] == {
        "_id": "1/2",
        "label": 1,
        "caption": "picture 5",
        "captions": ["picture 5", "another"],
        "url": "u",
    }
    # The captions are a source of texts, whose rows are those of the images.
    texts = next(open_source("x.rows.jsonl", text_field="caption").blocks(99)).texts
    assert texts == [f"picture {i}" for i in range(6)]


def test_labels_train_an_encoder(photos: Csr) -> None:
    embedded(photos)
    command = ("train", "x.npy", "-o", "enc", "--labels", "x.labels.npy", "--steps", 2, "--h", 8)
    told = photos(*command, "--k", 2, "--held-out", 2, "--adapter-steps", 2, "--json").json
    assert told["data"]["labels"] == 10


def test_images_without_any_label_have_no_file_of_labels(photos: Csr) -> None:
    for number in range(3):
        Path("photos", "dog", f"{number + 4}.png").rename(f"photos/{number}.png")
    told = embedded(photos)  # three images of no class, the others of two
    assert np.load("x.labels.npy").tolist() == [""] * 3 + ["cat"] * 4 + ["dog"] * 3
    told = embedded(photos, "--overwrite", source="photos/cat")
    assert (told["rows"], told["labels_file"]) == (4, None)
    assert names() == ["colours.py", "photos", "x.npy", "x.rows.jsonl"]


def test_images_that_cannot_be_used_are_left_out_and_listed(photos: Csr) -> None:
    Path("photos/cat/1.png").write_bytes(b"no picture")
    Path("photos/dog/5.png").write_bytes(png(5)[:50])
    Path("photos/dog/7.png").write_bytes(b"")
    ran = photos("embed", "photos", "-o", "x.npy", *MEANS, "--shard-rows", 3, "--json")
    assert (ran.json["rows"], ran.json["skipped"]) == (7, 3)
    assert ran.json["skipped_file"] == "x.skipped.jsonl"
    warning = "Warning: 3 of 10 images could not be used, and were left out: x.skipped.jsonl lists"
    assert warning in ran.stderr
    listed = [json.loads(line) for line in Path("x.skipped.jsonl").read_text().splitlines()]
    assert [line["_id"] for line in listed] == ["cat/1.png", "dog/5.png", "dog/7.png"]
    assert all(line["reason"] for line in listed)
    kept = [0, 2, 3, 4, 6, 8, 9]
    np.testing.assert_allclose(np.load("x.npy"), [mean(i) for i in kept], rtol=1e-6)
    assert np.load("x.labels.npy").tolist() == ["cat"] * 3 + ["dog"] * 4
    lines = Path("x.rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["_id"][4:5] for line in lines] == list("0234689")
    for number in (1, 5, 7):
        next(Path("photos").rglob(f"{number}.png")).write_bytes(png(number))
    assert embedded(photos, "--overwrite")["skipped"] == 0
    assert "x.skipped.jsonl" not in names()


def test_a_shard_of_nothing_but_damage_is_no_obstacle(photos: Csr) -> None:
    for number in (0, 1, 4):
        next(Path("photos").rglob(f"{number}.png")).write_bytes(b"")
    assert embedded(photos, "--shard-rows", 1)["rows"] == 7
    for file in Path("photos").rglob("*.png"):
        file.write_bytes(b"")
    ran = photos("embed", "photos", "-o", "y.npy", *MEANS)
    assert ran.exit_code == 1
    assert "none of 10 images could be decoded (cat/0.png: no picture of a known" in ran.stderr


def test_a_real_model_gives_what_it_gives_image_by_image(
    photos: Csr, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm
    import torch

    create = timm.create_model

    def seeded(name: str, **options: Any) -> Any:
        torch.manual_seed(0)
        return create(name, **options | {"pretrained": False})

    monkeypatch.setattr(timm, "create_model", seeded)
    command = ("embed", "photos", "-o", "x.npy", "--embedder", "timm:test_vit", "--device", "cpu")
    assert photos(*command, "--batch-size", 4).exit_code == 0
    model, data = seeded("test_vit", num_classes=0).eval(), timm.data
    made: Any = data
    transform = made.create_transform(**made.resolve_model_data_config(model), is_training=False)
    with torch.no_grad():
        expected = torch.cat([model(transform(colour(i))[None]) for i in range(10)])
    expected = torch.nn.functional.normalize(expected, dim=1)
    np.testing.assert_allclose(np.load("x.npy"), expected.numpy(), atol=2e-6)


# --- runs that stop ---------------------------------------------------------------------------


def worker(last_call: int, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, str(WORKER), str(last_call), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_run_embeds_no_finished_shard_again(photos: Csr) -> None:
    uri, sizes = "python:image_worker:embed", ("--batch-size", 2, "--shard-rows", 4)
    command = ("embed", "photos", "-o", "x.npy", "--embedder", uri, *sizes, "--json")
    run = worker(3, *command)  # killed within the second of three shards
    assert run.stdout is not None
    for line in run.stdout:
        if line == "waiting\n":
            run.kill()
    run.communicate()
    assert "x.npy" not in names()
    manifest = json.loads(Path("x.npy.partial/manifest.json").read_text())
    assert manifest["shards"] == [{"vectors": 4, "skipped": 0}]
    Path("x.npy.partial/000001.npy").write_bytes(b"half a file")  # as if it had been at work on it
    again = worker(99, *command)
    told, errors = again.communicate(timeout=60)
    assert again.returncode == 0, errors
    calls, _, result = told.partition("{")
    assert calls.splitlines() == ["embedded 2"] * 3  # six of ten images
    assert json.loads("{" + result)["rows"] == 10
    np.testing.assert_allclose(np.load("x.npy"), [mean(i) for i in range(10)], rtol=1e-6)
    assert "x.npy.partial" not in names()


@pytest.fixture
def begun(photos: Csr, monkeypatch: pytest.MonkeyPatch) -> Iterator[Csr]:
    """Interrupt a run after two shards of three images."""
    append = ImageShards.append

    def appending(self: ImageShards, batches: Any) -> None:
        if self.done == 2:
            raise KeyboardInterrupt
        append(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(ImageShards, "append", appending)
        ran = photos("embed", "photos", "-o", "x.npy", *MEANS, "--shard-rows", 3)
    assert ran.exit_code == 130
    assert names() == ["colours.py", "photos", "x.npy.partial"]
    yield photos


def test_a_run_goes_on_with_the_shards_that_it_began_with(begun: Csr) -> None:
    assert embedded(begun, "--shard-rows", 5)["rows"] == 10
    np.testing.assert_allclose(np.load("x.npy"), [mean(i) for i in range(10)], rtol=1e-6)


def test_another_embedder_is_refused_and_may_start_anew(begun: Csr) -> None:
    other = ("embed", "photos", "-o", "x.npy", "--embedder", "python:colours:nothing")
    ran = begun(*other)
    assert ran.exit_code == 2
    assert "begun with python:colours:means, got python:colours:nothing: go on" in ran.stderr
    assert json.loads(Path("x.npy.partial/manifest.json").read_text())["shards"] != []
    ran = begun(*other, "--overwrite")
    assert ran.exit_code == 1
    assert "python:colours:nothing gives NaN or infinity for image 'cat/0.png'" in ran.stderr
    assert json.loads(Path("x.npy.partial/manifest.json").read_text())["shards"] == []


def test_other_images_are_refused_and_may_start_anew(begun: Csr) -> None:
    Path("photos/dog/99.png").write_bytes(png(11))
    ran = begun("embed", "photos", "-o", "x.npy", *MEANS)
    assert ran.exit_code == 2
    assert "begun with other images (10 then, 11 now, or changed files)" in ran.stderr
    assert embedded(begun, "--overwrite")["rows"] == 11


def test_a_damaged_manifest_starts_anew(begun: Csr) -> None:
    Path("x.npy.partial/manifest.json").write_text("{")
    assert embedded(begun)["rows"] == 10


def test_what_another_run_left_is_not_taken_for_shards(photos: Csr) -> None:
    Path("x.npy.partial").write_bytes(b"vectors of texts")
    ran = photos("embed", "photos", "-o", "x.npy", *MEANS)
    assert (ran.exit_code, Path("x.npy.partial").read_bytes()) == (2, b"vectors of texts")
    assert "x.npy.partial belongs to another run" in ran.stderr


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (("-o", "x.npy"), 2, "photos holds images: pass --embedder, one of timm:NAME"),
        (("-o", "x.npy", "--embedder", "wordllama"), 2, "wordllama embeds texts only, got images"),
        (("-o", "x.bin", *MEANS), 2, "dense vectors are written to a .npy file"),
        (("-o", "c.safetensors", *MEANS, "--encoder", "enc"), 2, "vectors are made first"),
        (("-o", "x.npy", *MEANS, "--k", 2), 2, "--k counts latents of codes"),
        (("-o", "x.npy", *MEANS, "--ids", "i.npy"), 2, "--ids means nothing for images"),
        (("-o", "x.npy", *MEANS, "--payload-fields", "a"), 2, "--payload-fields means nothing"),
        (("-o", "x.npy", *MEANS, "--batch-size", 0), 2, "batch_size must be at least 1, got 0"),
        (("-o", "x.npy", *MEANS, "--workers", 0), 2, "workers must be at least 1, got 0"),
        (("-o", "x.npy", *MEANS, "--shard-rows", 0), 2, "shard_rows must be at least 1, got 0"),
        (("-o", "there.npy", *MEANS), 2, "there.npy already exists"),
        (("-o", "rows.npy", *MEANS), 2, "rows.labels.npy already exists"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    photos: Csr, tiny_encoder: Any, arguments: Sequence[object], exit_code: int, sentence: str
) -> None:
    tiny_encoder.save("enc")
    np.save("there.npy", np.zeros(3))
    np.save("rows.labels.npy", np.zeros(3))
    before = names()
    ran = photos("embed", "photos", *arguments)
    assert (ran.exit_code, ran.stdout) == (exit_code, "")
    assert sentence in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert names() == before


@pytest.mark.parametrize("command", [("train", "photos", "-o", "e"), ("index", "photos", "c")])
def test_commands_that_need_vectors_say_how_to_make_them(
    photos: Csr, tiny_encoder: Any, command: tuple[str, ...]
) -> None:
    tiny_encoder.save("enc")
    more = ("--encoder", "enc") if command[0] == "index" else ()
    ran = photos(*command, *more)
    assert (ran.exit_code, "make vectors of them with csr embed photos" in ran.stderr) == (1, True)


def test_a_dry_run_tells_the_plan_and_writes_nothing(photos: Csr) -> None:
    before = names()
    plan = embedded(photos, "--dry-run")
    assert (plan["kind"], plan["rows"], plan["d"], plan["bytes"]) == ("images", 10, 3, 120)
    assert [name for name in names() if name != "__pycache__"] == before


def test_a_function_of_the_current_folder_embeds_texts_too(photos: Csr) -> None:
    Path("colours.py").write_text("def lengths(texts): return [[len(t), 1.0] for t in texts]\n")
    Path("t.jsonl").write_text('{"id": 1, "text": "ab"}\n{"id": 2, "text": "abc"}\n')
    ran = photos("embed", "t.jsonl", "-o", "t.npy", "--embedder", "python:colours:lengths")
    assert ran.exit_code == 0, ran.stderr
    assert np.load("t.npy").tolist() == [[2, 1], [3, 1]]


# --- loading beside the model -----------------------------------------------------------------


class Watched:
    """An embedder whose model waits until threads have prepared the images of the next batch."""

    uri = "watched"
    dimension = 1

    def __init__(self) -> None:
        self.prepared = 0
        self.most_ahead = 0
        self.embedded = 0
        self._lock = threading.Condition()

    def prepare(self, image: Image.Image) -> int:
        with self._lock:
            self.prepared += 1
            self._lock.notify_all()
        return image.width

    def embed_prepared(self, prepared: Sequence[int]) -> Any:
        self.embedded += len(prepared)
        with self._lock:
            assert self._lock.wait_for(lambda: self.prepared >= min(self.embedded + 2, 40), 30)
            self.most_ahead = max(self.most_ahead, self.prepared - self.embedded)
        return np.array(prepared, np.float32)[:, None]

    def embed_images(self, images: Sequence[Any]) -> Any:
        raise NotImplementedError


def test_images_are_decoded_while_the_model_runs_and_not_far_ahead() -> None:
    embedder, read = Watched(), 0

    def rows() -> Iterator[ImageRow]:
        nonlocal read
        for number in range(40):
            read += 1
            assert read - embedder.embedded <= 2 * 2 + 3 + 2
            yield ImageRow(str(number), png(number % 20))

    found = list(RowEmbedder(embedder, batch_size=2, workers=3).batches(rows()))
    assert [row.id for batch in found for row in batch.rows] == [str(i) for i in range(40)]
    widths = np.concatenate([batch.vectors for batch in found])[:, 0]
    assert widths.tolist() == [8 + i % 20 for i in range(40)]
    assert 2 <= embedder.most_ahead <= 2 * 2 + 3
    assert all(row.data == b"" for batch in found for row in batch.rows)


def test_an_error_of_the_model_stops_the_threads() -> None:
    class Failing(Watched):
        def embed_prepared(self, prepared: Sequence[int]) -> Any:
            raise CsrError("out of memory")

    before = threading.active_count()
    rows = (ImageRow(str(number), png(number)) for number in range(20))
    with pytest.raises(CsrError, match="out of memory"):
        list(RowEmbedder(Failing(), batch_size=2, workers=3).batches(rows))
    assert threading.active_count() == before


def test_a_source_that_shrinks_is_noticed(photos: Csr, monkeypatch: pytest.MonkeyPatch) -> None:
    from csr_qdrant.sources.images import ImageFolder

    listed = ImageFolder.rows
    monkeypatch.setattr(
        ImageFolder, "rows", lambda self, start=0: iter([*listed(self, start)][:-1])
    )
    ran = photos("embed", "photos", "-o", "x.npy", *MEANS)
    assert (ran.exit_code, "photos changed while being read" in ran.stderr) == (1, True)


def test_shards_of_no_rows_are_refused(tmp_path: Path) -> None:
    from csr_qdrant.cli.image_shards import Origin

    (tmp_path / "1.png").write_bytes(png(1))
    source = open_images(tmp_path)
    with pytest.raises(ConfigError, match="shard_rows must be at least 1"):
        ImageShards(tmp_path / "w", Origin("e", source.fingerprint, 1), 0)
    assert not (tmp_path / "w").exists()
