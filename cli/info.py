"""`csr info`: what an encoder, a linear adapter, a collection or a file of codes is."""

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from csr_qdrant.cli.options import AsJson, configured
from csr_qdrant.cli.output import Output, table
from csr_qdrant.cli.places import Place, ServerSettings, place_of
from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.linear import DESCRIPTION, LinearAdapter

_CODES_ROWS = 1 << 16  # of a file of codes, read at once

Target = Annotated[
    Path | None,
    typer.Argument(
        metavar="PATH", help="Folder of an encoder, an adapter or a collection, or a file of codes."
    ),
]


@configured
def info(server: ServerSettings, path: Target = None, json: AsJson = False) -> None:
    """Describe an encoder, a linear adapter, a collection or a file of codes."""
    out = Output(as_json=json)
    if path is None or server.given or (path / "collection.json").is_file():
        with closing(place_of(path, server)) as place:
            described = _collection(place)
    elif (path / DESCRIPTION).is_file():
        described = _adapter(path)
    elif path.is_dir() or path.as_posix().startswith("hf:"):
        described = _encoder(path)
    elif path.suffix == ".safetensors":
        described = _codes(path)
    else:
        problem = "is no encoder, collection or file of codes" if path.exists() else "is not there"
        raise CsrError(f"{path} {problem}: give what csr train, csr index or csr embed wrote")
    out.result(described, *_views(described))


def _encoder(folder: Path) -> dict[str, Any]:
    encoder = Encoder.load(folder)
    known = encoder.info
    arrays = (encoder.weight, encoder.latent_bias, encoder.pre_bias)
    validations = known.get("validations") or [None]
    return {
        "type": "encoder",
        "path": str(folder),
        "fingerprint": encoder.fingerprint,
        "d": encoder.d,
        "h": encoder.h,
        "k": encoder.k,
        "embedder": encoder.embedder,
        "layer_norm": encoder.layer_norm,
        "weight_bytes": sum(array.nbytes for array in arrays),
        "data": known.get("data"),
        "training": known.get("training"),
        "steps": known.get("steps"),
        "seconds": known.get("seconds"),
        "validation": validations[-1],
    }


def _adapter(folder: Path) -> dict[str, Any]:
    adapter = LinearAdapter.load(folder)
    known = adapter.info
    validations = known.get("validations") or [None]
    return {
        "type": "adapter",
        "path": str(folder),
        "fingerprint": adapter.fingerprint,
        "d": adapter.d,
        "dims": list(adapter.dims),
        "centred": adapter.mean is not None,
        "embedder": known.get("embedder"),
        "data": known.get("data"),
        "supervision": known.get("supervision"),
        "training": known.get("training"),
        "steps": known.get("steps"),
        "seconds": known.get("seconds"),
        "validation": validations[-1],
    }


def _collection(place: Place) -> dict[str, Any]:
    from csr_qdrant.indexing import PROGRESS_KEY

    found = place.existing()
    if found is None:
        raise CsrError(f"there is no collection at {place.name}: make one with `csr index`")
    with closing(place.open_store()) as store:
        counts, sizes = store.info(), place.sizes(store)
    sources = [value for key, value in found.metadata.items() if key.startswith(PROGRESS_KEY)]
    return {
        "type": "collection",
        "location": place.name,
        "points": counts.points,
        "segments": counts.segments,
        "indexed_vectors": counts.indexed_vectors,
        "fingerprint": found.identity.fingerprint,
        "d": found.identity.d,
        "h": found.identity.h,
        "k": found.identity.k,
        "embedder": found.identity.embedder,
        "datatype": found.schema.datatype,
        "keep_dense": found.schema.dense_dim is not None,
        "index_bytes": sizes.code_index if sizes else None,
        "index_bytes_per_vector": (
            round(sizes.code_index / counts.points, 1) if sizes and counts.points else None
        ),
        "disk_bytes": sizes.allocated if sizes else None,
        "sources": sources,
    }


def _codes(path: Path) -> dict[str, Any]:
    from csr_qdrant.codes_file import CodesFile

    rows = latents = empty = longest = 0
    with CodesFile(path) as file:
        for start in range(0, len(file), _CODES_ROWS):
            lengths = file.read(start, start + _CODES_ROWS).lengths
            rows += len(lengths)
            latents += int(lengths.sum())
            empty += int((lengths == 0).sum())
            longest = max(longest, int(lengths.max()))
        h = file.h
    return {
        "type": "codes",
        "path": str(path),
        "rows": rows,
        "h": h,
        "mean_active": round(latents / rows, 3) if rows else None,
        "most_active": longest,
        "without_code": empty,
        "file_bytes": path.stat().st_size,
    }


def _views(described: dict[str, Any]) -> list[Any]:
    """Return a heading and a table of what is known; nested values stand below each other."""
    name = described.get("path") or described["location"]
    rows: list[tuple[str, str]] = []
    for key, value in described.items():
        if key in ("type", "path", "location") or value is None:
            continue
        if isinstance(value, dict):
            rows += [(f"{key}.{each}", _word(of)) for each, of in value.items() if of is not None]
        else:
            rows.append((key, _word(value)))
    return [f"{described['type']} {name}", table(("what", "value"), rows)]


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "; ".join(map(_word, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_word(of)}" for key, of in value.items())
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
