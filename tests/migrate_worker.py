"""Runs `migrate` in processes of their own and kills them; not a test itself."""

import sys
from pathlib import Path
from typing import Any

from csr_qdrant.deployment import journal
from csr_qdrant.deployment.migrate import MigrateConfig, migrate
from csr_qdrant.encoder import Encoder
from csr_qdrant.stores import whole_points_edge  # noqa: F401  (imported once, not by each run)

sys.path.insert(0, str(Path(__file__).parent))
from indexing_worker import main


def run(arguments: dict[str, Any]) -> None:
    """Copy the shard in `source` to the folder `target`."""
    journal.FLUSH_POINTS = 64
    config = MigrateConfig(vector="text", batch=16, device="numpy")
    encoder = Encoder.load(arguments["encoder"])
    migrate(arguments["source"], arguments["target"], encoder, config)


if __name__ == "__main__":
    main(run)
