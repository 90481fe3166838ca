r"""Qwen2 from scratch: the shortest correct and fast one we could write, and the course around it.

Every folder is a part of the course, and imports go down this list:

    weights/   files: where models come from, safetensors, GGUF
    text/      text to token ids and back: byte-level BPE, chat format
    model/     the network: norm, rope, attention, mlp, moe, cache, qwen2
    infer/     using it: sampling, generation
    learn/     the course's tools: checks, hints, your own package

Tensors carry their shape in their names, one letter a dimension:

    B batch               T query position      S key position       D hidden size
    N query heads         K key/value heads     G = N/K              H head size
    R = H/2 rotary pairs  F MLP width           E experts            V vocabulary
    X tokens of a batch in one row (B·T)        L layers
"""
