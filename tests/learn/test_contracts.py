"""Contracts accept every right answer, however it is written, and name the mistake of each mutant."""

import importlib
import pkgutil

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.learn import contract, mutants
from qwen2lite.learn.check import contracts, examine
from qwen2lite.model.attention import attend
from qwen2lite.model.qwen2 import Parts
from tests.learn.verdict import verdict

MUTANTS = [
    pytest.param(part, mutant, id=f"{part}-{mutant.__name__}")
    for file in pkgutil.iter_modules(mutants.__path__, mutants.__name__ + ".")
    for part, wrong_ones in importlib.import_module(file.name).MUTANTS.items()
    for mutant in wrong_ones
]


@pytest.mark.parametrize(("part", "mutant"), MUTANTS)
def test_every_mutant_is_caught_and_its_own_mistake_named(part, mutant):
    result = verdict(part, mutant)
    assert result.state == "wrong"
    assert result.reason == " ".join(mutant.__doc__.split())


def test_the_zoo_holds_what_the_lessons_need():
    kinds = {param.values[0] for param in MUTANTS}
    assert kinds >= {"rotary_frequencies", "rotary_tables", "apply_rope", "norm", "mlp", "attend"}
    assert all(sum(p.values[0] == kind for p in MUTANTS) >= 3 for kind in kinds)


def rope_by_complex_numbers(x, cos, sin):
    pairs = x.shape[-1] // 2
    first, second = x[..., :pairs].float(), x[..., pairs:].float()
    turn = torch.complex(cos[:, :pairs].float(), sin[:, :pairs].float())
    turned = torch.complex(first, second) * turn
    return torch.cat((turned.real, turned.imag), dim=-1).to(x.dtype)


def rope_by_matrices(x, cos, sin):
    pairs = x.shape[-1] // 2
    c, s = cos[:, :pairs].to(x.dtype), sin[:, :pairs].to(x.dtype)
    matrices = torch.stack((torch.stack((c, -s), -1), torch.stack((s, c), -1)), -2)
    split = x.unflatten(-1, (2, pairs))
    return torch.einsum("trij,bntjr->bntir", matrices, split).flatten(-2)


def rope_by_loop(x, cos, sin):
    pairs, columns = x.shape[-1] // 2, [None] * x.shape[-1]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    for i in range(pairs):
        a, b, c, s = x[..., i], x[..., i + pairs], cos[:, i], sin[:, i]
        columns[i], columns[i + pairs] = a * c - b * s, b * c + a * s
    return torch.stack(columns, dim=-1)


def rope_by_roll(x, cos, sin):
    pairs = x.shape[-1] // 2
    signs = torch.tensor([-1.0] * pairs + [1.0] * pairs, dtype=x.dtype)
    return (x * cos + x.roll(pairs, dims=-1) * signs * sin).to(x.dtype)


