"""Ours and others' programs for the same model, loaded and timed in the same way."""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.infer.clock import peak_bytes
from qwen2lite.infer.generate import generate_ids
from qwen2lite.weights.export import export
from qwen2lite.weights.sources import cache_dir


class Side(Protocol):
    """A loaded model."""

    def read(self, ids: Sequence[int]) -> None:
        """Reads a prompt and scores its last position."""

    def write(self, ids: Sequence[int], count: int) -> list[float]:
        """Writes exactly `count` tokens after a prompt, the likeliest each; when each one came."""

    def memory(self) -> int:
        """Bytes that were in use at most: the process's on a CPU, the device's on a GPU."""


class Ours:
    """This package.

    Args:
        model: from `infer.load`.
        write_ids: gives the ids, as `generate_ids` does.
    """

    def __init__(self, model: Qwen2, write_ids: Callable[..., Iterator[int]] = generate_ids):
        self.model, self.write_ids = model, write_ids

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> None:
        """See `Side`."""
        ids_BT = torch.tensor([list(ids)], device=self.model.device)
        self.model(ids_BT, self.model.new_cache(len(ids)), last_only=True).argmax().item()

    def write(self, ids: Sequence[int], count: int) -> list[float]:
        """See `Side`."""
        return [time.perf_counter() for _ in self.write_ids(self.model, ids, count)]

    def memory(self) -> int:
        """See `Side`."""
        return device_memory(self.model.device)


class Transformers:
    """transformers, as it comes.

    Args:
        model: one that is loaded, or the folder to load it from.
        kind: bfloat16, float16 or float32.
        device: where it runs.
        settings: further ones of its `generate`.
    """

    def __init__(self, model: Any, kind: str = "bfloat16", device: str = "cpu", **settings: Any):
        self.settings = settings
        if isinstance(model, str | Path):
            import transformers

            transformers.utils.logging.disable_progress_bar()
            load = transformers.AutoModelForCausalLM.from_pretrained
            model = load(model, dtype=getattr(torch, kind), device_map=device)
        self.model = model.eval()

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> None:
        """See `Side`."""
        ids_BT = torch.tensor([list(ids)], device=self.model.device)
        self.model(ids_BT, use_cache=True, logits_to_keep=1).logits.argmax().item()

    def write(self, ids: Sequence[int], count: int) -> list[float]:
        """See `Side`."""
        ticks = Ticks()
        ids_BT = torch.tensor([list(ids)], device=self.model.device)
        limits = {"max_new_tokens": count, "min_new_tokens": count, "pad_token_id": 0}
        settings = {"do_sample": False, "attention_mask": torch.ones_like(ids_BT), **limits}
        self.model.generate(ids_BT, streamer=ticks, **settings, **self.settings)
        return ticks.times[1:]  # the first is the prompt's

    def memory(self) -> int:
        """See `Side`."""
        return device_memory(self.model.device)


class Ticks:
    """A streamer of transformers' that notes when it is given something."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: object) -> None:
        """Called with the prompt, and then with each token."""
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Called last."""


class LlamaCpp:
    """llama.cpp through llama-cpp-python, on the CPU.

    Args:
        path: a .gguf file.
        threads: for both reading and writing.
    """

    def __init__(self, path: str | Path, threads: int):
        import llama_cpp

        self.model = llama_cpp.Llama(
            str(path), n_ctx=2048, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def read(self, ids: Sequence[int]) -> None:
        """See `Side`."""
        self.model.reset()
        self.model.eval(list(ids))

    def write(self, ids: Sequence[int], count: int) -> list[float]:
        """See `Side`."""
        times: list[float] = []
        self.model.reset()
        for _ in self.model.generate(list(ids), temp=0.0, repeat_penalty=1.0):
            times.append(time.perf_counter())
            if len(times) == count:
                break
        return times

    def memory(self) -> int:
        """See `Side`."""
        return peak_bytes()


def device_memory(device: torch.device) -> int:
    """Most bytes in use so far, on a GPU or else by this process."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_bytes()


def as_folder(path: Path) -> str:
    """The model as a folder of bfloat16 safetensors: itself, or written once into the cache.

    transformers takes ten times as long to read a .gguf file.

    Args:
        path: a folder or a .gguf file.
    """
    if path.is_dir():
        return str(path)
    facts = f"{path.resolve()} {path.stat().st_size} {path.stat().st_mtime_ns}"
    key = hashlib.sha256(facts.encode()).hexdigest()[:12]
    folder = cache_dir() / f"{path.stem}-as-bfloat16-{key}"
    if not folder.exists():
        model = Qwen2.from_pretrained(path, torch.bfloat16, "cpu")
        export(model, folder, Qwen2Tokenizer.from_pretrained(path))
    return str(folder)
