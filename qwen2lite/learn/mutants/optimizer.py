"""Wrong versions of AdamW's step, of clipping and of the groups of parameters.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from qwen2lite.train.optim import AdamW, clip_gradients, parameter_groups

State = tuple[Tensor, Tensor, Tensor]


class Given(NamedTuple):
    """What one step of AdamW on one tensor is given, in this order."""

    weight: Tensor
    gradient: Tensor
    mean: Tensor
    square: Tensor
    step: int
    lr: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float


def packages_step(*given: Any) -> State:
    """One step of the package's AdamW as a function of `Given`: weight, mean and square after it.

    This one is right. The mutants are this step on wrong inputs, or with a wrong result.
    """
    now = Given(*given)
    moved = nn.Parameter(now.weight.clone())
    moved.grad = now.gradient.clone()
    optimizer = AdamW([moved], now.lr, now.betas, now.eps, now.weight_decay)
    kept = {"exp_avg": now.mean.clone(), "exp_avg_sq": now.square.clone()}
    optimizer.state[moved] = {"step": torch.tensor(now.step - 1.0), **kept}
    optimizer.step()
    return moved.detach(), kept["exp_avg"], kept["exp_avg_sq"]


def decay_in_the_gradient(*given: Any) -> State:
    """The decay is added to the gradient (L2), so it is divided by the root like everything else:
    a weight with large gradients hardly decays. AdamW takes it from the weight itself
    (nntrainer #3565; torch.optim.Adam does this by design)."""
    now = Given(*given)
    gradient = now.gradient + now.weight_decay * now.weight
    return packages_step(*now._replace(gradient=gradient, weight_decay=0.0))


def no_correction(*given: Any) -> State:
    """The means are used as they are, though they began with zeros: divide them by 1 - β^step first
    (BERT had it so, an oversight that its warm-up hid: google-research/bert #153; mlx #1640)."""
    return packages_step(*Given(*given)._replace(step=10**6))


def eps_inside_the_root(*given: Any) -> State:
    """eps is added under the root, where 1e-8 counts as 1e-4, more than many gradients of a large
    model: take the root first, then add eps (Flux.jl #448)."""
    now = Given(*given)
    _, mean, square = packages_step(*given)
    root = (square / (1 - now.betas[1] ** now.step) + now.eps).sqrt()
    quotient = mean / (1 - now.betas[0] ** now.step) / root
    return now.weight * (1 - now.lr * now.weight_decay) - now.lr * quotient, mean, square


def eps_before_the_correction(*given: Any) -> State:
    """eps is added before the correction of the mean of squares, which then enlarges eps too:
    correct, take the root, add eps, in this order (nanochat #304, tensorflow #9047)."""
    now = Given(*given)
    return packages_step(*now._replace(eps=now.eps / (1 - now.betas[1] ** now.step) ** 0.5))


def decay_without_the_rate(*given: Any) -> State:
    """The weight loses the share weight_decay at every step. PyTorch, and all recipes written for
    it, mean lr · weight_decay, which is thousands of times less."""
    now = Given(*given)
    return packages_step(*now._replace(weight_decay=now.weight_decay / now.lr))


def decay_of_the_moved_weight(*given: Any) -> State:
    """The decay comes after the step, so part of the step decays too: multiply the old weight by
    1 - lr · weight_decay first. The difference is small, and the numbers are not PyTorch's."""
    now = Given(*given)
    weight, mean, square = packages_step(*now._replace(weight_decay=0.0))
    return weight * (1 - now.lr * now.weight_decay), mean, square


def betas_swapped(*given: Any) -> State:
    """The betas are swapped: the first belongs to the mean of gradients, the second to the mean of
    their squares."""
    now = Given(*given)
    return packages_step(*now._replace(betas=now.betas[::-1]))


def corrected_means_kept(*given: Any) -> State:
    """The corrected means are returned as the state, and the next step corrects them again: correct
    in variables of their own, and return the plain means."""
    now = Given(*given)
    weight, mean, square = packages_step(*given)
    return weight, mean / (1 - now.betas[0] ** now.step), square / (1 - now.betas[1] ** now.step)


def square_of_the_mean(*given: Any) -> State:
    """The second mean is fed with the square of the first. It is the mean of the squared gradients:
    gradients of +1 and -1 in turn have mean 0, and a mean square of 1."""
    now = Given(*given)
    _, mean, _ = packages_step(*given)
    fed = now._replace(gradient=mean, betas=(0.0, now.betas[1]))
    _, _, square = packages_step(*fed)
    quotient = mean / (1 - now.betas[0] ** now.step)
    quotient = quotient / ((square / (1 - now.betas[1] ** now.step)).sqrt() + now.eps)
    return now.weight * (1 - now.lr * now.weight_decay) - now.lr * quotient, mean, square


def uphill(*given: Any) -> State:
    """The step is added. The gradient points uphill; the weight has to go the other way."""
    now = Given(*given)
    weight, mean, square = packages_step(*given)
    return 2 * now.weight * (1 - now.lr * now.weight_decay) - weight, mean, square


def clipped_by_tensor(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Each tensor is shortened by itself, which turns the gradient of the model another way. All
    gradients together are one vector with one norm (transformers #581)."""
    parameters = [p for p in parameters if p.grad is not None]
    norms = [clip_gradients([parameter], max_norm) for parameter in parameters]
    return torch.linalg.vector_norm(torch.stack(norms))


def clipped_by_number(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """Every single number is cut off at max_norm, which is clipping by value: the gradient then
    points another way. Clipping by norm scales all numbers alike."""
    parameters = list(parameters)
    norm = clip_gradients(parameters, float("inf"))
    nn.utils.clip_grad_value_(parameters, max_norm)
    return norm


def always_that_long(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """A gradient that was short enough is made longer. Only what is longer than max_norm is changed:
    near a minimum gradients get short, and should stay so."""
    parameters = list(parameters)
    norm = clip_gradients(parameters, float("inf"))
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.mul_(max_norm / norm)
    return norm


def norm_after_clipping(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """The norm that comes back is the one after clipping, so a log shows max_norm for ever, and
    never the batch that was strange. Return what was measured before."""
    parameters = list(parameters)
    clip_gradients(parameters, max_norm)
    return clip_gradients(parameters, float("inf"))


def clipped_copies(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """The gradients stay as they were: `grad = grad * share` makes a new tensor, and the optimizer
    reads the old one. Use `grad.mul_(share)`, or give parameter.grad the new one."""
    return clip_gradients(list(parameters), float("inf"))


def walked_twice(parameters: Iterable[Tensor], max_norm: float) -> Tensor:
    """`parameters` is gone through twice, and `model.parameters()` can be only once: the norm is right,
    and the second loop finds nobody to shorten. Make a list first."""
    norm = clip_gradients(parameters, float("inf"))
    clip_gradients(parameters, max_norm)
    return norm


def all_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Everything decays, norms and biases too. A norm's weight belongs near 1 and is pulled to 0
    (minGPT #23, lit-llama #254)."""
    return [{"params": list(model.parameters()), "weight_decay": weight_decay}]


def only_layer_norms_spared(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Norms are recognised as nn.LayerNorm, and Qwen2's are RMSNorm, a class of its own: they decay.
    This was so in transformers for years (#35927). What has one dimension is a norm or a bias."""
    spared = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm | nn.Embedding)}
    named = dict(model.named_parameters())
    still = [p for name, p in named.items() if id(p) in spared or name.endswith("bias")]
    return _groups(model, still, weight_decay)


def embedding_decays(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The embedding decays, since it has two dimensions. The row of a rare token gets no gradient
    for thousands of steps, and only shrinks. (Some projects do decay it; the package doesn't.)"""
    return _groups(model, [p for p in model.parameters() if p.ndim < 2], weight_decay)


def biases_decay(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The biases decay. Qwen2's key biases are large because they are needed so; nothing about them
    wants to be small."""
    biases = {id(p) for name, p in model.named_parameters() if name.endswith("bias")}
    decaying, still = parameter_groups(model, weight_decay)
    decaying["params"] += [p for p in still["params"] if id(p) in biases]
    still["params"] = [p for p in still["params"] if id(p) not in biases]
    return [decaying, still]


def groups_swapped(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The wrong group decays: the matrices should, and norms, biases and embeddings should not."""
    decaying, still = parameter_groups(model, weight_decay)
    return [still | {"weight_decay": weight_decay}, decaying | {"weight_decay": 0.0}]


def norms_left_out(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Norms are in no group at all, and the optimizer never moves them. What doesn't decay needs a
    group too, with weight_decay 0."""
    decaying, still = parameter_groups(model, weight_decay)
    norms = {id(p) for name, p in model.named_parameters() if "norm" in name}
    return [decaying, still | {"params": [p for p in still["params"] if id(p) not in norms]}]


def _groups(model: nn.Module, still: Sequence[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    chosen = {id(parameter) for parameter in still}
    moving = [parameter for parameter in model.parameters() if id(parameter) not in chosen]
    return [
        {"params": moving, "weight_decay": weight_decay},
        {"params": still, "weight_decay": 0.0},
    ]


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "adamw_step": (
        decay_in_the_gradient, no_correction, eps_inside_the_root, eps_before_the_correction,
        decay_without_the_rate, decay_of_the_moved_weight, betas_swapped, corrected_means_kept,
        square_of_the_mean, uphill,
    ),
    "clip_gradients": (
        clipped_by_tensor, clipped_by_number, always_that_long, norm_after_clipping, clipped_copies,
        walked_twice,
    ),
    "parameter_groups": (
        all_decay, only_layer_norms_spared, embedding_decays, biases_decay, groups_swapped,
        norms_left_out,
    ),
}  # fmt: skip
"""The wrong versions of each part."""
