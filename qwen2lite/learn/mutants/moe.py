"""Wrong versions of the parts in `model/moe.py` that hold weights: the experts, and the layer.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.moe import Experts, MixtureOfExperts

Routed = tuple[Tensor, Tensor]


class _OneByOne(Experts):
    """The sum in its plainest form, in steps that a mutant can replace."""

    def forward(self, x_XD: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        mixed_XD = torch.zeros_like(x_XD)
        for number, expert in enumerate(self.in_order()):
            token, place = (chosen == number).nonzero(as_tuple=True)
            token, place = self.fitting(token, place, chosen)
            if len(token):
                share = weights[token, place, None].to(x_XD.dtype)
                self.add(mixed_XD, token, self.update(expert, x_XD[token], share))
        return mixed_XD

    def in_order(self) -> list[nn.Module]:
        return list(self)

    def fitting(self, token: Tensor, place: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return token, place

    def update(self, expert: nn.Module, x: Tensor, share: Tensor) -> Tensor:
        return share * expert(x[None])[0]

    def add(self, mixed_XD: Tensor, token: Tensor, update: Tensor) -> None:
        mixed_XD.index_add_(0, token, update)


class WeightedBefore(_OneByOne):
    """The weight is on an expert's input. An expert isn't linear, so half of its input is not half
    of its output: the weight goes on what comes out (Llama 4 has it on the input; a course had it
    so by mistake, annotated_deep_learning_paper_implementations #95)."""

    def update(self, expert: nn.Module, x: Tensor, share: Tensor) -> Tensor:
        return expert((share * x)[None])[0]


class WeightsForgotten(_OneByOne):
    """The experts' answers are added up without their weights."""

    def update(self, expert: nn.Module, x: Tensor, share: Tensor) -> Tensor:
        return expert(x[None])[0]


class LastOneWins(_OneByOne):
    """Each expert's answer replaces what was there, so that of a token's experts only the last
    counts: add them up."""

    def add(self, mixed_XD: Tensor, token: Tensor, update: Tensor) -> None:
        mixed_XD[token] = update


class TokensDropped(_OneByOne):
    """An expert takes only its even share of the tokens, and the rest go without. Switch
    Transformers has such a capacity; Qwen2 drops no token, however many choose the same expert."""

    def fitting(self, token: Tensor, place: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        capacity = math.ceil(chosen.numel() / len(self))
        return token[:capacity], place[:capacity]


class OrderedAsText(_OneByOne):
    """The experts are in the order of their names as text, where 10 and 11 come before 2. Their
    numbers are numbers: sort by int."""

    def in_order(self) -> list[nn.Module]:
        return [self[int(name)] for name in sorted(self._modules)]


class ChoicesNotSorted(Experts):
    """The tokens are cut into one stretch an expert, but not sorted by expert before: each gets
    tokens that chose another one."""

    def forward(self, x_XD: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        return super().forward(x_XD, weights, chosen.flatten().sort().values.view_as(chosen))


class SharesNotSorted(Experts):
    """The tokens are sorted by expert and the weights are not, so that each answer gets the weight
    of another choice: one order for both."""

    def forward(self, x_XD: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        places = chosen.flatten().argsort(stable=True).argsort()
        return super().forward(x_XD, weights.flatten()[places].view_as(weights), chosen)


class EveryExpertRuns(Experts):
    """Every expert runs on every token, most of them times 0. The sum is right, but with 8 of 64 in
    use it is eight times the work: let an expert see only its own tokens."""

    def forward(self, x_XD: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        shares_XE = weights.new_zeros(len(x_XD), len(self)).scatter(1, chosen, weights)
        updates = [expert(x_XD[None])[0] for expert in self]
        return torch.einsum("xe,exd->xd", shares_XE.to(x_XD.dtype), torch.stack(updates))


_EXPERTS = (
    WeightedBefore,
    WeightsForgotten,
    LastOneWins,
    TokensDropped,
    OrderedAsText,
    ChoicesNotSorted,
    SharesNotSorted,
    EveryExpertRuns,
)


def _moe_with(wrong_experts: type[Experts]) -> Callable[..., nn.Module]:
    """The layer with wrong experts in it, under their name and docstring."""

    def layer(config: Qwen2Config, mlp: Any, route: Any) -> nn.Module:
        return MixtureOfExperts(config, mlp, route, wrong_experts)

    layer.__name__, layer.__doc__ = wrong_experts.__name__, wrong_experts.__doc__
    return layer


class _InSteps(MixtureOfExperts):
    """The layer's forward pass in steps that a mutant can replace."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_XD = x_BTD.flatten(0, 1)
        weights, chosen = self.routed(self.gate(x_XD))
        return self.joined(self.experts(x_XD, weights, chosen).view_as(x_BTD), x_BTD)

    def routed(self, logits_XE: Tensor) -> Routed:
        return self.route(logits_XE, self.num_experts_per_tok, self.norm_topk_prob)

    def joined(self, mixed_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        open_share = self.shared_expert_gate(x_BTD).sigmoid()
        return mixed_BTD + open_share * self.shared_expert(x_BTD)


class GateForgotten(_InSteps):
    """The shared expert counts in full. Either its gate was loaded and never used (so it was for a
    while in NousResearch/torchtitan, #36), or it is a softmax, which of a single score is always 1.
    It is the sigmoid of shared_expert_gate, and the report's equations don't mention it."""

    def joined(self, mixed_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        return mixed_BTD + self.shared_expert(x_BTD)


class GateBySoftmax(_InSteps):
    __doc__ = GateForgotten.__doc__

    def joined(self, mixed_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        open_share = self.shared_expert_gate(x_BTD).softmax(-1)
        return mixed_BTD + open_share * self.shared_expert(x_BTD)


class GateWithoutSigmoid(_InSteps):
    """The shared expert is multiplied by its gate's score as it is, of any size and sign. The
    sigmoid makes it a share between 0 and 1."""

    def joined(self, mixed_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        return mixed_BTD + self.shared_expert_gate(x_BTD) * self.shared_expert(x_BTD)


class SharedExpertForgotten(_InSteps):
    """Only the routed experts answer. The shared one sees every token, and its answer is added."""

    def joined(self, mixed_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        return mixed_BTD


class EitherOr(_InSteps):
    """The gate divides between the shared and the routed experts. It says only how much of the
    shared one is added; the routed ones keep their weights."""

    def joined(self, mixed_BTD: Tensor, x_BTD: Tensor) -> Tensor:
        open_share = self.shared_expert_gate(x_BTD).sigmoid()
        return torch.lerp(mixed_BTD, self.shared_expert(x_BTD), open_share)


class ConfigNotAsked(_InSteps):
    """norm_topk_prob of the config doesn't reach `route`, and is taken to be off."""

    def routed(self, logits_XE: Tensor) -> Routed:
        return self.route(logits_XE, self.num_experts_per_tok, False)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "experts": _EXPERTS,
    "moe": (
        GateForgotten,
        GateBySoftmax,
        GateWithoutSigmoid,
        SharedExpertForgotten,
        EitherOr,
        ConfigNotAsked,
        *map(_moe_with, _EXPERTS),
    ),
}
"""The wrong versions of each part."""
