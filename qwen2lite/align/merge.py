r"""The Online Merging Optimizer: while preferences are learnt, every step is merged with what SFT did.

What a model has learnt in SFT is a direction, $\tau = \theta_{SFT} - \theta_{base}$, from the weights
before to those after. With AdamW's step d,

$\theta \leftarrow \theta + (1 - \alpha)\,F(d) \oplus \alpha\,F(\tau)$,

where F keeps a part of the numbers and sets the others to 0. `OnDARE` keeps some by chance and adds;
`OnTIES` keeps the largest and lets the two sides agree on a sign. Qwen2 used the optimizer against
the alignment tax, what a model forgets while it learns preferences; which of the two, and with which
numbers, is unpublished. The script beside the paper has α = 1e-7 and keeps 1 in 100.

Source: arXiv 2405.17931; the code beside it: github.com/QwenLM/online_merging_optimizers at 9d411b82;
Qwen2's use of it: arXiv 2407.10671, section 4.3.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from qwen2lite.train.optim import AdamW

Deltas = Mapping[torch.Tensor, torch.Tensor]
"""τ of each parameter."""


def deltas(model: nn.Module, base: nn.Module) -> dict[torch.Tensor, torch.Tensor]:
    """τ: how far each parameter of a model is from where it was before SFT.

    Args:
        model: after SFT, as it is before preferences are learnt; its parameters are the keys.
        base: before SFT.

    Raises:
        ValueError: the two have other parameters.
    """
    before = dict(base.named_parameters())
    now = dict(model.named_parameters())
    shapes = [{name: p.shape for name, p in side.items()} for side in (now, before)]
    if shapes[0] != shapes[1]:
        wrong = sorted(dict(shapes[0].items() ^ shapes[1].items()))
        raise ValueError(
            f"the models differ in {', '.join(wrong[:3])}; the base is the model that SFT began with"
        )
    return {p: (p - before[name].to(p)).detach() for name, p in now.items()}


def drop_at_random(x: torch.Tensor, keep: float, rescale: bool = False) -> torch.Tensor:
    """Keeps each number with a probability of `keep`, drawn from PyTorch's own generator.

    Args:
        x: any numbers.
        keep: above 0, at most 1.
        rescale: divide what was kept by `keep`, so that the expected value stays.

    Source: arXiv 2405.17931, eq. 3.
    """
    kept = x * (torch.rand_like(x) < keep)
    return kept / keep if rescale else kept


def keep_top(x: torch.Tensor, keep: float) -> torch.Tensor:
    """Keeps a share of the numbers, those furthest from 0; one at least.

    Args:
        x: any numbers; of those equally far from 0 any may be kept.
        keep: above 0, at most 1.

    Source: arXiv 2405.17931, eq. 5.
    """
    flat = x.flatten()
    kept = flat.abs().topk(max(1, round(keep * len(flat)))).indices
    return torch.zeros_like(flat).index_copy_(0, kept, flat[kept]).view_as(x)


def by_sign(
    step: torch.Tensor, tau: torch.Tensor, alpha: float, weigh_first: bool = True
) -> torch.Tensor:
    r"""$(1 - \alpha) d \oplus \alpha \tau$: the sum where both have the same sign, else the larger one.

    A 0 has no sign and agrees with everything.

    Args:
        step: F(d).
        tau: F(τ).
        alpha: the weight of τ, from 0 to 1.
        weigh_first: compare what is weighted. The published code compares d and τ themselves and
            weighs the winner. A step is much smaller than τ, so there τ always wins: where the two
            disagree, nearly nothing happens.

    Source: arXiv 2405.17931, eq. 6 and 7.
    """
    sides = (1 - alpha) * step, alpha * tau
    compared = sides if weigh_first else (step, tau)
    disagree = compared[0].sign() * compared[1].sign() < 0
    larger = torch.where(compared[0].abs() >= compared[1].abs(), *sides)
    return torch.where(disagree, larger, sides[0] + sides[1])


class OnlineMerging(AdamW):
    r"""AdamW whose steps are merged with τ; `OnDARE` and `OnTIES` say how.

    With α = 0 and keep = 1 both are AdamW. With α = 0 alone they are AdamW that drops a part of each
    step: by chance that comes, on average, to a learning rate `keep` times as large, so compare with
    one before you praise the dropping. Weight decay is no part of d and always acts. α isn't
    multiplied by the learning rate: where a schedule ends low, τ has the last word.

    Args:
        params: parameters, or groups of them from `parameter_groups`.
        deltas: τ; see the function of this name.
        keep: the share that F keeps, above 0 and at most 1.
        alpha: the weight of τ, from 0 to 1.
        adamw: what `AdamW` takes.

    Raises:
        ValueError: keep or alpha out of range, or a parameter without τ.
    """

    def __init__(
        self, params: Iterable[Any], deltas: Deltas, keep: float, alpha: float, **adamw: Any
    ):
        super().__init__(params, **adamw)
        if not (0 < keep <= 1 and 0 <= alpha <= 1):
            raise ValueError(
                "keep must be above 0 and at most 1, and alpha from 0 to 1; got "
                f"keep={keep} and alpha={alpha}"
            )
        without = [w for group in self.param_groups for w in group["params"] if w not in deltas]
        if without:
            raise ValueError(
                f"{len(without)} parameters have no τ; take deltas(model, base) of the very model "
                "whose parameters these are"
            )
        self.deltas, self.keep, self.alpha = deltas, keep, alpha

    def merged(self, step: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        """What is added to a weight in place of AdamW's step d."""
        raise NotImplementedError

    def _move(self, weights: list[torch.Tensor], group: dict[str, Any]) -> None:
        before = torch._foreach_mul(weights, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_zero_(weights)  # AdamW moves what is 0 to d; a 0 doesn't decay.
        super()._move(weights, group)
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old + self.merged(weight, self.deltas[weight]))


class OnDARE(OnlineMerging):
    r"""$\theta \leftarrow \theta + (1 - \alpha)\,F(d) + \alpha\,F(\tau)$, F being `drop_at_random`.

    In the paper what is kept stays as it is. In the published code it doesn't, for PyTorch's dropout
    divides by `keep`: where 1 in 100 is kept, d and τ count a hundredfold. The code also draws what is
    dropped of τ once, at first; we draw in each step.

    Args:
        rescale: divide what was kept by `keep`, as the published code does. See `OnlineMerging` for
            the others.

    Source: arXiv 2405.17931, eq. 3 and 4.
    """

    def __init__(self, *settings: Any, rescale: bool = False, **named: Any):
        super().__init__(*settings, **named)
        self.rescale = rescale

    def merged(self, step: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        step, tau = (drop_at_random(x, self.keep, self.rescale) for x in (step, tau))
        return (1 - self.alpha) * step + self.alpha * tau


class OnTIES(OnlineMerging):
    r"""$\theta \leftarrow \theta + (1 - \alpha)\,F(d) \oplus \alpha\,F(\tau)$, F being `keep_top`.

    ⊕ is `by_sign`. The largest are those of each parameter. In the published code a parameter too small
    to keep one of is kept whole.

    Args:
        weigh_first: see `by_sign`; the published code has False. See `OnlineMerging` for the others.

    Source: arXiv 2405.17931, eq. 5 to 7.
    """

    def __init__(self, *settings: Any, weigh_first: bool = True, **named: Any):
        super().__init__(*settings, **named)
        self.weigh_first = weigh_first

    def merged(self, step: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        step, tau = keep_top(step, self.keep), keep_top(tau, self.keep)
        return by_sign(step, tau, self.alpha, self.weigh_first)
