"""The contracts of lesson 25 accept every right answer and tell wrong ones in a clear sentence."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.learn.verdict import verdict


def by_loop(x, gate, up, down):
    total = torch.zeros(*x.shape[:-1], len(down))
    for f in range(len(gate)):
        opened = F.silu((x * gate[f]).sum(-1)) * (x * up[f]).sum(-1)
        total = total + opened.unsqueeze(-1) * down[:, f]
    return total


def by_linear(x, gate, up, down):
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def by_einsum(x, gate, up, down):
    gates, ups = (torch.einsum("...d,fd->...f", x, matrix) for matrix in (gate, up))
    return torch.einsum("...f,df->...d", gates * gates.sigmoid() * ups, down)


def joined_by_split(x, both, down):
    gate, up = F.linear(x, both).split(len(both) // 2, dim=-1)
    return F.linear(F.silu(gate) * up, down)


def joined_by_rows(x, both, down):
    width = down.shape[1]
    return by_loop(x, both[:width], both[width:], down)


def joined_by_unflatten(x, both, down):
    gate, up = (x @ both.T).unflatten(-1, (2, -1)).unbind(-2)
    return F.silu(gate) * up @ down.T


class SeparateMatrices(nn.Module):
    """Made of parameters in modules of its own, and multiplied with einsum."""

    def __init__(self, size, width):
        super().__init__()
        shapes = {"gate_proj": (width, size), "up_proj": (width, size), "down_proj": (size, width)}
        for name, shape in shapes.items():
            self.add_module(name, nn.ParameterDict({"weight": torch.zeros(shape)}))

    def forward(self, x):
        matrices = [getattr(self, f"{n}_proj").weight for n in ("gate", "up", "down")]
        return by_einsum(x, *matrices)


class InPlaces(nn.Module):
    """Multiplies into the gates, which are its own."""

    def __init__(self, size, width):
        super().__init__()
        self.gate_proj = nn.Linear(size, width, bias=False)
        self.up_proj = nn.Linear(size, width, bias=False)
        self.down_proj = nn.Linear(width, size, bias=False)

    def forward(self, x):
        opened = F.silu(self.gate_proj(x))
        return self.down_proj(opened.mul(self.up_proj(x)))


class ByFunction(InPlaces):
    def forward(self, x):
        return by_linear(x, self.gate_proj.weight, self.up_proj.weight, self.down_proj.weight)


def needed_by_loop(h, share):
    squares = sorted((h**2).tolist(), reverse=True)
    held = 0.0
    for count, square in enumerate(squares, 1):
        held += square
        if held >= share * sum(squares):
            return count
    return len(squares)


def needed_by_search(h, share):
    sums = h.square().sort(descending=True).values.cumsum(0)
    return torch.searchsorted(sums, share * sums[-1]) + 1


RIGHT = [
    ("silu", lambda x: x * x.sigmoid()),
    ("silu", lambda x: x * F.logsigmoid(x).exp()),
    ("silu", lambda x: x * 0.5 * (1 + torch.tanh(x / 2))),
    ("silu", F.silu),
    ("swiglu", by_loop),
    ("swiglu", by_linear),
    ("swiglu", by_einsum),
    ("mlp", SeparateMatrices),
    ("mlp", InPlaces),
    ("mlp", ByFunction),
    ("mended_swiglu", joined_by_split),
    ("mended_swiglu", joined_by_rows),
    ("mended_swiglu", joined_by_unflatten),
    ("neurons_needed", needed_by_loop),
    ("neurons_needed", needed_by_search),
    ("neurons_needed", lambda h, share: int(needed_by_search(h, share))),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("silu", lambda x: F.silu(x.float()), "float32 [2, 3, 4], and bfloat16 [2, 3, 4]"),
        ("silu", lambda x: x.tolist(), "returned a list"),
        ("silu", lambda x: 2 * F.silu(x), "got [0, 1.6479, -0.5493]"),
        ("silu", lambda x: F.silu(x.detach()), "stops the gradient"),
        ("silu", lambda x: F.silu(x).clamp(max=100), "200; got [0, 100]"),
        ("silu", lambda x: x / (1 + torch.exp(-x)), "is 0 and 1; got [nan, 1]"),
        ("silu", lambda x: x * (1 / (1 + torch.exp(-x))), "is 0 and 1; got [nan, 1]"),
        ("swiglu", lambda x, gate, up, down: x[0], "float32 [1, 2], and float32 [1, 1, 2]"),
        ("swiglu", lambda *inputs: 2 * by_loop(*inputs), "got [17.054"),
        ("swiglu", lambda x, g, u, d: by_loop(x, g, u, d.abs()), "On random matrices"),
        ("swiglu", lambda x, gate, up, down: x @ torch.ones(5, 2), "RuntimeError"),
        ("mended_swiglu", lambda x, both, down: x @ both[:1].T + 1, "the gate is shut"),
        ("mended_swiglu", lambda x, both, down: 0 * joined_by_rows(x, both, down), "it is wrong"),
        ("neurons_needed", lambda h, share: "few", "a whole number was wanted"),
        ("neurons_needed", lambda h, share: 1.5, "a whole number was wanted"),
        ("neurons_needed", lambda h, share: h, "a whole number was wanted"),
        ("neurons_needed", lambda h, share: len(h), "1 hold 50% of the squares, and yours says 5"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong
