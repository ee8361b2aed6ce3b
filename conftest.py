"""Makes ``pytest scenarios/`` work in a checkout whose entry point is not installed, and does nothing else.

Where nft-harness is installed, pytest has loaded the same module by its entry point, which bears the module's name:
pytest then knows it and does not load it again.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("harness") is None:
    sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["harness.plugin"]