def frequencies_by_powers(head_dim, rope_theta):
    if head_dim % 2:
        raise ValueError("odd")
    values = [rope_theta ** (-2.0 * i / head_dim) for i in range(head_dim // 2)]
    return torch.tensor(values, dtype=torch.float32, device="cpu")


def frequencies_by_exp(head_dim, rope_theta):
    if head_dim % 2 != 0:
        raise ValueError("odd")
    steps = torch.arange(0, head_dim, 2, device="cpu", dtype=torch.float64)
    logarithm = torch.log(torch.tensor(rope_theta, device="cpu", dtype=torch.float64))
    return torch.exp(-steps / head_dim * logarithm).float()


def frequencies_as_inverse(head_dim, rope_theta):
    if head_dim % 2:
        raise ValueError
    i = torch.arange(head_dim // 2, device="cpu").float()
    return 1.0 / (rope_theta ** (2 * i / head_dim))


def tables_by_polar(positions, frequencies):
    angles = torch.outer(positions.float(), frequencies).repeat(1, 2)
    turns = torch.polar(torch.ones_like(angles), angles)
    return turns.real, turns.imag


def tables_by_einsum(positions, frequencies):
    angles = torch.einsum("t,r->tr", positions.to(torch.float32), frequencies)
    return torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)


def tables_in_float64(positions, frequencies):
    angles = positions.double().unsqueeze(1) @ frequencies.double().unsqueeze(0)
    angles = torch.hstack((angles, angles))
    return torch.cos(angles).float(), torch.sin(angles).float()


class NormByHand(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x):
        length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)
        return (x.float() / (length**2 / x.shape[-1] + self.eps).sqrt()).to(x.dtype) * self.weight


class TorchNorm(nn.RMSNorm):
    def forward(self, x):
        return F.rms_norm(x.float(), x.shape[-1:], None, self.eps).to(x.dtype) * self.weight


class MatrixMLP(nn.Module):
    def __init__(self, size, width):
        super().__init__()
        self.gate_proj, self.up_proj = (nn.Linear(size, width, bias=False) for _ in range(2))
        self.down_proj = nn.Linear(width, size, bias=False)

    def forward(self, x):
        gate = x @ self.gate_proj.weight.T
        return (gate * gate.sigmoid() * (x @ self.up_proj.weight.T)) @ self.down_proj.weight.T


def attend_by_loop(q, k, v, mask=None):
    queries, keys, groups = q.shape[2], k.shape[2], q.shape[1] // k.shape[1]
    heads = []
    for n in range(q.shape[1]):
        scores = torch.einsum("bth,bsh->bts", q[:, n].float(), k[:, n // groups].float())
        rows = torch.arange(queries)[:, None] + keys - queries
        seen = torch.arange(keys) <= rows if mask is None else mask
        seen = seen[:, 0] if seen.ndim == 4 else seen
        weights = torch.where(seen, scores / q.shape[-1] ** 0.5, -torch.inf).softmax(-1)
        heads.append(torch.einsum("bts,bsh->bth", weights, v[:, n // groups].float()))
    return torch.stack(heads, dim=1).to(v.dtype)


RIGHT = [
    ("rotary_frequencies", frequencies_by_powers),
    ("rotary_frequencies", frequencies_by_exp),
    ("rotary_frequencies", frequencies_as_inverse),
    ("rotary_tables", tables_by_polar),
    ("rotary_tables", tables_by_einsum),
    ("rotary_tables", tables_in_float64),
    ("apply_rope", rope_by_complex_numbers),
    ("apply_rope", rope_by_matrices),
    ("apply_rope", rope_by_loop),
    ("apply_rope", rope_by_roll),
    ("norm", NormByHand),
    ("norm", TorchNorm),
    ("mlp", MatrixMLP),
    ("attend", attend),
    ("attend", attend_by_loop),
    ("half_split_order", lambda size: torch.arange(size).view(-1, 2).T.flatten()),
    ("half_split_order", lambda size: sorted(range(size), key=lambda i: i % 2)),
    ("first_wrong_position", lambda: 257),
    ("mended_tables", tables_by_polar),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize("name", sorted(contracts().keys() & set(Parts.__dataclass_fields__)))
def test_the_reference_passes_and_is_called_the_packages_own(name):
    result = verdict(name, getattr(Parts(), name))
    assert result.state == "right"
    assert "package's own" in result.note


def interleaved_otherwise_written(x, cos, sin):
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    turns = torch.complex(cos, sin)[:, : x.shape[-1] // 2]
    return torch.view_as_real(pairs * turns).flatten(-2).to(x.dtype)


def test_a_mistake_is_known_also_in_another_hand():
    assert "interleaved layout" in verdict("apply_rope", interleaved_otherwise_written).reason
    result = verdict("rotary_tables", lambda p, f: tables_by_polar(p.bfloat16().float(), f))
    assert "has no 257" in result.reason


def half_turned(x, cos, sin):
    out = rope_by_complex_numbers(x, cos, sin)
    pairs = x.shape[-1] // 2
    keep = torch.arange(x.shape[-1]) % pairs >= pairs // 2
    return torch.where(keep & (x.shape[-1] > 4), x, out)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("apply_rope", lambda x, cos, sin: None, "returned None"),
        ("apply_rope", lambda x, cos, sin: x[..., :4], "float32 [2, 3, 5, 4]"),
        ("apply_rope", lambda x, cos, sin: x.double(), "float64 [2, 3, 5, 8]"),
        ("apply_rope", lambda x, cos, sin: x.tolist(), "returned a list"),
        ("apply_rope", lambda x, cos, sin: x.mul_(2), "changed a tensor"),
        ("apply_rope", lambda x, cos: x, "TypeError"),
        ("apply_rope", lambda x, cos, sin: x @ cos, "RuntimeError"),
        ("apply_rope", lambda x, cos, sin: x.clone(), "made it [1, 2, 3, 4]"),
        ("apply_rope", half_turned, "another angle"),
        (
            "apply_rope",
            lambda x, cos, sin: rope_by_loop(x.detach(), cos, sin),
            "stops the gradient",
        ),
        ("rotary_tables", lambda p, f: p.float()[:, None] * f, "the pair (cos, sin)"),
        ("rotary_tables", lambda p, f: (p[:, None] * f,) * 2, "float32 [5, 3]"),
        ("rotary_frequencies", lambda h, t: torch.ones(h), "[8], and float32 [4]"),
        ("rotary_frequencies", lambda h, t: [1.0] * (h // 2), "returned a list"),
        ("norm", lambda size, eps: lambda x: x, "a torch.nn.Module was wanted"),
        ("norm", lambda size, eps: nn.LayerNorm(size, eps), "has bias"),
        ("mlp", lambda size, width: nn.Linear(size, width), "lacks gate_proj.weight [7, 4]"),
        ("half_split_order", lambda size: [0] * size, "belongs in it once"),
        ("half_split_order", lambda size: list(range(size)), "is not what turning"),
        ("first_wrong_position", lambda: 256, "256 is not it"),
        ("first_wrong_position", lambda: 259, "not the first"),
        ("first_wrong_position", lambda: "257", "returned a str"),
        ("first_wrong_position", 257, "the function itself is wanted"),
        ("apply_rope", object(), "the function itself is wanted"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def test_the_way_back_is_recognised():
    def backwards(size):
        return [i // 2 + size // 2 * (i % 2) for i in range(size)]

    # With four coordinates the order is its own inverse: only a larger head tells.
    assert "way back" in verdict("half_split_order", backwards).reason


def test_even_heads_only():
    def careless(head_dim, theta):
        return frequencies_by_powers(head_dim - head_dim % 2, theta)

    result = verdict("rotary_frequencies", careless)
    assert "should raise a ValueError" in result.wrong
    assert len(result.held) == 4


def test_a_stub_is_not_written_yet():
    def stub(*inputs, **named):
        raise NotImplementedError

    for name in contracts():
        result = verdict(name, stub)
        assert result.state == "not written yet"
        assert not result.held


def test_an_endless_loop_ends(monkeypatch):
    monkeypatch.setattr(contract, "TIME_LIMIT", 0.2)

    def endless(x, cos, sin):
        while True:
            pass

    result = verdict("apply_rope", endless)
    assert "still running after 0.2 seconds" in result.wrong


def test_the_learners_own_line_is_shown(tmp_path):
    path = tmp_path / "cell.py"
    path.write_text("def rope(x, cos, sin):\n    y = 2\n    return y @ cos\n", encoding="utf-8")
    namespace: dict = {}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), namespace)
    assert "(in the line `return y @ cos`)" in verdict("apply_rope", namespace["rope"]).wrong
    assert "It was given (float32 [2, 3, 5, 8]" in verdict("apply_rope", namespace["rope"]).wrong


def test_checks_leave_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    examine(apply_rope=rope_by_loop, attend=attend_by_loop)
    assert torch.equal(torch.rand(2), expected)
