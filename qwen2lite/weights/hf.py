"""A Hugging Face folder: config.json beside safetensors, in one file or in shards."""

import json
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from qwen2lite.weights.published import Index, published_parts

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class HFCheckpoint:
    """Reads a model folder as transformers writes it, one tensor at a time.

    Args:
        folder: holds config.json and the weights.

    Raises:
        FileNotFoundError: no config.json, no weights, or a shard is missing.
        ValueError: a damaged file, or weights in pickle only, which nothing here reads.
    """

    def __init__(self, folder: Path):
        self._open_files = ExitStack()
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json; is it a model folder?")
        self.config = read_json(folder / "config.json")
        generation = folder / "generation_config.json"
        self.generation_config = read_json(generation) if generation.is_file() else {}
        self._places: dict[str, tuple[Any, str, Index]] = {}
        for path in weight_files(folder):
            file = self._open(path)
            for stored in file.keys():  # noqa: SIM118 (not a dict)
                parts = published_parts(stored, tuple(file.get_slice(stored).get_shape()))
                self._places |= {name: (file, stored, index) for name, index in parts.items()}

    def _open(self, path: Path) -> Any:
        try:
            return self._open_files.enter_context(safe_open(path, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is truncated or damaged ({error}); fetch it again") from None

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape; of stacked experts, each matrix's own."""
        found = {}
        for name, (file, stored, index) in self._places.items():
            whole = torch.empty(file.get_slice(stored).get_shape(), device="meta")
            found[name] = tuple(whole[index].shape)
        return found

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, on the CPU, in the wanted dtype.

        In the file's own dtype it is a view of the file, mapped privately: loading reads nothing
        until the numbers are used, processes share one copy, writing to the tensor copies the page
        and leaves the file alone. The map outlives `close`, and a file that is renamed over or
        deleted. Only a file overwritten in place would show through, which `fetch` and `export`
        never do.
        """
        file, stored, index = self._places[name]
        return file.get_tensor(stored)[index].to(dtype)

    def close(self) -> None:
        """Closes the files; tensors already read stay valid."""
        self._open_files.close()

    def __enter__(self) -> "HFCheckpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        ValueError: it isn't one.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch the model again") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} should hold a JSON object, not a {type(values).__name__}")
    return values


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that together are the model.

    Raises:
        FileNotFoundError: there are none, or a shard is missing.
        ValueError: only pickle files are there.
    """
    if (folder / _INDEX).is_file():
        weight_map = read_json(folder / _INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise ValueError(f"{folder / _INDEX} has no weight_map; fetch the model again")
        files = [folder / name for name in sorted(set(weight_map.values()))]
    else:
        files = [folder / _WHOLE]
    missing = [file for file in files if not file.is_file()]
    if not missing:
        return files
    if len(files) == 1 and any(folder.glob("*.bin")):
        raise ValueError(
            f"{folder} holds its weights as pickle only (.bin), which can run code when it is read; "
            "nothing here reads pickle: get the model as safetensors"
        )
    raise FileNotFoundError(
        f"{folder} lacks {', '.join(file.name for file in missing)}; fetch the model again"
    )
