"""Notes what every place of a model gives while it runs, so that two can be laid side by side."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from qwen2lite.model.qwen2 import Parts, Qwen2

FUNCTIONS = ("rotary_frequencies", "yarn", "rotary_tables", "apply_rope", "attend", "route")
"""The parts that are functions: their answers are noted under their own name."""
MODULES = {
    "input_layernorm": "norm",
    "self_attn.q_proj": "attention",
    "self_attn.k_proj": "attention",
    "self_attn.v_proj": "attention",
    "self_attn": "attention",
    "post_attention_layernorm": "norm",
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
                if part == "mlp" and model.config.is_sparse(number):
                    part = "moe"
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
            self.note(name, name, output)
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
        module.register_forward_hook(lambda _, __, output: self.note(place, part, output))

    def _entering(self, layer: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            self._layer = layer

        return enter


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split("."):
        found = getattr(module, name, None)
        if not isinstance(found, nn.Module):
            return None
        module = found
    return module
