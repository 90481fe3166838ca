"""A model in the form that generates fastest, by the name of its number format."""

from pathlib import Path

import torch

from qwen2lite.infer.compile import CompiledQwen2
from qwen2lite.infer.fused import FusedQwen2, fuses
from qwen2lite.infer.packed import PackedQwen2, pack, packs_on
from qwen2lite.infer.products import TileLinear
from qwen2lite.infer.quantized_checkpoint import LINEARS, load_quantized
from qwen2lite.model.device import pick_device
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import Qwen2

KINDS = ("auto", "float32", "bfloat16", "float16", *LINEARS)
"""Number formats of the weights."""


def load(
    source: str | Path,
    kind: str = "auto",
    device: str = "auto",
    compiled: bool = False,
    parts: Parts | None = None,
) -> Qwen2:
    """Loads a model for generating: packed or quantised on a CPU, and compiled if that is asked for.

    Args:
        source: as in `Qwen2.from_pretrained`.
        kind: of `KINDS`; auto takes bfloat16 where models can be packed, for it is faster there even
            if the processor can't compute in it, and elsewhere what `pick_dtype` says.
        device: as in `Qwen2.from_pretrained`.
        compiled: whether decode steps are compiled, which takes up to a minute at the first.
        parts: your own, which are never packed: they run as they were written.

    Raises:
        ValueError: an unknown format; int8 or int4 on a GPU or with own parts.
    """
    if kind not in KINDS:
        raise ValueError(f"weights come as {', '.join(KINDS)}, not as {kind!r}")
    place = pick_device(device)
    if kind in LINEARS:
        if place.type != "cpu" or parts is not None:
            what = "your own parts" if parts is not None else f"the device {place}"
            raise ValueError(
                f"{kind} weights run on a CPU with the package's own parts, not with {what}; "
                "take bfloat16"
            )
        model: Qwen2 = load_quantized(source, kind)
    else:
        auto = torch.bfloat16 if packs_on(place) and parts is None else None
        dtype = auto if kind == "auto" else getattr(torch, kind)
        model = Qwen2.from_pretrained(source, dtype, place, parts)
        model = pack(model, compiled) if parts is None else model
    if not compiled:
        return model
    return FusedQwen2(model) if fuses(model) else CompiledQwen2(model)


def weight_bytes(*models: Qwen2) -> int:
    """What the weights take in memory."""
    modules = [module for model in models for module in model.modules()]
    packed = {id(m): m.nbytes for m in modules if isinstance(m, TileLinear)}
    numbers = (n for m in modules for n in (*m.parameters(False), *m.buffers(False)))
    # A tied matrix is there twice by name and once in memory; oneDNN's blocks have no address.
    places = {id(n) if n.is_mkldnn else n.data_ptr(): n.nbytes for n in numbers}
    return sum(places.values()) + sum(packed.values())


def form(model: Qwen2) -> str:
    """What was loaded, in words: the number format, and whether it is packed, compiled or fused."""
    plain = getattr(model, "plain", model)
    words = [str(plain.dtype).removeprefix("torch.")]
    if isinstance(plain, PackedQwen2):
        names = {linear: [name] for name, linear in LINEARS.items()}
        words = names.get(type(plain.lm_head), ["packed"])
    if plain is not model:
        words.append("fused" if isinstance(model, FusedQwen2) else "compiled")
    return ", ".join(words)
