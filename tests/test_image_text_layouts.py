"""COCO's, Karpathy's, Flickr's and webdataset's layouts; what is wrong with them; and vectors."""

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from csr_qdrant.benchmarks.image_text_layouts import CaptionedSource, open_image_text
from csr_qdrant.benchmarks.image_text_metrics import exact_retrieval
from csr_qdrant.benchmarks.image_text_task import ImageTextVectors, embedded, load_vectors
from csr_qdrant.benchmarks.neighbours import Matrix
from csr_qdrant.embedders.image_rows import RowEmbedder
from csr_qdrant.errors import ConfigError, CsrError
from csr_qdrant.images import decoded

COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250), "grey": (120, 120, 120)}


def _picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), COLOURS[colour]).save(file, "PNG")
    return file.getvalue()


def _put(folder: Path, *names: str) -> Path:
    """Write a picture of the colour that each name begins with."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_picture(Path(name).name.split("-")[0].split(".")[0]))
    return folder


def _json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), "utf-8")
    return path


def _listed(source: CaptionedSource) -> dict[str, tuple[str, ...]]:
    rows = list(source.rows())
    assert len(rows) == len(source)
    return {row.id: row.captions for row in rows}


# --- Karpathy ---------------------------------------------------------------------------------


def _sentences(*texts: str) -> list[dict[str, Any]]:
    return [{"tokens": text.split(), "raw": text, "sentid": 1} for text in texts]


def _coco_like(folder: Path) -> Path:
    images = [
        ("val2014", "red-1.jpg", "test", ("A red square.", " Red, all over ")),
        ("val2014", "green-2.jpg", "test", ("green",)),
        ("val2014", "blue-3.jpg", "restval", ("blue",)),
        ("train2014", "grey-4.jpg", "train", ("grey", "dull")),
        ("val2014", "grey-5.jpg", "val", ("grey",)),
    ]
    entries = [
        {"filepath": place, "filename": name, "split": split, "sentences": _sentences(*texts)}
        for place, name, split, texts in images
    ]
    _put(folder, *(f"{place}/{name}" for place, name, *_ in images))
    return _json(folder / "dataset_coco.json", {"dataset": "coco", "images": entries})


def test_karpathys_splits_of_coco(tmp_path: Path) -> None:
    path = _coco_like(tmp_path)
    source = open_image_text(path)
    assert _listed(source) == {
        "val2014/red-1.jpg": ("A red square.", "Red, all over"),
        "val2014/green-2.jpg": ("green",),
    }
    assert [row.data for row in source.rows(1)] == [tmp_path / "val2014" / "green-2.jpg"]
    assert source.missing == () and source.name == str(path)
    assert list(_listed(open_image_text(path, split="train"))) == [
        "val2014/blue-3.jpg",  # restval
        "train2014/grey-4.jpg",
    ]
    assert list(_listed(open_image_text(path, split="val"))) == ["val2014/grey-5.jpg"]
    with pytest.raises(CsrError, match=r"has no split 'dev': choose one of test, train, val$"):
        open_image_text(path, split="dev")
    with pytest.raises(CsrError, match="has no split 'restval'"):
        open_image_text(path, split="restval")


def test_karpathys_splits_of_flickr(tmp_path: Path) -> None:
    entries = [
        {"filename": f"{colour}.jpg", "split": "test", "sentences": _sentences(colour, "a square")}
        for colour in COLOURS
    ]
    path = _json(tmp_path / "dataset_flickr30k.json", {"images": entries})
    images = _put(tmp_path / "flickr30k-images", "red.jpg", "blue.jpg", "grey.jpg")
    source = open_image_text(path, images=images)
    assert list(_listed(source)) == ["red.jpg", "blue.jpg", "grey.jpg"]
    assert list(source.missing) == ["green.jpg"]
    before = source.fingerprint
    assert open_image_text(path, images=images).fingerprint == before
    _put(images, "green.jpg")
    assert open_image_text(path, images=images).fingerprint != before


def test_images_without_their_subfolder_are_found(tmp_path: Path) -> None:
    path = _coco_like(tmp_path)
    images = _put(tmp_path / "flat", "red-1.jpg", "green-2.jpg")
    rows = list(open_image_text(path, images=images).rows())
    assert [row.data for row in rows] == [images / "red-1.jpg", images / "green-2.jpg"]
    assert rows[0].id == "val2014/red-1.jpg"


# --- COCO's own form --------------------------------------------------------------------------


def test_cocos_own_annotations(tmp_path: Path) -> None:
    content = {
        "info": {},
        "images": [{"id": 9, "file_name": "red.jpg"}, {"id": 4, "file_name": "val2014/blue.jpg"}],
        "annotations": [
            {"image_id": 4, "id": 1, "caption": "Blue."},
            {"image_id": 9, "id": 2, "caption": "Red.\n"},
            {"image_id": 4, "id": 3, "caption": "Still blue."},
        ],
    }
    path = _json(tmp_path / "captions_val2017.json", content)
    images = _put(tmp_path / "val2014", "red.jpg", "blue.jpg")
    source = open_image_text(path, images=images, split="whatever")  # one file is one split
    expected = {"red.jpg": ("Red.",), "val2014/blue.jpg": ("Blue.", "Still blue.")}
    assert _listed(source) == expected
    content["annotations"] += [{"image_id": 5, "id": 4, "caption": "?"}]  # type: ignore[operator]
    with pytest.raises(CsrError, match="captions of 1 images that it does not list, such as 5"):
        open_image_text(_json(path, content), images=images)


# --- Flickr's text ----------------------------------------------------------------------------


def test_flickrs_text(tmp_path: Path) -> None:
    path = _put(tmp_path, "red.jpg", "blue.jpg") / "flickr30k_test_karpathy.txt"
    lines = [
        "image,caption",
        "blue.jpg,Blue, and nothing else .",
        'red.jpg,"Red, they say ""crimson"", all over"',
        "",
        "blue.jpg, as blue.jpg, as can be ",
    ]
    path.write_text("\r\n".join(lines), "utf-8")
    assert _listed(open_image_text(path)) == {
        "blue.jpg": ("Blue, and nothing else .", "as blue.jpg, as can be"),
        "red.jpg": ('Red, they say "crimson", all over',),
    }
    path.write_text("image,caption\nblue.png,Blue\n", "utf-8")
    with pytest.raises(CsrError, match=r"line 2 is not NAME.jpg,CAPTION: copy the file anew"):
        open_image_text(path)


# --- webdataset -------------------------------------------------------------------------------


def _shard(path: Path, samples: dict[str, dict[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for key, members in samples.items():
            for kind, content in members.items():
                info = tarfile.TarInfo(f"{key}.{kind}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def _shards(folder: Path, shards: int) -> Path:
    for number in range(shards):
        colour = list(COLOURS)[number % 4]
        captions = f"{colour} one\n{colour} two, of shard {number}\n".encode()
        sample = {"png": _picture(colour), "txt": captions}
        _shard(folder / "test" / f"{number}.tar", {f"s{number:07d}": sample})
    (folder / "test" / "nshards.txt").write_text(f"{shards}\n")
    return folder


def test_shards_stand_by_their_numbers(tmp_path: Path) -> None:
    folder = _shards(tmp_path, 11)
    source = open_image_text(folder)
    rows = list(source.rows())
    assert [row.captions[1] for row in rows] == [
        f"{list(COLOURS)[n % 4]} two, of shard {n}" for n in range(11)
    ]
    assert rows[2].data == _picture("blue")
    assert [row.id for row in source.rows(9)] == [row.id for row in rows[9:]]
    (folder / "test" / "nshards.txt").unlink()
    assert [row.id for row in open_image_text(folder).rows()] == [row.id for row in rows]
    assert [row.id for row in open_image_text(folder / "test").rows()] == [row.id for row in rows]


def test_shards_that_cannot_be_used(tmp_path: Path) -> None:
    folder = _shards(tmp_path / "set", 3)
    with pytest.raises(CsrError, match=r"has no split 'val': choose one of test$"):
        open_image_text(folder, split="val")
    (folder / "test" / "nshards.txt").write_text("five")
    with pytest.raises(CsrError, match="must hold the number of shards, got 'five'"):
        open_image_text(folder)
    (folder / "test" / "nshards.txt").write_text("5")
    with pytest.raises(CsrError, match=r"lacks 2 of the 5 shards .* such as 3.tar: download them"):
        open_image_text(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CsrError, match=r"has no split 'test': it has none in SPLIT/0.tar"):
        open_image_text(tmp_path / "empty")
    _shard(tmp_path / "mute" / "test" / "0.tar", {"s1": {"png": _picture("red"), "txt": b" \n"}})
    with pytest.raises(CsrError, match=r"image '0/s1' has no captions in a .txt: add"):
        list(open_image_text(tmp_path / "mute").rows())


# --- bad annotations --------------------------------------------------------------------------


def _entry(**changes: Any) -> dict[str, Any]:
    entry = {"filename": "red.jpg", "split": "test", "sentences": _sentences("red")}
    return {k: v for k, v in {**entry, **changes}.items() if v is not None}


BAD: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", r"cannot be read as JSON \("),
    "a list": ("[]", "must hold an object with a list of images"),
    "no images": ("{}", "must have lists of objects as 'images'"),
    "images of another kind": ('{"images": ["red.jpg"]}', "must have lists of objects as 'images'"),
    "no split": ([_entry(split=None)], "must have texts as 'split', got None"),
    "no name": ([_entry(filename=7)], "must have texts as 'filename', got 7"),
    "no sentences": ([_entry(sentences=None)], "must have lists of objects as 'sentences'"),
    "a way out": ([_entry(filename="../red.jpg")], "names an image '../red.jpg' outside of"),
    "an absolute path": ([_entry(filepath="/etc")], "names an image '/etc' outside of its folder"),
    "no captions": ([_entry(sentences=[])], "image 'red.jpg' has no captions: remove it, or"),
    "blank captions": ([_entry(sentences=_sentences(" "))], "image 'red.jpg' has no captions"),
    "twice": ([_entry(), _entry()], "image 'red.jpg' is listed twice: remove one of them"),
    "all missing": (
        [_entry(filename="a.jpg"), _entry(filename="b.jpg")],
        r"none of the 2 images of .*x.json lies in .*, such as a.jpg: name the folder",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_annotations(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    path = _put(tmp_path, "red.jpg") / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps({"images": content}))
    with pytest.raises(CsrError, match=message) as error:
        open_image_text(path)
    assert "\n" not in str(error.value)


def test_annotations_and_folders_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CsrError, match=r"none.json does not exist"):
        open_image_text(tmp_path / "none.json")
    with pytest.raises(CsrError, match="none is no folder: name the one that holds the images"):
        open_image_text(_coco_like(tmp_path), images=tmp_path / "none")


# --- vectors ----------------------------------------------------------------------------------


class _Colours:
    """Embeds images as their mean colour, texts as the colours that they name."""

    uri, dimension = "colours", 3

    def prepare(self, image: Image.Image) -> npt.NDArray[Any]:
        return np.array([band.mean() for band in np.moveaxis(np.asarray(image), 2, 0)])

    def embed_prepared(self, prepared: Sequence[Any]) -> Matrix:
        return np.stack(prepared).astype(np.float32)

    def embed_images(self, images: Sequence[Any]) -> Matrix:
        return self.embed_prepared([self.prepare(decoded(image)) for image in images])

    def texts(self, texts: Sequence[str]) -> Matrix:
        named = [[sum(COLOURS[c][i] for c in COLOURS if c in t) for i in range(3)] for t in texts]
        return np.array(named, np.float32) + 1


def _embedded(source: CaptionedSource) -> ImageTextVectors:
    colours = _Colours()
    return embedded(source, RowEmbedder(colours, batch_size=2).batches, colours.texts)


def test_images_and_captions_become_vectors(tmp_path: Path) -> None:
    vectors = _embedded(open_image_text(_shards(tmp_path / "set", 4)))
    assert vectors.image_of.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    np.testing.assert_allclose(vectors.images, list(COLOURS.values()))
    assert vectors.left_out is None
    by_caption, by_image = exact_retrieval(vectors.images, vectors.captions, vectors.image_of)
    assert by_caption.values["image_retrieval_recall@1"].tolist() == [1.0] * 8
    assert by_image.values["text_retrieval_recall@1"].tolist() == [1.0] * 4
    vectors.save(tmp_path / "vectors")
    again = load_vectors(tmp_path / "vectors")
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(again.images, vectors.images)
    np.testing.assert_array_equal(again.captions, vectors.captions)
    np.testing.assert_array_equal(again.image_of, vectors.image_of)
    assert again.info == vectors.info and again.info["source"]
    with pytest.raises(ConfigError, match="already exists"):
        vectors.save(tmp_path / "vectors")


def test_images_that_are_missing_or_do_not_decode_are_listed(tmp_path: Path) -> None:
    path = _coco_like(tmp_path)
    (tmp_path / "val2014" / "red-1.jpg").write_bytes(b"no picture")
    vectors = _embedded(open_image_text(path))
    assert len(vectors.images) == 1 and vectors.image_of.tolist() == [0]  # green alone is left
    assert vectors.left_out == (
        f"1 of 2 images of {path} were left out: val2014/red-1.jpg (no picture of a known format)"
    )
    (tmp_path / "val2014" / "blue-3.jpg").unlink()
    train = _embedded(open_image_text(path, split="train"))
    assert list(train.skipped) == ["val2014/blue-3.jpg (missing)"]
    train.save(tmp_path / "vectors")
    assert load_vectors(tmp_path / "vectors").skipped == ["val2014/blue-3.jpg (missing)"]
    (tmp_path / "val2014" / "green-2.jpg").write_bytes(b"")
    with pytest.raises(CsrError, match=r"none of the 2 images of .* decodes: val2014/red-1.jpg \("):
        _embedded(open_image_text(path))


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    rows = np.ones((1, 2), np.float32)
    skipped = [f"{n}.jpg (missing)" for n in range(8)]
    vectors = ImageTextVectors(
        name="x", images=rows, captions=rows, image_of=np.array([0]), skipped=skipped
    )
    assert vectors.left_out is not None
    assert vectors.left_out.startswith("8 of 9 images of x were left out: 0.jpg (missing), 1.jpg")
    assert vectors.left_out.endswith("4.jpg (missing) and 3 more")


def test_vectors_that_do_not_belong_together(tmp_path: Path) -> None:
    def make(images: Any = 3, captions: Any = 4, owners: Any = (0, 1, 2, 2)) -> ImageTextVectors:
        both = [
            np.ones((x, 5), np.float32) if isinstance(x, int) else x for x in (images, captions)
        ]
        return ImageTextVectors(
            name="x", images=both[0], captions=both[1], image_of=np.asarray(owners)
        )

    assert len(make().images) == 3
    for arguments, message in (
        ({"captions": np.ones((4, 6), np.float32)}, r"of one model, got \(3, 5\) and \(4, 6\)"),
        ({"images": np.ones(3, np.float32)}, r"of one model, got \(3,\)"),
        ({"owners": (0, 1, 2)}, r"for each of 4 captions, got int64 of shape \(3,\)"),
        ({"owners": (0.0, 1.0, 2.0, 2.0)}, "got float64 of shape"),
        ({"owners": (0, 1, 2, 3)}, r"captions of images outside of 0..2"),
        ({"owners": (0, 1, -1, 2)}, r"captions of images outside of 0..2"),
        ({"owners": (0, 0, 2, 2)}, "got none of 1 of 3, the first is row 1"),
        ({"images": 0, "captions": 0, "owners": np.empty(0, np.int64)}, "got none of 0 of 0"),
        ({"images": np.array([[1, np.nan]] * 3), "captions": np.ones((4, 2))}, "image 0 has NaN"),
        ({"captions": np.array([[1.0] * 5] * 3 + [[np.inf] * 5])}, "caption 3 has NaN"),
    ):
        with pytest.raises(CsrError, match=message):
            make(**arguments)
    with pytest.raises(CsrError, match=r"images.npy does not exist"):
        load_vectors(tmp_path)
    make().save(tmp_path / "x")
    (tmp_path / "x" / "info.json").write_text("[1]")
    with pytest.raises(CsrError, match=r"info.json cannot be read"):
        load_vectors(tmp_path / "x")
