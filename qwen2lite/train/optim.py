r"""The optimizer: from gradients to a step of the weights.

AdamW keeps two running means for every weight: of its gradient, and of the gradient's square. Their
quotient is a step of about the same size for every weight, however large its gradients are.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class AdamW(torch.optim.Optimizer):
    r"""Adam with decoupled weight decay.

    $m \leftarrow \beta_1 m + (1 - \beta_1) g$, $v \leftarrow \beta_2 v + (1 - \beta_2) g^2$,
    $w \leftarrow w - \eta\lambda w - \eta\,\hat m / (\sqrt{\hat v} + \epsilon)$,
    where $\hat m = m / (1 - \beta_1^t)$ and $\hat v = v / (1 - \beta_2^t)$ take out what the zeros
    that m and v begin with still weigh after t steps. "Decoupled": the decay acts on the weight
    itself and is not divided by $\sqrt{\hat v}$, as it would be inside the gradient.

    Each line below is one operation on all tensors of a group at once (`_foreach_`), because a
    model has hundreds of small tensors and a loop over them costs more than the arithmetic.

    Args:
        params: parameters, or groups of them from `parameter_groups`.
        lr: learning rate η, the size of a step; a schedule sets it anew for each.
        betas: β1 and β2, below 1; 0.95 remembers about 20 steps, 0.999 about 1,000.
        eps: ε, added to the root.
        weight_decay: λ, times the learning rate, is the share of each weight that a step takes away.

    Source: arXiv 1711.05101, algorithm 2; betas: Qwen(1), arXiv 2309.16609, section 2.4.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ):
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Moves every weight that has a gradient."""
        if closure is not None:
            raise ValueError("this AdamW takes no closure: call backward() first, then step()")
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if weights:
                self._move(weights, group)

    def _move(self, weights: list[torch.Tensor], group: dict[str, Any]) -> None:
        rate, decay, eps = group["lr"], group["weight_decay"], group["eps"]
        beta1, beta2 = group["betas"]
        grads = [weight.grad for weight in weights if weight.grad is not None]
        states = [self._state(weight) for weight in weights]
        means = [state["exp_avg"] for state in states]
        squares = [state["exp_avg_sq"] for state in states]
        # Counted for each weight: an expert that no token was sent to has made fewer steps.
        torch._foreach_add_([state["step"] for state in states], 1)
        steps = [float(state["step"]) for state in states]

        torch._foreach_mul_(weights, 1 - rate * decay)
        torch._foreach_lerp_(means, grads, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - beta2**t) ** 0.5 for t in steps])
        torch._foreach_add_(roots, eps)
        torch._foreach_addcdiv_(weights, means, roots, [-rate / (1 - beta1**t) for t in steps])

    def _state(self, weight: torch.Tensor) -> dict[str, torch.Tensor]:
        """The two means of a weight under PyTorch's names, so that either AdamW reads the other's."""
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"] = torch.zeros_like(weight)
            state["exp_avg_sq"] = torch.zeros_like(weight)
        return state


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: the matrices, which decay, and norms, biases and embeddings, which don't.

    Decay pulls towards zero what nothing holds. A norm's weight belongs near one, not zero; the row
    of a rare token gets no gradient for many steps and would fade meanwhile. A tied output layer is
    the embedding. What Qwen2 did here is not published; this is common practice.

    Args:
        model: whose parameters.
        weight_decay: of the matrices.
    """
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    decaying: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for parameter in model.parameters():
        decays = parameter.ndim >= 2 and id(parameter) not in embeddings
        (decaying if decays else others).append(parameter)
    return [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]


@torch.no_grad()
def clip_gradients(parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
    r"""Shortens the gradient of the whole model to `max_norm` where it is longer.

    All gradients are one vector here, and keep their direction. One strange batch then costs one
    step of ordinary size.

    Args:
        parameters: those without a gradient are passed over.
        max_norm: longest allowed Euclidean norm; infinity only measures.

    Returns:
        The norm before it was shortened, as a tensor, so that a GPU needn't be waited for.

    Source: arXiv 1211.5063, algorithm 1.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not grads:
        return torch.tensor(0.0)
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    torch._foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
