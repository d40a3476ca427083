"""What each Python that a test starts runs first: the hook that lets torchvision be imported."""

import runpy
from pathlib import Path

runpy.run_path(str(Path(__file__).parents[1] / "torchvision_hook.py"))["install"]()
