"""The contracts of lesson 42 accept every right answer and tell wrong ones in a clear sentence."""

import math

import pytest
import torch
from torch import nn

from qwen2lite.learn.mutants.optimizer import packages_step
from tests.learn.verdict import verdict


def step_by_formula(w, g, m, v, t, lr, betas, eps, decay):
    m = betas[0] * m + (1 - betas[0]) * g
    v = betas[1] * v + (1 - betas[1]) * g * g
    quotient = m / (1 - betas[0] ** t) / ((v / (1 - betas[1] ** t)) ** 0.5 + eps)
    return w - lr * (quotient + decay * w), m, v


def step_by_pytorch(w, g, m, v, t, lr, betas, eps, decay):
    weight = nn.Parameter(w.clone())
    optimizer = torch.optim.AdamW([weight], lr, betas, eps, decay)
    optimizer.state[weight] = {"step": torch.tensor(t - 1.0), "exp_avg": m.clone()}
    optimizer.state[weight]["exp_avg_sq"] = v.clone()
    weight.grad = g
    optimizer.step()
    state = optimizer.state[weight]
    return weight.detach(), state["exp_avg"], state["exp_avg_sq"]


def step_in_place_on_copies(w, g, m, v, t, lr, betas, eps, decay):
    w, m, v = w.clone(), m.clone(), v.clone()
    m.lerp_(g, 1 - betas[0])
    v.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
    root = v.sqrt().div_(math.sqrt(1 - betas[1] ** t)).add_(eps)
    w.mul_(1 - lr * decay).addcdiv_(m, root, value=-lr / (1 - betas[0] ** t))
    return [w, m, v]


def cosine_by_cases(step, steps, warmup_steps, floor=0.1):
    update = step + 1
    if update <= warmup_steps:
        return update / warmup_steps
    if update >= steps:
        return floor
    angle = math.pi * (update - warmup_steps) / (steps - warmup_steps)
    return (1 + floor) / 2 + (1 - floor) / 2 * math.cos(angle)


def cosine_by_square(step, steps, warmup_steps, floor=0.1):
    climb = (step + 1) / warmup_steps if warmup_steps else 1.0
    left = (steps - step - 1) / (steps - warmup_steps)
    left = max(0.0, min(1.0, left))
    return min(climb, 1.0) * (floor + (1 - floor) * math.sin(math.pi / 2 * left) ** 2)


def cosine_as_a_tensor(step, steps, warmup_steps, floor=0.1):
    return torch.tensor(cosine_by_cases(step, steps, warmup_steps, floor))


def clip_by_sum_of_squares(parameters, max_norm):
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float((g**2).sum()) for g in grads))
    if norm > max_norm:
        for g in grads:
            g *= max_norm / norm
    return norm


def clip_by_one_vector(parameters, max_norm):
    having = [p for p in parameters if p.grad is not None]
    norm = torch.cat([p.grad.flatten() for p in having]).norm()
    for p in having:
        p.grad = p.grad * torch.clamp(max_norm / norm, max=1.0)
    return norm


def groups_by_name(model, weight_decay):
    named = dict(model.named_parameters())
    matrices = [n for n in named if n.endswith("proj.weight") or n == "lm_head.weight"]
    return [
        {"params": [named[n] for n in named if n not in matrices], "weight_decay": 0},
        {"params": [named[n] for n in matrices], "weight_decay": weight_decay},
    ]


def groups_one_by_one(model, weight_decay):
    spared = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return [
        {"params": [p], "weight_decay": weight_decay * (p.ndim > 1 and id(p) not in spared)}
        for p in model.parameters()
    ]


