r"""Qwen2 from scratch: the shortest correct and fast one we could write, and the course around it.

Every folder is a part of the course, and imports go down this list:

    weights/   files: where models come from, safetensors, GGUF
    text/      text to token ids and back: byte-level BPE, chat format
    model/     the network: norm, rope, attention, mlp, moe, cache, qwen2
    infer/     using it: sampling, generation, batches; packed, in fewer bits, compiled
    train/     making it: corpus, loss, optimizer, loop, checkpoints
    evaluate/  how good it is: perplexity, examinations, keys in long texts
    align/     an assistant of it: answers learnt from conversations
    learn/     the course's tools: checks, hints, your own package
    commands/  the longer commands of python -m qwen2lite

Tensors carry their shape in their names, one letter a dimension:

    B batch               T query position      S key position       D hidden size
    N query heads         K key/value heads     G = N/K              H head size
    R = H/2 rotary pairs  F MLP width           E experts            V vocabulary
    X tokens of a batch in one row (B·T)        L layers
    Q, C queries and columns of a tile, where R is its rows               P pieces
"""

import importlib
from typing import Any

_FRONT_DOOR = {
    "CONFIGS": "qwen2lite.model.config",
    "Parts": "qwen2lite.model.parts",
    "Qwen2": "qwen2lite.model.qwen2",
    "Qwen2Config": "qwen2lite.model.config",
    "Qwen2Tokenizer": "qwen2lite.text.tokenizer",
    "Sampling": "qwen2lite.infer.sample",
    "generate": "qwen2lite.infer.generate",
}
__all__ = list(_FRONT_DOOR)


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for, so that text/ alone never loads torch."""
    if name not in _FRONT_DOOR:
        raise AttributeError(f"qwen2lite has no {name!r}; it offers {', '.join(__all__)}")
    return getattr(importlib.import_module(_FRONT_DOOR[name]), name)
