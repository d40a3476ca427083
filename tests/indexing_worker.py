"""Runs `index_source` in processes of their own and kills them; not a test itself.

Reads one JSON object of arguments a line and answers each, once its process has ended, with how:
`done`, `killed` or what went wrong. Processes are forked from this one, which has imported
everything and started no thread, so that a run takes milliseconds to begin.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from csr_qdrant import indexing
from csr_qdrant.collection import Collection
from csr_qdrant.embedders import CallableEmbedder
from csr_qdrant.encoder import Encoder
from csr_qdrant.indexing import IndexConfig, index_source
from csr_qdrant.sources import base, open_source
from csr_qdrant.stores import edge  # noqa: F401  (imported now rather than in each process)

D, FLUSH_ROWS = 16, 96
BLOCK_ROWS = {"vectors": 32, "codes": 32, "texts": 16}


def logging_embedder(log: str) -> CallableEmbedder:
    """Return an embedder of texts like `row 17`, which writes each row number to the file `log`."""

    def embed(texts: list[str]) -> npt.NDArray[np.float32]:
        rows = [int(text.split()[1]) for text in texts]
        with Path(log).open("a", buffering=1) as file:
            file.write("".join(f"{row}\n" for row in rows))
        time.sleep(0.002)  # as a model would take its time
        return np.stack([np.random.default_rng(row).standard_normal(D) for row in rows])

    return CallableEmbedder(embed, D, "rows")


def run(arguments: dict[str, Any]) -> None:
    """Index a source into a folder, which is made if it is not there."""
    indexing.FLUSH_ROWS = FLUSH_ROWS
    base.BLOCK_ROWS.update(BLOCK_ROWS)
    folder, embedder = Path(arguments["folder"]), logging_embedder(arguments["log"])
    if folder.exists():
        collection = Collection.open(folder, embedder=embedder)
    else:
        encoder = Encoder.load(arguments["encoder"])
        keep_dense = arguments["keep_dense"]
        collection = Collection.create(folder, encoder, keep_dense=keep_dense, embedder=embedder)
    with collection:
        index_source(open_source(arguments["source"]), collection, IndexConfig(device="numpy"))


def in_child(arguments: dict[str, Any], work: Callable[[dict[str, Any]], None]) -> None:
    """Do the work and end this process."""
    try:
        work(arguments)
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def main(work: Callable[[dict[str, Any]], None] = run) -> None:
    """Answer requests until there are no more; what `work` does with them is killed."""
    for line in sys.stdin:
        arguments = json.loads(line)
        child = os.fork()
        if child == 0:
            in_child(arguments, work)
        if arguments["kill_after_s"] is not None:
            time.sleep(arguments["kill_after_s"])
            os.kill(child, signal.SIGKILL)  # nobody has waited for it, so the id is still its own
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        end = "killed" if killed else "done" if status == 0 else f"status {status}"
        sys.stdout.write(f"{end}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
