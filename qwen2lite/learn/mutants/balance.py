"""Wrong versions of `load_balance_loss`. The docstring of each says what the mistake was."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.model.balance import Balance, balance, load_balance_loss

Routers = Sequence[Tensor]


def _pooled(routers: Routers, number: int, mask: Tensor | None) -> Balance:
    masks = None if mask is None else torch.cat([mask.flatten()] * len(routers))
    return balance(torch.cat(list(routers)), number, masks)


def loss_detached(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """The loss has the right value, and no gradient comes back from it: it is printed, and nothing
    gets better. Choosing has no gradient; the probabilities must keep theirs (a trainer lost it on
    the way, NeMo Automodel #1408; minimind forgot to add the loss, #140)."""
    return load_balance_loss(routers, num_experts_per_tok, mask, per_layer).detach()


def factor_missing(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """The factor E, the number of experts, is missing. With it perfect balance gives the same value
    for any number of experts."""
    loss = load_balance_loss(routers, num_experts_per_tok, mask, per_layer)
    return loss / routers[0].shape[1]


def divided_by_k(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """The load is divided by k, so that perfect balance gives 1. In transformers it gives k, and a
    coefficient such as 0.001 goes with that."""
    loss = load_balance_loss(routers, num_experts_per_tok, mask, per_layer)
    return loss / num_experts_per_tok


def first_choice_only(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """Only each token's first choice is counted, as in Switch Transformers, where it has no other.
    All k experts of a token carry it."""
    pooled = _pooled(routers, num_experts_per_tok, mask)
    load_E = _pooled(routers, 1, mask).load_E
    return len(load_E) * (load_E * pooled.probability_E).sum()


def load_by_load(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """The load is multiplied by itself. It is a count and has no gradient: one of the two factors
    has to be the mean probability."""
    load_E = _pooled(routers, num_experts_per_tok, mask).load_E
    return len(load_E) * load_E.square().sum()


def always_the_same(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """The mean probability is taken over the kept experts alone, of which it is always 1/k, so that
    the loss is E whatever the router does (Mixtral in transformers 4.36: #28021, #28093)."""
    load_E = _pooled(routers, num_experts_per_tok, mask).load_E
    return len(load_E) * (load_E / num_experts_per_tok).sum()


def softmax_twice(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """The softmax is taken twice, so that all experts look nearly alike and imbalance costs next to
    nothing. The router gives scores: once is enough (transformers #45120)."""
    probabilities = [logits_XE.softmax(-1) for logits_XE in routers]
    return load_balance_loss(probabilities, num_experts_per_tok, mask, per_layer)


def padding_counted(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """Padding is counted like text. Its tokens are all alike and choose the same experts, and the
    loss would push the real ones off them: leave out what the mask has as 0 (transformers
    #28505)."""
    return load_balance_loss(routers, num_experts_per_tok, None, per_layer)


def each_layer_alone(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """Each layer has a loss of its own, and the mean is taken. That is what per_layer asks for;
    without it the tokens of all layers are pooled first, as in transformers."""
    return load_balance_loss(routers, num_experts_per_tok, mask, per_layer=True)


def always_pooled(
    routers: Routers,
    num_experts_per_tok: int,
    mask: Tensor | None = None,
    per_layer: bool = False,
) -> Tensor:
    """The layers are pooled although per_layer is on. Then an expert that is idle in one layer and
    crowded in the next costs nothing (said of transformers' loss in #28255)."""
    return load_balance_loss(routers, num_experts_per_tok, mask)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "load_balance_loss": (
        factor_missing,
        divided_by_k,
        first_choice_only,
        load_by_load,
        always_the_same,
        softmax_twice,
        padding_counted,
        each_layer_alone,
        always_pooled,
        loss_detached,
    ),
}
"""The wrong versions of the function."""
