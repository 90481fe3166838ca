"""Three models for the exercise 90_capstone, each with one part that is wrong, and a sound one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.cases import PROBE
from qwen2lite.learn.checks.capstone_reference import built, random_weights
from qwen2lite.learn.mutants import attention, norm
from qwen2lite.learn.watch import Watch
from qwen2lite.model.norm import RMSNorm
from qwen2lite.model.parts import Parts
from qwen2lite.model.rope import rotary_tables

Record = list[tuple[str, Tensor]]


class _OtherNorm(RMSNorm):
    """Right, by way of the vector's length: only the last digits differ."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x_BTD.float(), dim=-1, keepdim=True)
        root = (length.square() / x_BTD.shape[-1] + self.eps).sqrt()
        return self.weight * (x_BTD.float() / root).to(x_BTD.dtype)


def _other_tables(positions_T: Tensor, frequencies_R: Tensor) -> tuple[Tensor, Tensor]:
    """Right, by way of complex numbers: only the last digits differ."""
    turns_TH = torch.exp(1j * positions_T.float()[:, None] * frequencies_R.repeat(2))
    return turns_TH.real, turns_TH.imag


def _short_sighted(positions_T: Tensor, frequencies_R: Tensor) -> tuple[Tensor, Tensor]:
    """Exactly right up to position 256; bfloat16 has no 257."""
    return rotary_tables(positions_T.bfloat16().float(), frequencies_R)


_WARD: dict[str, tuple[str, dict[str, Any]]] = {
    "sound": ("", {}),
    "A": ("attend", {"norm": _OtherNorm, "attend": attention.heads_repeated_in_turn}),
    "B": ("rotary_tables", {"norm": _OtherNorm, "rotary_tables": _short_sighted}),
    # Sound but for a vector that is nearly nothing, that of token 40.
    "C": ("norm", {"rotary_tables": _other_tables, "norm": norm.EpsOutsideRoot}),
}
"""Each has a part that is right and rounds in another way, and a part that is wrong."""
PATIENTS = {name: part for name, (part, _) in _WARD.items() if part}
"""The part at fault in each."""


def patient(name: str) -> Callable[[Tensor], Record]:
    """A model of two layers, watched: called with ids_T it tells what every place gave.

    All have the same weights, 64 tokens, 4 query heads on 2 key heads, and read a text of any length.

    Args:
        name: "A", "B" or "C", each with one wrong part, or "sound" for the package's own.

    Returns:
        A function from ids_T to a list of (place, tensor), in the order in which they were computed.

    Raises:
        ValueError: nobody of that name.
    """
    if name not in _WARD:
        raise ValueError(f"there is no patient {name!r}; there are {', '.join(_WARD)}")
    weights = random_weights(PROBE, seed=7)
    weights["model.embed_tokens.weight"][40] *= 1e-3

    @torch.no_grad()
    def examined(ids_T: Tensor) -> Record:
        watch = Watch()
        model = built(weights, PROBE, watch.parts(Parts(**_WARD[name][1])))
        watch.modules(model)
        watch.note("logits", "", model(torch.as_tensor(ids_T)[None]))
        return [(seen.place, tensor) for seen in watch.seen for tensor in seen.tensors]

    return examined
