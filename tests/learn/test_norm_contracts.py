"""The contracts of lesson 21 accept every right answer and tell wrong ones in a clear sentence."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.learn.mutants.norm_tasks import eps_outside
from qwen2lite.model.norm import RMSNorm
from tests.learn.verdict import verdict


def root_by_power(x, eps):
    return (x.to(torch.float32).pow(2).mean(dim=-1, keepdim=True) + eps) ** 0.5


def root_by_sum(x, eps):
    wide = x.float()
    return (torch.einsum("...d,...d->...", wide, wide) / x.shape[-1] + eps).sqrt().unsqueeze(-1)


def root_by_norm(x, eps):
    length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
    return (length**2 / x.shape[-1] + eps).sqrt()


def norm_by_division(x, weight, eps):
    return weight * (x.float() / root_by_sum(x, eps)).type_as(x)


def norm_by_pytorch(x, weight, eps):
    """PyTorch's own, without its weight, which it would multiply before the cast."""
    return F.rms_norm(x.float(), x.shape[-1:], eps=eps).to(x.dtype) * weight


def norm_by_loop(x, weight, eps):
    rows = [
        row * torch.rsqrt(row.square().mean() + eps) for row in x.float().reshape(-1, len(weight))
    ]
    return torch.stack(rows).reshape(x.shape).to(x.dtype) * weight


class NormOfPyTorch(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.size, self.eps = size, eps

    def forward(self, x):
        return self.weight * F.rms_norm(x.float(), (self.size,), None, self.eps).type_as(x)


class NormByFunction(NormOfPyTorch):
    def forward(self, x):
        return norm_by_division(x, self.weight, self.eps)


class NormByLoop(NormOfPyTorch):
    def forward(self, x):
        return norm_by_loop(x, self.weight, self.eps)


RIGHT = [
    ("root_mean_square", root_by_power),
    ("root_mean_square", root_by_sum),
    ("root_mean_square", root_by_norm),
    ("rms_norm", norm_by_division),
    ("rms_norm", norm_by_pytorch),
    ("rms_norm", norm_by_loop),
    ("mended_norm", norm_by_loop),
    ("norm", RMSNorm),
    ("norm", NormOfPyTorch),
    ("norm", NormByFunction),
    ("norm", NormByLoop),
    ("loudest_share", lambda x: x.square().amax(-1) / x.square().sum(-1)),
    ("loudest_share", lambda x: F.normalize(x, dim=-1).square().max(dim=-1).values),
    (
        "loudest_share",
        lambda x: torch.tensor([max(v * v for v in r) / sum(v * v for v in r) for r in x.tolist()]),
    ),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


class WithBias(RMSNorm):
    def __init__(self, size, eps):
        super().__init__(size, eps)
        self.bias = nn.Parameter(torch.zeros(size))


class StartsAtZero(RMSNorm):
    def __init__(self, size, eps):
        super().__init__(size, eps)
        nn.init.zeros_(self.weight)


def without_gradient(x, weight, eps):
    return weight * norm_by_division(x.detach(), torch.ones_like(weight), eps)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        (
            "root_mean_square",
            lambda x, eps: 5.0,
            "returned a float, and a tensor float32 [1, 1, 1]",
        ),
        ("root_mean_square", lambda x, eps: root_by_power(x, eps)[..., 0], "float32 [1, 1], and"),
        ("root_mean_square", lambda x, eps: root_by_power(x, 2 * eps), "wanted [6], got [6.8557]"),
        ("root_mean_square", lambda x, eps: root_by_power(x, eps).detach(), "stops the gradient"),
        ("rms_norm", lambda x, weight, eps: x, "wanted [0.2, 1.4], got [1, 7]"),
        ("rms_norm", without_gradient, "lets no gradient through to its input"),
        ("rms_norm", lambda x, weight: x, "TypeError"),
        ("mended_norm", eps_outside, "With eps = 11, [1, 7] is divided by √36"),
        ("norm", WithBias, "norm(6, 1e-6) has bias, which the checkpoint doesn't"),
        ("norm", StartsAtZero, "doesn't start as ones"),
        ("norm", lambda size, eps: nn.LayerNorm(size), "has bias"),
        ("loudest_share", lambda x: 0.64, "returned a float"),
        ("loudest_share", lambda x: x.square().amax(-1), "The shares are [0.64, 0.25, 0.9]"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def test_pytorchs_own_with_its_weight_rounds_in_the_other_order():
    """The very kernel that PyTorch offers fails the check, and is told why."""

    class Fused(NormOfPyTorch):
        def forward(self, x):
            return F.rms_norm(x, (self.size,), self.weight, self.eps)

    result = verdict("norm", Fused)
    assert result.state == "wrong" and "before the cast back" in result.reason


def test_a_vector_of_zeros_meets_nan_only_in_training():
    """What `RootOfZero` does wrong, shown without the checker."""
    zeros = torch.zeros(1, 1, 4, requires_grad=True)
    root = zeros.square().mean(-1, keepdim=True).sqrt()
    (zeros * torch.rsqrt(root.square() + 1e-6)).sum().backward()
    assert zeros.grad.isnan().all()
    zeros.grad = None
    RMSNorm(4)(zeros).sum().backward()
    assert zeros.grad.isfinite().all()


def test_an_eps_written_in_the_code_is_told_what_is_true_of_it():
    class WrittenIn(NormOfPyTorch):
        def __init__(self, size, eps):
            super().__init__(size, 1e-6)

    result = verdict("norm", WrittenIn)
    assert result.state == "wrong" and "another one is written in the code" in result.reason