def groups_by_modules(model, weight_decay):
    embedding = model.get_input_embeddings() if hasattr(model, "get_input_embeddings") else None
    embedding = embedding or model.model.embed_tokens
    linear = [m.weight for m in model.modules() if isinstance(m, nn.Linear)]
    decaying = [w for w in linear if w is not embedding.weight]
    chosen = {id(w) for w in decaying}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return (
        {"params": decaying, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    )


def update_by_sum(objective, batches, optimizer, max_norm):
    optimizer.zero_grad()
    sum(objective(*batch) for batch in batches).div(len(batches)).backward()
    norm = nn.utils.clip_grad_norm_(objective.parameters(), max_norm)
    optimizer.step()
    return norm


def update_by_autograd(objective, batches, optimizer, max_norm):
    weights = list(objective.parameters())
    mean = torch.stack([objective(*batch) for batch in batches]).mean()
    for weight, gradient in zip(weights, torch.autograd.grad(mean, weights), strict=True):
        weight.grad = gradient.clone()
    norm = clip_by_sum_of_squares(weights, max_norm)
    optimizer.step()
    return norm


def update_by_scaling(objective, batches, optimizer, max_norm):
    for batch in batches:
        objective(*batch).backward()
    for weight in objective.parameters():
        weight.grad /= len(batches)
    norm = clip_by_one_vector(list(objective.parameters()), max_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    return norm


RIGHT = [
    ("adamw_step", packages_step),
    ("adamw_step", step_by_formula),
    ("adamw_step", step_by_pytorch),
    ("adamw_step", step_in_place_on_copies),
    ("cosine", cosine_by_cases),
    ("cosine", cosine_by_square),
    ("cosine", cosine_as_a_tensor),
    ("clip_gradients", clip_by_sum_of_squares),
    ("clip_gradients", clip_by_one_vector),
    ("clip_gradients", nn.utils.clip_grad_norm_),
    ("parameter_groups", groups_by_name),
    ("parameter_groups", groups_one_by_one),
    ("parameter_groups", groups_by_modules),
    ("mended_update", update_by_sum),
    ("mended_update", update_by_autograd),
    ("mended_update", update_by_scaling),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def changes_its_inputs(w, g, m, v, t, lr, betas, eps, decay):
    m.mul_(betas[0]).add_((1 - betas[0]) * g)
    return step_by_formula(w, g, m, v, t, lr, betas, eps, decay)


def no_root(w, g, m, v, t, lr, betas, eps, decay):
    _, m, v = step_by_formula(w, g, m, v, t, lr, betas, eps, decay)
    return w - lr * m / (v + eps), m, v


def gives_numbers_back(parameters, max_norm):
    clip_by_sum_of_squares(parameters, max_norm)
    return [p.grad for p in parameters]


def sets_what_had_none(parameters, max_norm):
    for p in parameters:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    return clip_by_sum_of_squares(parameters, max_norm)


def both_everywhere(model, weight_decay):
    everything = list(model.parameters())
    return [{"params": everything, "weight_decay": decay} for decay in (weight_decay, 0.0)]


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("adamw_step", lambda *given: packages_step(*given)[0], "three tensors were wanted"),
        ("adamw_step", lambda w, *rest: (w[0], w, w), "as the new weight, returned float32 [3]"),
        ("adamw_step", changes_its_inputs, "changed a tensor that it was given"),
        ("adamw_step", no_root, "After a first step"),
        ("cosine", lambda *given: "1", "returned '1'; one number was wanted"),
        ("cosine", lambda *given: 1.0, "have the factors [1, 1]; wanted [0.5, 1]"),
        ("cosine", lambda step, steps, warm, floor: 1 / (step - step), "ZeroDivisionError"),
        ("clip_gradients", lambda parameters, longest: None, "returned None"),
        ("clip_gradients", gives_numbers_back, "the norm, one number, was wanted"),
        ("clip_gradients", sets_what_had_none, "got one that had none"),
        ("parameter_groups", lambda model, decay: model.parameters(), "a list of dicts was wanted"),
        ("parameter_groups", both_everywhere, "in the groups twice"),
        ("parameter_groups", lambda model, decay: [{"params": [], "weight_decay": 0}], "no group"),
        (
            "parameter_groups",
            lambda model, decay: [{"params": list(model.state_dict()), "weight_decay": 0}],
            "which is no parameter of the model",
        ),
        ("mended_update", lambda *given: "done", "the norm of the gradient before"),
        ("mended_update", lambda *given: 5.0, "the norm is 5 and the weight [0, 0]"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong
