"""One view of a checkpoint, whatever the file: its config, and its tensors by their names."""

from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch

from qwen2lite.weights.gguf_checkpoint import GGUFCheckpoint
from qwen2lite.weights.hf import HFCheckpoint
from qwen2lite.weights.sources import resolve


class Checkpoint(Protocol):
    """What a loader needs of a file. Closing it frees the file, not the tensors."""

    config: dict[str, Any]
    """As in config.json."""
    generation_config: dict[str, Any]
    """As in generation_config.json; empty where there is none."""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name, as Hugging Face spells it, and its shape."""

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, on the CPU, in the wanted dtype."""

    def __enter__(self) -> "Checkpoint": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Opens what a name, a Hugging Face folder or a .gguf file stands for. Downloads nothing.

    Raises:
        FileNotFoundError: nothing there, with the command that fetches it.
        ValueError: the file is damaged or of another kind.
    """
    path = resolve(source)
    return HFCheckpoint(path) if path.is_dir() else GGUFCheckpoint(path)
