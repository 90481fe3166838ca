"""A quantised model: made once from a checkpoint, and kept in the cache for the next time."""

import hashlib
import json
import os
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from qwen2lite.infer.packed import PackedQwen2, is_plain
from qwen2lite.infer.quantized_products import Int4Linear, Int8Linear
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.loading import WithoutInitialising
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.weights.sources import cache_dir, resolve

CACHE_LINE = 64
"""Bytes. A mapped tensor is to begin with one: the kernel for 4 bits takes a quarter longer else."""

LINEARS: dict[str, type[Int8Linear] | type[Int4Linear]] = {"int8": Int8Linear, "int4": Int4Linear}


def load_quantized(source: str | Path, bits: str) -> PackedQwen2:
    """A model for generating on the CPU, with 8 or 4 bits a weight.

    The first time takes as long as loading in bfloat16 and some seconds more; afterwards the file in
    the cache is mapped, which takes none. Embeddings stay bfloat16: a lookup reads a single row.

    Args:
        source: as in `Qwen2.from_pretrained`.
        bits: "int8" or "int4".

    Raises:
        FileNotFoundError: no such model.
        ValueError: other bits; a model with experts or dual chunks; groups that don't divide a row.
    """
    if bits not in LINEARS:
        raise ValueError(f"weights can be quantised to {' or '.join(LINEARS)}, not to {bits!r}")
    path = quantized_path(source, bits)
    try:
        return _read(path, bits)
    except (FileNotFoundError, SafetensorError):  # not there, or cut short
        pass
    model = Qwen2.from_pretrained(source, torch.bfloat16, "cpu")
    if not is_plain(model):
        raise ValueError(
            f"{source} can't be quantised: only models of dense layers with plain attention can; "
            "run it in bfloat16"
        )
    packed = PackedQwen2(model, LINEARS[bits])
    try:
        _write(packed, path)
    except (OSError, SafetensorError) as error:  # the latter where the disk is full
        warnings.warn(
            f"the quantised model couldn't be kept in {path.parent} ({error}); it is made anew next "
            "time",
            stacklevel=2,
        )
    return packed


def quantized_path(source: str | Path, bits: str) -> Path:
    """Where the quantised form of a model is kept.

    The name changes with the file, or the weights and config of a folder, with their size and time, and
    with the order in which this processor and this release of PyTorch keep the numbers: what is found
    is what would be made.
    """
    place = resolve(source).resolve()
    files = [place]
    if place.is_dir():
        files = [*sorted(place.glob("*.safetensors")), *place.glob("config.json")]
    facts = [torch.__version__, torch.backends.cpu.get_cpu_capability(), place.as_posix()]
    facts += [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
    return cache_dir() / "quantized" / f"{place.stem}-{bits}-{key}.safetensors"


def _write(packed: PackedQwen2, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    try:
        config = json.dumps(packed.config.to_dict())
        save_file(packed.state_dict(), part, metadata={"config": config})
        # Tensors follow a header, which spaces in it make longer. All are whole cache lines.
        with part.open("rb") as file:
            header = 8 + int.from_bytes(file.read(8), "little")
        config += " " * (-header % CACHE_LINE)
        save_file(packed.state_dict(), part, metadata={"config": config})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _read(path: Path, bits: str) -> PackedQwen2:
    if not path.exists():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        config = Qwen2Config.from_dict(json.loads(file.metadata()["config"]))
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    with torch.device("meta"), WithoutInitialising():
        shape = Qwen2(config)
    packed = PackedQwen2(shape, LINEARS[bits])
    packed.load_state_dict(state, strict=False, assign=True)
    for name in state.keys() - packed.state_dict().keys():
        owner, _, buffer = name.rpartition(".")
        packed.get_submodule(owner).register_buffer(buffer, state[name])
    return packed
