"""The recipe of docs/protocols.md: CC3M shards, an encoder of pairs, zero-shot COCO and Flickr30k.

Its own commands, on a tiny copy of each layout and a tiny random model of open_clip.
"""

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from csr_qdrant.embedders import load_embedder
from csr_qdrant.encoder import Encoder

Csr = Callable[..., Any]

DOCUMENT = (Path(__file__).parents[1] / "docs" / "protocols.md").read_text("utf-8")
RECIPE = DOCUMENT.split("### From CC3M to zero-shot COCO and Flickr30k\n")[1]
MODEL = "ViT-B-32/laion2b_s34b_b79k"
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
URI = "open_clip:recipe/clip.pt"
TESTED = 12  # images of a test split
SMALL = {
    "train": "--steps 20 --h 24 --k 12 --held-out 4 --adapter-steps 20 --device cpu",
    "bench": "--systems exact,truncated,csr --query-k 2 --dims 8 --candidates 8 --timed 3",
}


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (20, 10 + number), (5 * number, 200 - number, number)).save(file, "JPEG")
    return file.getvalue()


def shard(path: Path, samples: Mapping[str, Mapping[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def cc3m() -> None:
    """Two shards as img2dataset leaves them; one image is damaged."""
    for number in range(2):
        samples = {}
        for i in range(20):
            at = 20 * number + i
            caption = f"picture number {at}"
            about = {"caption": caption, "url": "http://x", "key": f"{at:09}", "status": "success"}
            about |= {"error_message": None, "width": 20, "height": 10, "exif": "{}"}  # type: ignore[dict-item]
            content = {"jpg": picture(at), "json": json.dumps(about).encode()}
            samples[f"{at:09}"] = content | {"txt": caption.encode()}
        if number:
            samples[f"{25:09}"]["jpg"] = b"no picture"
        shard(Path(f"cc3m/{number:05}.tar"), samples)
        Path(f"cc3m/{number:05}_stats.json").write_text('{"count": 20}')
        Path(f"cc3m/{number:05}.parquet").write_bytes(b"PAR1")


def karpathy(file: Path, images: Path, filepath: str | None) -> None:
    entries = []
    for number in range(TESTED + 3):
        name = f"{number:012}.jpg"
        place = images / (filepath or "") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(number))
        said = [{"raw": f"picture number {number}, {i}", "tokens": []} for i in range(5)]
        entry = {"filename": name, "split": "test" if number < TESTED else "train"}
        entries.append(entry | {"sentences": said} | ({"filepath": filepath} if filepath else {}))
    file.write_text(json.dumps({"images": entries}))


@pytest.fixture
def layouts(csr: Csr, monkeypatch: pytest.MonkeyPatch) -> Iterator[Csr]:
    """Write the data sets and a model to the current folder."""
    import logging

    import open_clip  # type: ignore[import-untyped]
    import torch

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    torch.manual_seed(0)
    Path("recipe.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(Path("recipe.json"))
    torch.save(open_clip.create_model("recipe").state_dict(), "clip.pt")
    cc3m()
    karpathy_of_coco = Path("coco/dataset_coco.json")
    karpathy_of_coco.parent.mkdir()
    karpathy(karpathy_of_coco, Path("coco"), "val2014")
    Path("flickr30k").mkdir()
    karpathy(Path("flickr30k/dataset_flickr30k.json"), Path("flickr30k/images"), None)
    monkeypatch.setattr("csr_qdrant.benchmarks.matrix.timing.SECONDS", 0.02)
    yield csr
    root.handlers[:], root.level = handlers, level


def commands() -> list[list[str]]:
    block = re.search(r"```sh\n(.*?)```", RECIPE, re.DOTALL)
    assert block is not None
    lines = block[1].replace(f"open_clip:{MODEL}", URI).strip().splitlines()
    return [line.split()[1:] for line in lines]


def small(words: list[str]) -> list[str]:
    """Return a command with settings for a dozen images."""
    kept = re.sub(r" --k \S+| --minutes \S+", "", " ".join(words)).split()
    more = "" if words[:2] == ["bench", "report"] else SMALL.get(words[0], "")
    return [*kept, *more.split()]


@pytest.mark.slow
def test_the_recipe_runs_from_shards_to_zero_shot_figures(layouts: Csr) -> None:
    told = []
    for words in commands():
        ran = layouts(*small(words), "--quiet" if words[0] == "bench" else "--json")
        assert ran.exit_code == 0, f"{words}: {ran.stderr}"
        told.append(ran)
    images, captions, trained = (each.json for each in told[:3])
    assert (images["rows"], images["skipped"]) == (39, 1)
    assert captions["rows"] == trained["data"]["pairs"] == 39
    # Row by row, each caption is that of its image.
    rows = [json.loads(line) for line in Path("cc3m-images.rows.jsonl").read_text().splitlines()]
    clip: Any = load_embedder(URI, "cpu")
    np.testing.assert_allclose(
        np.load("cc3m-captions.npy"), clip.embed_documents([r["caption"] for r in rows]), atol=1e-5
    )
    numbers = [int(row["caption"].rsplit(" ", 1)[1]) for row in rows]
    assert 25 not in numbers
    expected = clip.embed_images([picture(number) for number in numbers])
    np.testing.assert_allclose(np.load("cc3m-images.npy"), expected, atol=1e-5)
    encoder = Encoder.load(Path("cc3m-encoder"))
    assert encoder.embedder == URI
    assert Path("multimodal.html").stat().st_size > 10_000
    for name in ("coco", "flickr30k"):
        zero_shot(name, clip, encoder)


def zero_shot(name: str, clip: Any, encoder: Encoder) -> None:
    """Hold R@5 of a report against all scores, computed here."""
    images = clip.embed_images([picture(number) for number in range(TESTED)])
    texts = [f"picture number {n}, {i}" for n in range(TESTED) for i in range(5)]
    captions, owners = clip.embed_documents(texts), np.repeat(np.arange(TESTED), 5)
    for direction, measure in (
        ("text-to-image", "image_retrieval_recall@5"),
        ("image-to-text", "text_retrieval_recall@5"),
    ):
        report = json.loads(Path(f"bench-{name}", direction, "report.json").read_text())
        measured = {each["name"]: each["quality"][measure]["mean"] for each in report["systems"]}
        codes = [encoder.encode(each, 12).normalised().to_dense() for each in (captions, images)]
        for system, (asking, answering) in (
            ("dense float32, exact", (captions, images)),
            ("CSR k=12", tuple(codes)),
        ):
            scores = asking @ answering.T  # captions by images
            scores = scores if direction == "text-to-image" else scores.T
            best = np.argsort(-scores, axis=1)[:, :5]
            if direction == "text-to-image":
                right = best == owners[:, None]
            else:
                right = owners[best] == np.arange(TESTED)[:, None]
            # What shares no latent with the query is not found.
            right &= (np.take_along_axis(scores, best, axis=1) > 0) | system.startswith("dense")
            found = right.any(axis=1).mean()
            assert found > 0, "figures that could not be otherwise show nothing"
            assert measured[system] == pytest.approx(found, abs=1e-9), (name, system)


def test_clip_benchmarks_shards_take_the_place_of_karpathys_files(layouts: Csr) -> None:
    samples = {
        f"s{number:04}": {"jpg": picture(number), "txt": f"picture {number}\nanother".encode()}
        for number in range(TESTED)
    }
    shard(Path("flickr30k-webdataset/test/0.tar"), samples)
    Path("flickr30k-webdataset/test/nshards.txt").write_text("1")
    command = ("bench", "image-text", "flickr30k-webdataset", "--embedder", URI, "-o", "out")
    ran = layouts(*command, "--systems", "exact", "--timed", 3, "--quiet")
    assert ran.exit_code == 0, ran.stderr
    report = json.loads(Path("out/text-to-image/report.json").read_text())
    assert (report["task"]["documents"], report["task"]["queries"]) == (TESTED, 2 * TESTED)
