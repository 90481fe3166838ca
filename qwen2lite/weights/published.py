"""Tensors that have other names in files than in a model: stacked experts, and a reward's row.

Qwen2's checkpoints have `mlp.experts.3.gate_proj.weight`. transformers 5 holds, and may write,
`mlp.experts.gate_up_proj` [E, 2F, D] and `mlp.experts.down_proj` [E, D, F].
"""

from typing import Any

Index = tuple[int | slice, ...]
"""What stands between the brackets: `stacked[index]`. Empty for the whole tensor."""


def published_parts(name: str, shape: tuple[int, ...]) -> dict[str, Index]:
    """The published tensors that one of a model holds, and where in it each lies.

    Args:
        name: of any tensor; most are their own only part.
        shape: its shape.
    """
    if name == "reward.weight":  # in a model `score` is what turns vectors into scores
        return {"score.weight": ()}
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


def published_tensors(model: Any) -> dict[str, Any]:
    """The weights of a model under the checkpoint's names; writing to them writes to the model."""
    return {
        part: parameter.detach()[index]
        for name, parameter in model.named_parameters()
        for part, index in published_parts(name, tuple(parameter.shape)).items()
    }
