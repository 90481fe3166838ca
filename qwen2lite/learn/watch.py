"""Notes what every place of a model gives while it runs, so that two can be laid side by side."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qwen2lite.model.qwen2 import Parts, Qwen2

FUNCTIONS = (
    "rotary_frequencies",
    "yarn",
    "dca_positions",
    "rotary_tables",
    "apply_rope",
    "attend",
    "merge_pieces",
    "dca_attend",
    "route",
)
"""The parts that are functions: their answers are noted under their own name."""
MODULES = {
    "input_layernorm": "norm",
    "self_attn.q_proj": "attention",
    "self_attn.k_proj": "attention",
    "self_attn.v_proj": "attention",
    "self_attn": "attention",
    "post_attention_layernorm": "norm",
    "mlp.gate": "moe",
    "mlp.shared_expert_gate": "moe",
    "mlp.shared_expert": "mlp",
    "mlp": "mlp",
}
"""Places inside a layer, by the checkpoint's names, and the part that is at work there."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What one place gave. Equal is only the same one."""

    place: str
    part: str
    """The field of `Parts` at work there; "" where it is none."""
    tensors: tuple[torch.Tensor, ...]


class Watch:
    """Looks over the shoulder of one model: `seen` grows with every place that is passed."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self._layer = ""

    def parts(self, parts: Parts) -> Parts:
        """The same parts, watched."""
        watched = {name: self._noted(name, getattr(parts, name)) for name in FUNCTIONS}
        return dataclasses.replace(parts, cache=self._watched_cache(parts.cache), **watched)

    def modules(self, model: Qwen2) -> None:
        """Watches the modules of a model that was built from `parts`."""
        self._hook(model.model.embed_tokens, "embedding", "")
        for number, layer in enumerate(model.model.layers):
            layer.register_forward_pre_hook(self._entering(f"layer {number}, "))
            for path, part in MODULES.items():
                if path == "mlp" and model.config.is_sparse(number):
                    part = "moe"
                elif part == "attention" and model.config.dual_chunk_attention_config:
                    part = "dca"
                self._hook(_submodule(layer, path), path, part)
        self._hook(model.model.norm, "the last norm", "norm")

    def note(self, place: str, part: str, output: Any) -> None:
        """Notes the tensors that a place gave."""
        several = output if isinstance(output, tuple | list) else (output,)
        tensors = tuple(
            one.detach().clone()
            if isinstance(one, torch.Tensor)
            else torch.tensor(one, device="cpu")
            for one in several
        )
        self.seen.append(Seen(self._layer + place, part, tensors))

    def _noted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            output = function(*args, **kwargs)
            self.note(name, name, _by_expert(output) if name == "route" else output)
            return output

        return watched

    def _watched_cache(self, cache: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            made = cache(*args, **kwargs)
            made.update = self._noted("cache", made.update)
            return made

        return watched

    def _hook(self, module: nn.Module | None, place: str, part: str) -> None:
        if module is None:  # a part of the learner's own that is built in another way
            return
        if place in ("embedding", "the last norm"):
            module.register_forward_pre_hook(self._entering(""))

        def noted(_: nn.Module, __: Any, output: Any) -> None:
            # Inside a mixture of experts tokens may lie in rows or in a batch.
            in_rows = place.startswith("mlp.") and isinstance(output, torch.Tensor)
            self.note(place, part, output.flatten(0, -2) if in_rows else output)

        module.register_forward_hook(noted)

    def _entering(self, layer: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._layer = layer

        return enter


def _by_expert(routed: Any) -> Any:
    """One row a token, experts by their numbers: `route` may give them in any order."""
    try:
        weights, chosen = routed
        order = chosen.argsort(-1)
        return tuple(one.gather(-1, order).flatten(0, -2) for one in (weights, chosen))
    except (AttributeError, RuntimeError, TypeError, ValueError):  # no such pair: shown as it is
        return routed


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split("."):
        found = getattr(module, name, None)
        if not isinstance(found, nn.Module):
            return None
        module = found
    return module


def side_by_side(
    wanted: list[Seen], got: list[Seen], dtype: torch.dtype = torch.float32
) -> list[tuple[Seen, Seen]]:
    """Pairs of the same place, in the reference's order. A place that one side lacks is left out:
    a learner may build a part in another way. Of several it is the first that agrees, if any does:
    queries may well be turned after keys."""
    waiting: dict[str, list[Seen]] = {}
    for seen in got:
        waiting.setdefault(seen.place, []).append(seen)
    pairs = []
    for seen in wanted:
        here = waiting.get(seen.place)
        if here:
            agreeing = (n for n, one in enumerate(here) if not difference(seen, one, dtype, True))
            pairs.append((seen, here.pop(next(agreeing, 0))))
    return pairs


def difference(wanted: Seen, got: Seen, dtype: torch.dtype, mixed: bool) -> str:
    """How two answers differ, in a sentence; "" where it is no more than rounding.

    Until queries are turned both sides do the same operations, and agree to the last digits. From
    there on right answers may round in another order, which large key biases blow up in bfloat16.
    """
    tight, loose = (1e-3, 0.2) if dtype == torch.bfloat16 else (1e-5, 1e-3)
    if len(wanted.tensors) != len(got.tensors):
        return f"It gives {len(got.tensors)} tensors where {len(wanted.tensors)} are wanted."
    for want, have in zip(wanted.tensors, got.tensors, strict=True):
        for what in ("device", "shape", "dtype"):
            mine, right = getattr(have, what), getattr(want, what)
            if mine != right:
                return f"Its {what} is {mine} and should be {right}."
        off = _relative(want.double(), have.double())
        if not off <= (loose if mixed else tight):
            return f"It is off by {off:.2g} of its size."
    return ""


def _relative(want: torch.Tensor, have: torch.Tensor) -> float:
    """Root mean square of the difference over that of the reference, infinities taken as they are."""
    off = torch.where(want == have, torch.zeros_like(want), want - have)
    size = want[want.isfinite()].square().mean().sqrt().clamp_min(1e-30)
    return float(off.square().mean().sqrt() / size)
