"""The two forms of experts in files: a tensor for each matrix, as published, or all experts stacked.

Qwen2's checkpoints have `mlp.experts.3.gate_proj.weight`. transformers 5 holds, and may write,
`mlp.experts.gate_up_proj` [E, 2F, D] and `mlp.experts.down_proj` [E, D, F].
"""

Index = tuple[int | slice, ...]
"""What stands between the brackets: `stacked[index]`. Empty for the whole tensor."""


def published_parts(name: str, shape: tuple[int, ...]) -> dict[str, Index]:
    """The published tensors that a stacked one holds, and where in it each lies.

    Args:
        name: of any tensor; one that isn't a stack of experts is its own only part.
        shape: its shape.
    """
    stem, _, leaf = name.rpartition(".")
    stacked = stem.endswith("mlp.experts") and leaf in ("gate_up_proj", "down_proj")
    if not stacked or len(shape) != 3:
        return {name: ()}
    experts, rows, _ = shape
    places = {"down_proj": slice(rows)}
    if leaf == "gate_up_proj":
        places = {"gate_proj": slice(rows // 2), "up_proj": slice(rows // 2, rows)}
    return {
        f"{stem}.{expert}.{matrix}.weight": (expert, place)
        for expert in range(experts)
        for matrix, place in places.items()
    }
