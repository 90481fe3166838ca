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


class MixtureOfExperts(nn.Module):
    r"""Sends each token through its chosen experts and through the shared one.

    $y = \sum_{k} w_k\, E_k(x) + \sigma(g \cdot x)\, S(x)$.

    Args:
        config: gives D, E and the widths.
        mlp: builds an expert from (hidden_size, width).
        route: chooses the experts.

    Source: arXiv 2407.10671, section 2.2.2; the shared expert's gate is in the published code only.
    """

    def __init__(
        self,
        config: Qwen2Config,
        mlp: Callable[[int, int], nn.Module],
        route: Callable[..., tuple[torch.Tensor, torch.Tensor]],
    ):
        super().__init__()
        size = config.hidden_size
        self.gate = nn.Linear(size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(
            mlp(size, config.moe_intermediate_size) for _ in range(config.num_experts)
        )
        self.shared_expert = mlp(size, config.shared_expert_intermediate_size)
        self.shared_expert_gate = nn.Linear(size, 1, bias=False)
        self.num_experts_per_tok = config.num_experts_per_tok
        self.norm_topk_prob = config.norm_topk_prob
        self.route = route

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns the layer's update, shape [B, T, D]. Experts that no token chose don't run."""
        x_XD = x_BTD.flatten(0, 1)
        weights, chosen = self.route(self.gate(x_XD), self.num_experts_per_tok, self.norm_topk_prob)
        mixed_XD = torch.zeros_like(x_XD)
        for expert in chosen.unique().tolist():
            token, place = torch.where(chosen == expert)
            share = weights[token, place, None].to(x_XD.dtype)
            update = self.experts[expert](x_XD[None, token])[0]
            mixed_XD.index_add_(0, token, share * update)
        open_share = self.shared_expert_gate(x_BTD).sigmoid()
        return mixed_XD.view_as(x_BTD) + open_share * self.shared_expert(x_BTD)
