"""Reads files in a process of its own and tells how much memory each took: JSON to stdout.

Arguments: pairs of a file and the file beside it, or "-": `ids:PATH` or `payload:PATH`.
"""

import json
import sys
import warnings
from pathlib import Path

from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import CsrError
from csr_qdrant.sources import open_source
from csr_qdrant.sources.base import BLOCK_ROWS
from csr_qdrant.sources.images import open_images

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def memory(line: str) -> int:
    """Return a line of the process's status, in bytes."""
    text = STATUS.read_text().partition(f"{line}:")[2]
    return int(text.split()[0]) * 1024


def read(path: Path, beside: str) -> None:
    """Read the whole file in blocks, as indexing does."""
    if path.is_dir():
        Encoder.load(path)
    elif path.suffix == ".tar":
        for _ in open_images(path).rows():
            pass
    else:
        kind, _, other = beside.partition(":")
        source = open_source(path, **({kind: other} if other else {}))
        for _ in source.blocks(BLOCK_ROWS[source.kind]):
            pass


def main() -> None:
    """Read each file."""
    warnings.simplefilter("ignore")
    told = []
    for path, beside in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        RESET.write_text("5")  # the peak begins anew
        before = memory("VmRSS")
        try:
            read(Path(path), beside)
            said = None
        except CsrError as error:
            said = str(error)
        told.append({"said": said, "bytes": memory("VmHWM") - before})
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
