"""Runs `attach` and `detach` in processes of their own and kills them; not a test itself."""

import sys
from pathlib import Path
from typing import Any

from csr_qdrant.deployment import journal
from csr_qdrant.deployment.attach import AttachConfig, attach
from csr_qdrant.deployment.detach import detach
from csr_qdrant.encoder import Encoder
from csr_qdrant.stores.edge_writer import EdgeCodeWriter

sys.path.insert(0, str(Path(__file__).parent))
from indexing_worker import main


def run(arguments: dict[str, Any]) -> None:
    """Attach to the shard in `folder`, or, with `detach`, detach from it."""
    journal.FLUSH_POINTS = 64
    if arguments.get("detach"):
        with EdgeCodeWriter.open(arguments["folder"]) as writer:
            detach(writer)
        return
    config = AttachConfig(vector="text", batch=16, device="numpy")
    report = attach(arguments["folder"], Encoder.load(arguments["encoder"]), config)
    assert report.complete, report


if __name__ == "__main__":
    main(run)
