"""A GGUF file seen as a Hugging Face checkpoint: its names, its config, its weights as numbers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from qwen2lite.weights.dequantise import DEQUANTISE
from qwen2lite.weights.gguf import KINDS, TensorInfo, read_directory

_CONFIG_KEYS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_OUTER_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_BLOCK_SIZES = {name: (block, block_bytes) for name, block, block_bytes in KINDS.values()}
_CHUNK = 1 << 18
"""Numbers dequantised at once: small enough that what lies between the steps stays in the cache."""


class GGUFCheckpoint:
    """Reads a dense Qwen2 from a .gguf file, one tensor at a time.

    Quantised tensors come back as ordinary numbers, so a 4-bit file costs its full size in memory.
    The file stays open until `close` or the end of a `with`.

    Args:
        path: the file.

    Raises:
        ValueError: damaged, truncated, or not a Qwen2.
    """

    def __init__(self, path: Path):
        metadata, tensors = read_directory(path)
        self._tensors = {hf_name(name): info for name, info in tensors.items()}
        self.config = config_from(metadata, self._tensors, path)
        self.generation_config = {"eos_token_id": _eos_ids(metadata)}
        self._path = path
        self._file = path.open("rb", buffering=0)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name, as Hugging Face spells it, and its shape."""
        return {name: info.shape for name, info in self._tensors.items()}

    def tensor(self, name: str, dtype: torch.dtype) -> torch.Tensor:
        """One tensor, dequantised, on the CPU, in the wanted dtype."""
        info = self._tensors[name]
        block, block_bytes = _BLOCK_SIZES[info.kind]
        dequantise = DEQUANTISE[info.kind]
        blocks = self._read(name, info).view(-1, block_bytes)
        numbers = torch.empty(prod(info.shape), dtype=dtype)
        inference = torch.is_inference_mode_enabled()

        def convert(start: int) -> None:
            piece = blocks[start // block : (start + _CHUNK) // block]
            with torch.inference_mode(inference):  # a thread starts outside of its caller's
                numbers[start : start + _CHUNK] = dequantise(piece).view(-1)

        # Whole chunks side by side, each on one thread: split over threads step by step, the dozen
        # small steps of a kind would all wait for the slowest thread (measured: up to 50 times
        # slower where another program keeps a core busy).
        with _one_thread_each() as threads, ThreadPoolExecutor(threads) as pool:
            list(pool.map(convert, range(0, len(numbers), _CHUNK)))
        return numbers.view(info.shape)

    def _read(self, name: str, info: TensorInfo) -> torch.Tensor:
        raw = torch.empty(info.nbytes, dtype=torch.uint8)
        wanted = raw.numpy().data
        self._file.seek(info.start)
        while wanted:
            count = self._file.readinto(wanted)
            if not count:
                raise ValueError(f"{self._path} ended inside {name}; fetch it again")
            wanted = wanted[count:]
        return raw

    def close(self) -> None:
        """Closes the file; tensors already read stay valid."""
        self._file.close()

    def __enter__(self) -> "GGUFCheckpoint":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Keeps PyTorch from splitting operations; gives the number of threads it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def hf_name(name: str) -> str:
    """Hugging Face's name of a tensor: blk.3.attn_q.bias is model.layers.3.self_attn.q_proj.bias.

    A name that a Qwen2 doesn't have comes back as it is.
    """
    stem, _, leaf = name.rpartition(".")
    if stem in _OUTER_NAMES:
        return f"{_OUTER_NAMES[stem]}.{leaf}"
    start, _, rest = stem.partition(".")
    layer, _, part = rest.partition(".")
    if start == "blk" and part in _LAYER_NAMES:
        return f"model.layers.{layer}.{_LAYER_NAMES[part]}.{leaf}"
    return name


def config_from(
    metadata: dict[str, Any], tensors: dict[str, TensorInfo], path: Path
) -> dict[str, Any]:
    """The config.json that a GGUF's metadata amounts to.

    The vocabulary's size is the number of rows of the embedding, and a file without an output matrix
    ties it to the embedding.

    Raises:
        ValueError: another architecture, no embedding, or a RoPE that is stretched in another way.
    """
    kind = metadata.get("general.architecture")
    if kind != "qwen2":
        raise ValueError(
            f"{path} holds a model of kind {kind!r}; from GGUF this package reads 'qwen2'"
        )
    if "model.embed_tokens.weight" not in tensors:
        raise ValueError(f"{path} has no token_embd.weight; it is not a whole model")
    config = {
        name: metadata[f"qwen2.{key}"]
        for key, name in _CONFIG_KEYS.items()
        if f"qwen2.{key}" in metadata
    }
    if "rms_norm_eps" in config:
        # Stored as float32, where 1e-6 is 9.999999974752427e-07.
        config["rms_norm_eps"] = float(f"{config['rms_norm_eps']:.6g}")
    return {
        "model_type": "qwen2",
        **config,
        "rope_scaling": _rope_scaling(metadata, path),
        "vocab_size": tensors["model.embed_tokens.weight"].shape[0],
        "tie_word_embeddings": "lm_head.weight" not in tensors,
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
    }


def _rope_scaling(metadata: dict[str, Any], path: Path) -> dict[str, Any] | None:
    kind = metadata.get("qwen2.rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind != "yarn":
        raise ValueError(f"{path} stretches RoPE by {kind!r}, and this package knows 'yarn' only")
    return {
        "rope_type": kind,
        "factor": metadata.get("qwen2.rope.scaling.factor"),
        "original_max_position_embeddings": metadata.get(
            "qwen2.rope.scaling.original_context_length"
        ),
    }


def _eos_ids(metadata: dict[str, Any]) -> list[int]:
    """Ids that end a text: the file's own, and both of Qwen's, as its generation_config has them."""
    tokens = metadata.get("tokenizer.ggml.tokens", [])
    ids = [metadata.get("tokenizer.ggml.eos_token_id")]
    ids += [tokens.index(token) for token in ("<|im_end|>", "<|endoftext|>") if token in tokens]
    return list(dict.fromkeys(number for number in ids if number is not None))
