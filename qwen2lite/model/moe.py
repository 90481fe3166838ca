r"""Mixture of experts: many small MLPs, of which each token uses a few, beside one that all share."""

from collections.abc import Callable

import torch
from torch import nn

from qwen2lite.model.config import Qwen2Config


def route(
    logits_XE: torch.Tensor, num_experts_per_tok: int, norm_topk_prob: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Chooses the experts of each token and how much each one counts.

    The softmax runs over *all* experts, in float32, before the best are taken. Without
    renormalisation (Qwen2's choice) the kept weights sum to less than one.

    Args:
        logits_XE: the router's scores, a row a token.
        num_experts_per_tok: how many experts a token uses.
        norm_topk_prob: whether the kept weights are divided by their sum.

    Returns:
        weights and expert numbers, both [X, num_experts_per_tok]; the weights are float32.

    Source: arXiv 2407.10671, eq. 1 and 2; `norm_topk_prob` as in the published config.
    """
    probabilities_XE = logits_XE.softmax(-1, dtype=torch.float32)
    weights, chosen = probabilities_XE.topk(num_experts_per_tok, dim=-1)
    if norm_topk_prob:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights, chosen


class Experts(nn.ModuleList):
    r"""The routed experts: $\sum_k w_k\, E_k(x)$, each expert on its own tokens only.

    The choices are sorted by expert, so that an expert sees all of its tokens in one go. No token
    is dropped, however many chose the same expert, and an expert that nobody chose doesn't run.

    Args:
        config: gives D, E and the width of an expert.
        mlp: builds an expert from (hidden_size, width).
    """

    def __init__(self, config: Qwen2Config, mlp: Callable[[int, int], nn.Module]):
        size, width = config.hidden_size, config.moe_intermediate_size
        super().__init__(mlp(size, width) for _ in range(config.num_experts))

    def forward(
        self, x_XD: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> torch.Tensor:
        """Returns mixed_XD, given what `route` says of each token."""
        by_expert = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(self)).tolist()
        tokens = by_expert // chosen.shape[1]
        shares = weights.flatten()[by_expert].to(x_XD.dtype)[:, None]
        mixed_XD = torch.zeros_like(x_XD)
        for expert, token, share in zip(
            self, tokens.split(counts), shares.split(counts), strict=True
        ):
            if len(token):
                # index_select, because the gradient of x_XD[token] takes three times as long.
                update = expert(x_XD.index_select(0, token)[None])[0]
                mixed_XD.index_add_(0, token, share * update)
        return mixed_XD


class MixtureOfExperts(nn.Module):
    r"""Sends each token through its chosen experts and through the shared one.

    $y = \sum_{k} w_k\, E_k(x) + \sigma(g \cdot x)\, S(x)$.

    Args:
        config: gives D, E and the widths.
        mlp: builds an expert from (hidden_size, width).
        route: chooses the experts.
        experts: holds and runs the routed ones; `GroupedExperts` does it on a GPU.

    Source: arXiv 2407.10671, section 2.2.2; the shared expert's gate is in the published code only.
    """

    def __init__(
        self,
        config: Qwen2Config,
        mlp: Callable[[int, int], nn.Module],
        route: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        experts: Callable[..., nn.Module] = Experts,
    ):
        super().__init__()
        size = config.hidden_size
        self.gate = nn.Linear(size, config.num_experts, bias=False)
        self.experts = experts(config, mlp)
        self.shared_expert = mlp(size, config.shared_expert_intermediate_size)
        self.shared_expert_gate = nn.Linear(size, 1, bias=False)
        self.num_experts_per_tok = config.num_experts_per_tok
        self.norm_topk_prob = config.norm_topk_prob
        self.route = route

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns the layer's update, shape [B, T, D]."""
        x_XD = x_BTD.flatten(0, 1)
        weights, chosen = self.route(self.gate(x_XD), self.num_experts_per_tok, self.norm_topk_prob)
        mixed_XD = self.experts(x_XD, weights, chosen)
        open_share = self.shared_expert_gate(x_BTD).sigmoid()
        return mixed_XD.view_as(x_BTD) + open_share * self.shared_expert(x_BTD)
