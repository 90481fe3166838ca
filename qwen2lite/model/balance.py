r"""Whether the experts share the work: how to see it, and two ways to bring it about.

A router left alone sends most tokens to few experts: who is chosen learns, and is chosen again. A
loss that grows with the imbalance works against it, and so does a bias that makes the idle experts
more likely to be chosen. Which one Qwen2 was trained with is unpublished.

    with router_logits(model) as routers:
        logits_BTV = model(ids_BT)
    loss = cross_entropy(…) + 0.001 * load_balance_loss(routers, num_experts_per_tok=8)
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from qwen2lite.model.qwen2 import Qwen2


@contextmanager
def router_logits(model: Qwen2) -> Iterator[list[torch.Tensor]]:
    """Gives a list that gets logits_XE of every sparse layer, in order, each time the model runs.

    They come from the layers' own `mlp.gate`, so the layers need not know of it and return nothing
    but their update. Gradients flow through them.
    """
    found: list[torch.Tensor] = []

    def keep(gate: nn.Module, inputs: tuple[torch.Tensor, ...], logits: torch.Tensor) -> None:
        found.append(logits.flatten(0, -2))

    hooks = [mlp.get_submodule("gate").register_forward_hook(keep) for mlp in sparse_layers(model)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def sparse_layers(model: Qwen2) -> list[nn.Module]:
    """The mixtures of experts among the model's MLPs, from the first layer to the last."""
    layers = enumerate(model.model.layers)
    return [layer.get_submodule("mlp") for n, layer in layers if model.config.is_sparse(n)]


@dataclass(frozen=True)
class Balance:
    """How a router treated some tokens. Of E experts, every token uses k."""

    load_E: torch.Tensor
    """Share of the tokens that chose each expert; the sum is k, perfect balance k/E everywhere."""
    probability_E: torch.Tensor
    """Mean probability of each expert; the sum is 1. Only this one has a gradient."""
    entropy: torch.Tensor
    """Mean over the tokens, in nats: 0 where each is sure of one expert, log E where none prefers."""


def balance(
    logits_XE: torch.Tensor, num_experts_per_tok: int, mask: torch.Tensor | None = None
) -> Balance:
    """Statistics of each expert.

    Args:
        logits_XE: the router's scores, a row a token.
        num_experts_per_tok: k.
        mask: of X values in any shape, 0 where a token is padding and doesn't count.
    """
    if mask is not None:
        logits_XE = logits_XE[mask.flatten().bool()]
    probabilities_XE = logits_XE.softmax(-1, dtype=torch.float32)
    chosen = probabilities_XE.topk(num_experts_per_tok, dim=-1).indices
    counts_E = chosen.flatten().bincount(minlength=logits_XE.shape[1])
    return Balance(
        load_E=counts_E / len(logits_XE),
        probability_E=probabilities_XE.mean(0),
        entropy=torch.special.entr(probabilities_XE).sum(-1).mean(),
    )


def load_balance_loss(
    routers: Sequence[torch.Tensor],
    num_experts_per_tok: int,
    mask: torch.Tensor | None = None,
    per_layer: bool = False,
) -> torch.Tensor:
    r"""Grows where the experts that are chosen often are also those with high probability.

    $E \sum_e load_e \cdot probability_e$. Choosing has no gradient; the probabilities have one, and
    it is the larger the more an expert is loaded. Perfect balance gives k, collapse onto k experts E.

    Args:
        routers: logits_XE of each layer, from `router_logits`.
        num_experts_per_tok: k.
        mask: one value a token, 0 where it is padding; the same for all layers.
        per_layer: the mean of each layer's own loss. Otherwise the layers' tokens are pooled first,
            as in transformers, and imbalances that cancel across layers cost nothing.

    Source: arXiv 2101.03961, section 2.2; transformers 5.23, qwen2_moe, for k > 1 and the pooling.
    """
    if per_layer:
        losses = [load_balance_loss([r], num_experts_per_tok, mask) for r in routers]
        return torch.stack(losses).mean()
    masks = None if mask is None else torch.cat([mask.flatten()] * len(routers))
    pooled = balance(torch.cat(list(routers)), num_experts_per_tok, masks)
    return len(pooled.load_E) * (pooled.load_E * pooled.probability_E).sum()


class BiasedRoute(nn.Module):
    r"""A `route` that balances without a loss: a bias helps the idle experts to be *chosen*.

    The weights of the chosen come from the probabilities alone, so nothing pulls the gradient away
    from the language. After each step of training, `update` moves every bias by the same small rate,
    up where an expert had fewer tokens than the mean, down where it had more.

    The bias belongs to the trained model, but Qwen2's checkpoints have no place for it: it is a
    buffer, in the state_dict and not in an export.

    Args:
        num_experts: E.
        rate: what `update` adds or takes away; probabilities are near 1/E.

    Source: arXiv 2408.15664, section 3 and algorithm 1.
    """

    bias_E: torch.Tensor
    counts_E: torch.Tensor

    def __init__(self, num_experts: int, rate: float = 0.001):
        super().__init__()
        self.rate = rate
        self.register_buffer("bias_E", torch.zeros(num_experts))
        self.register_buffer("counts_E", torch.zeros(num_experts, dtype=torch.long), False)

    def forward(
        self, logits_XE: torch.Tensor, num_experts_per_tok: int, norm_topk_prob: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `route`; while training it also counts who was chosen."""
        probabilities_XE = logits_XE.softmax(-1, dtype=torch.float32)
        chosen = (probabilities_XE + self.bias_E).topk(num_experts_per_tok, dim=-1).indices
        weights = probabilities_XE.gather(-1, chosen)
        if norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        if self.training:
            self.counts_E += chosen.flatten().bincount(minlength=len(self.counts_E))
        return weights, chosen

    def update(self) -> None:
        """Moves the biases by what was counted since the last update, and counts anew."""
        counts_E = self.counts_E.float()
        self.bias_E += self.rate * (counts_E.mean() - counts_E).sign()
        self.counts_E.zero_()


def balance_by_bias(model: Qwen2, rate: float = 0.001) -> list[BiasedRoute]:
    """Gives every sparse layer a `BiasedRoute` of its own; the loop calls `update` on each."""
    routes = []
    for mlp in sparse_layers(model):
        routes.append(BiasedRoute(model.config.num_experts, rate).to(model.device))
        mlp.route = routes[-1]
    return routes
