"""Writing a model as a Hugging Face folder, for every program that reads one."""

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from qwen2lite.weights.published import published_tensors

WRITTEN = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
)  # fmt: skip
"""Names of the files of an export."""


class Config(Protocol):
    """What export needs of a config."""

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""


class Model(Protocol):
    """What export needs of a model: a config, and parameters under the checkpoint's names."""

    @property
    def config(self) -> Config:
        """Becomes config.json."""

    def named_parameters(self) -> Any:
        """As of an nn.Module; a tied matrix is met once."""


class Tokenizer(Protocol):
    """What export needs of a tokenizer."""

    @property
    def eos_ids(self) -> Collection[int]:
        """Ids of the control tokens that end a text or a turn."""

    def save(self, folder: Path, eos_token_id: int | None) -> None:
        """Writes tokenizer.json and tokenizer_config.json."""


def export(
    model: Model,
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    generation_config: dict[str, Any] | None = None,
    max_shard_bytes: int = 5_000_000_000,
) -> Path:
    """Writes config.json, generation_config.json and the weights, in the parameters' own dtype.

    The folder appears only when it is complete: until then its name ends in `.part`, and what breaks
    off, on a full disk for instance, is taken away again.

    Args:
        model: a `Qwen2`.
        folder: doesn't exist yet, or is empty.
        tokenizer: a `Qwen2Tokenizer`, written with its chat template; None leaves it out.
        generation_config: content of generation_config.json; None writes what ends a text.
        max_shard_bytes: no weights file becomes larger, unless a single tensor is.

    Returns:
        The folder.

    Raises:
        ValueError: something is in the folder, or in its `.part`, already; a model that was packed or
            quantised.
    """
    if not any(name.endswith("q_proj.weight") for name, _ in model.named_parameters()):
        raise ValueError(
            f"{type(model).__name__} holds its matrices in another form than a checkpoint; "
            "export the model that it was made from"
        )
    folder = Path(folder).expanduser().absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty; export to a new folder, nothing is overwritten")
    part = folder.with_name(folder.name + ".part")
    clear(part)
    part.mkdir(parents=True)
    try:
        write_model(model, part, tokenizer, generation_config, max_shard_bytes)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if folder.exists():
        folder.rmdir()
    return part.replace(folder)


def clear(part: Path) -> None:
    """Removes what an export left that was killed, and nothing that somebody else may have written."""
    if not part.exists():
        return
    files = list(part.iterdir()) if part.is_dir() else [part]
    if not all(any(map(file.match, WRITTEN)) for file in files):
        raise ValueError(f"{part} is in the way, and holds more than an export; move or rename it")
    shutil.rmtree(part)


def write_model(
    model: Model,
    folder: Path,
    tokenizer: Tokenizer | None,
    generation_config: dict[str, Any] | None,
    max_shard_bytes: int,
) -> None:
    """The files themselves. Experts that a model holds stacked become a tensor for each matrix."""
    tensors = published_tensors(model)
    config = model.config.to_dict()
    dtype = str(next(iter(tensors.values())).dtype).removeprefix("torch.")
    write_json(folder / "config.json", config | {"dtype": dtype})
    ends = config.get("eos_token_id")
    if tokenizer is not None:
        own = [ends] if isinstance(ends, int) else ends or []
        # A text ends with another token than a turn of a chat: whichever comes is to stop it.
        ends = list(dict.fromkeys([*own, *sorted(tokenizer.eos_ids)]))
        tokenizer.save(folder, ends[0] if ends else None)
    write_json(folder / "generation_config.json", generation_config or {"eos_token_id": ends})
    write_weights(tensors, folder, max_shard_bytes)


def write_weights(tensors: dict[str, torch.Tensor], folder: Path, max_shard_bytes: int) -> None:
    """One model.safetensors, or numbered shards and the index that says which tensor is where."""
    shards = split(tensors, max_shard_bytes)
    names = [f"model-{n:05}-of-{len(shards):05}.safetensors" for n in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = ["model.safetensors"]
    for file_name, shard in zip(names, shards, strict=True):
        contents = {name: tensor.cpu().contiguous() for name, tensor in shard.items()}
        # Older transformers, such as 4.41, fail on files that don't say which framework wrote them.
        save_file(contents, folder / file_name, metadata={"format": "pt"})
        # safetensors writes for the owner's eyes only; a class shares its folder.
        shutil.copymode(folder / "config.json", folder / file_name)
    if len(shards) > 1:
        places = {name: f for f, shard in zip(names, shards, strict=True) for name in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": places}
        write_json(folder / "model.safetensors.index.json", index)


def split(tensors: dict[str, torch.Tensor], max_shard_bytes: int) -> list[dict[str, torch.Tensor]]:
    """Fills shards in order, each as far as it goes."""
    shards: list[dict[str, torch.Tensor]] = [{}]
    room = max_shard_bytes
    for name, tensor in tensors.items():
        if shards[-1] and tensor.nbytes > room:
            shards.append({})
            room = max_shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


def write_json(path: Path, values: dict[str, Any]) -> None:
    """JSON as the Hub has it: indented, UTF-8, a line break at the end."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
