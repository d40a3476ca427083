"""`csr` with a model that says on stdout what it embeds, and waits to be killed at some call.

Arguments: the number of the call to `embed` that never returns, and those of `csr`.
"""

import sys
import time
from typing import Any

import numpy as np

LAST_CALL = int(sys.argv[1])
calls = 0


def say(line: str) -> None:
    """Write a line to stdout at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def embed(images: list[Any]) -> Any:
    """Return the mean colour of each image."""
    global calls
    calls += 1
    if calls > LAST_CALL:
        say("waiting")
        time.sleep(600)
    say(f"embedded {len(images)}")
    return np.stack([np.asarray(image).mean(axis=(0, 1)) for image in images])


if __name__ == "__main__":
    from csr_qdrant.cli.main import app

    sys.modules["image_worker"] = sys.modules["__main__"]
    app(sys.argv[2:])
