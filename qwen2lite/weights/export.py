"""Writing a model as a Hugging Face folder, for transformers and whatever else reads one."""

import json
import tempfile
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import save_file


class Exportable(Protocol):
    """A model with a config that can say itself, such as `Qwen2`."""

    config: Any

    def named_parameters(self) -> Any:
        """Names, as in a checkpoint, and parameters."""


def export(
    model: Exportable, folder: str | Path, generation_config: dict[str, Any] | None = None
) -> Path:
    """Writes config.json, generation_config.json and model.safetensors.

    The folder appears only when it is complete. A tied output matrix is the embedding and isn't
    written a second time.

    Args:
        model: a dense model.
        folder: must not exist yet, or be empty.
        generation_config: sampling defaults and stop tokens, if any.

    Raises:
        ValueError: the folder holds something.
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty; name a new folder, nothing is overwritten")
    folder.parent.mkdir(parents=True, exist_ok=True)
    tensors = {n: p.detach().cpu().contiguous() for n, p in model.named_parameters()}
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as aside:
        _write(Path(aside) / "config.json", {**model.config.to_dict(), "dtype": dtype})
        _write(Path(aside) / "generation_config.json", generation_config or {})
        save_file(tensors, Path(aside) / "model.safetensors", metadata={"format": "pt"})
        if folder.exists():
            folder.rmdir()
        Path(aside).replace(folder)
    return folder


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8", newline="\n")
