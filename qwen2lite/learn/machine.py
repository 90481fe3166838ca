"""What this machine has, and whether that will do; each line says what to do where it won't."""

import os
import platform
import shutil
import sys

import torch

from qwen2lite.model.device import pick_device, pick_dtype
from qwen2lite.weights.sources import cache_dir, default_model

_NEEDED_DISK = 2 * 10**9
_NEEDED_TORCH = (2, 11)


def check_machine() -> None:
    """Prints a line a question: Python, torch, processor, memory format, disk, weights."""
    device = pick_device()
    dtype = str(pick_dtype(device)).removeprefix("torch.")
    place = cache_dir()
    while not place.exists() and place != place.parent:
        place = place.parent
    free = shutil.disk_usage(place).free if place.exists() else 0  # a drive that isn't there
    version = tuple(int(number) for number in torch.__version__.split("+")[0].split(".")[:2])
    model = default_model()
    _line(
        sys.version_info >= (3, 11), f"Python {platform.python_version()}", "install 3.11 or newer"
    )
    _line(version >= _NEEDED_TORCH, f"torch {torch.__version__}", "pip install -U torch")
    _line(True, f"{os.cpu_count()} processor cores, {platform.machine()}, {platform.system()}", "")
    _line(True, f"the model will run on {device}, in {dtype}", "")
    _line(free > _NEEDED_DISK, f"{free / 1e9:.0f} GB free for models", "make room, 2 GB will do")
    _line(
        model is not None,
        f"weights fetched: {model or 'none'}",
        "run in a terminal: python -m qwen2lite fetch (about 0.5–1 GB; lessons work without)",
    )


def _line(good: bool, found: str, otherwise: str) -> None:
    print(f"✓ {found}" if good else f"✗ {found}: {otherwise}")
