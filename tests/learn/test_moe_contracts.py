"""The contracts of the experts' parts: other right answers pass, wrong ones hear what is wrong.

That each mutant is caught and named is tested with all others, in test_contracts.py.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.model.balance import load_balance_loss
from qwen2lite.model.moe import Experts, MixtureOfExperts, route
from tests.learn.verdict import verdict


def routed_by_sorting(logits, number, norm):
    """From worst to best: the order of the kept is free."""
    scores = logits.float()
    probabilities = (scores - scores.logsumexp(-1, keepdim=True)).exp()
    chosen = scores.argsort(dim=-1)[..., -number:]
    weights = probabilities.gather(-1, chosen)
    return (F.normalize(weights, p=1, dim=-1) if norm else weights), chosen


def routed_by_loops(logits, number, norm):
    rows = []
    for row in logits.float().unbind():
        powers = (row - row.max()).exp()
        best = sorted(range(len(row)), key=row.tolist().__getitem__)[::-1][:number]
        kept = powers[best] / (powers[best].sum() if norm else powers.sum())
        rows.append((kept, torch.tensor(best)))
    weights, chosen = zip(*rows, strict=True)
    return torch.stack(weights), torch.stack(chosen)


class ExpertsTokenByToken(nn.ModuleList):
    def __init__(self, config, mlp):
        sizes = (config.hidden_size, config.moe_intermediate_size)
        super().__init__([mlp(*sizes) for _ in range(config.num_experts)])

    def forward(self, x, weights, chosen):
        rows = []
        for token, shares, numbers in zip(x, weights, chosen.tolist(), strict=True):
            answers = [self[number](token[None, None])[0, 0] for number in numbers]
            rows.append((shares[:, None].to(x.dtype) * torch.stack(answers)).sum(0))
        return torch.stack(rows)


class ExpertsByMask(nn.ModuleList):
    def __init__(self, config, mlp):
        sizes = (config.hidden_size, config.moe_intermediate_size)
        super().__init__([mlp(*sizes) for _ in range(config.num_experts)])

    def forward(self, x, weights, chosen):
        mixed = torch.zeros_like(x)
        for number, expert in enumerate(self):
            share = (weights * (chosen == number)).sum(-1)
            takes = (chosen == number).any(-1)
            if takes.any():
                mixed[takes] += share[takes, None].to(x.dtype) * expert(x[takes][None])[0]
        return mixed


class LayerInBatches(nn.Module):
    """Keeps batch and positions apart all the way, and starts with the shared expert."""

    def __init__(self, config, mlp, route):
        super().__init__()
        size, self.config, self.route = config.hidden_size, config, route
        self.shared_expert_gate = nn.Linear(size, 1, bias=False)
        self.shared_expert = mlp(size, config.shared_expert_intermediate_size)
        self.experts = ExpertsByMask(config, mlp)
        self.gate = nn.Linear(size, config.num_experts, bias=False)

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        shared = self.shared_expert(rows[None])[0] / (1 + (-self.shared_expert_gate(rows)).exp())
        number, norm = self.config.num_experts_per_tok, self.config.norm_topk_prob
        mixed = self.experts(rows, *self.route(self.gate(x).flatten(0, 1), number, norm))
        return (mixed + shared).reshape(x.shape)


def loss_by_one_hot(routers, number, mask=None, per_layer=False):
    if per_layer:
        return sum(loss_by_one_hot([one], number, mask) for one in routers) / len(routers)
    probabilities = torch.cat([one.softmax(-1) for one in routers])
    count = torch.ones(len(probabilities))
    if mask is not None:
        count = mask.reshape(-1).float().repeat(len(routers))
    chosen = F.one_hot(probabilities.topk(number).indices, probabilities.shape[1]).sum(1).float()
    load, mean = (count @ one / count.sum() for one in (chosen, probabilities))
    return probabilities.shape[1] * load @ mean


RIGHT = [
    ("route", routed_by_sorting),
    ("route", routed_by_loops),
    ("experts", ExpertsTokenByToken),
    ("experts", ExpertsByMask),
    ("moe", LayerInBatches),
    ("load_balance_loss", loss_by_one_hot),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(("name", "part"), [("experts", Experts), ("moe", MixtureOfExperts)])
def test_the_packages_own_passes(name, part):
    assert verdict(name, part).state == "right"


class NoExperts(nn.Module):
    def __init__(self, config, mlp, route):
        super().__init__()


class Narrow(MixtureOfExperts):
    """Comes out as float32 whatever went in."""

    def forward(self, x_BTD):
        return super().forward(x_BTD).float()


class RouterWithoutGradient(MixtureOfExperts):
    def forward(self, x_BTD):
        with torch.no_grad():
            self.gate.weight.requires_grad_(False)
        return super().forward(x_BTD)


def always_the_first(logits, number, norm):
    weights, _ = route(logits, number, norm)
    return weights, torch.arange(number).expand(len(logits), number)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("route", lambda s, k, norm: s.topk(k).values, "returned float32 [2, 2], and a pair"),
        ("route", lambda s, k, norm: (s, s), "as its first, returned float32 [2, 3]"),
        ("route", lambda s, k, norm: (s[:, :k], s[:, :k]), "as its second, returned float32"),
        ("route", lambda s, k, norm: route(s, k, norm)[::-1], "as its first, returned int64"),
        (
            "route",
            lambda s, k, norm: (route(s, k, norm)[0], route(s, k, norm)[1] + 1),
            "an expert that isn't there",
        ),
        ("route", always_the_first, "the experts' weights are [0.6, 0.3, 0]"),
        ("route", lambda s, k, norm: route(s * 0.999, k, norm), "and should be [0, 0.6, 0.3]"),
        ("experts", lambda config, mlp: nn.ModuleList(), "lacks 0.gate_proj.weight [5, 4]"),
        ("moe", NoExperts, "lacks experts.0.gate_proj.weight [5, 4]"),
        ("moe", lambda config, mlp, route: mlp(4, 5), "moe has"),
        ("moe", Narrow, "moe in bfloat16 returned float32 [2, 4, 4]"),
        ("moe", RouterWithoutGradient, "lets no gradient through to gate"),
        ("load_balance_loss", lambda routers, k: 2.0, "returned 2.0; a tensor of one number"),
        ("load_balance_loss", lambda routers, k: routers[0], "returned float32 [4, 4]"),
        ("load_balance_loss", lambda routers, k: routers[0].sum() * 0, "the loss is 2.075"),
        (
            "load_balance_loss",
            lambda routers, k, *rest: load_balance_loss(
                [routers[0], *(one.detach() for one in routers[1:])], k, *rest
            ),
            "lets no gradient through to layer 1's scores",
        ),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong", result
    assert said in result.wrong


def test_experts_that_are_only_listed_are_not_written_yet():
    result = verdict("experts", lambda config, mlp: nn.ModuleList(mlp(4, 5) for _ in range(12)))
    assert result.state == "not written yet" and len(result.held) == 1


def test_a_mistake_is_known_also_in_another_order():
    def forgotten(logits, number, norm):
        return routed_by_sorting(logits, number, True)

    assert "come to 1, although norm_topk_prob is off" in verdict("route", forgotten).reason


def test_the_numbers_by_hand_are_those_of_the_formula():
    """What check_moe calls 3144 and the first loss 2.075, once more from the formulas."""
    routed = 0.6 * 10 * 2**2 + 0.3 * 100 * 2**2
    shared = 1 / (1 + math.exp(-math.log(3))) * 1000 * 2**2
    assert routed + shared == pytest.approx(3144)
    loads, means = (0.75, 0.5, 0.5, 0.25), (0.3, 0.25, 0.225, 0.225)
    assert 4 * sum(f * p for f, p in zip(loads, means, strict=True)) == pytest.approx(2.075)


def test_transformers_loss_passes():
    """The oracle of the library that the formula is taken from, under our arguments."""
    qwen2_moe = pytest.importorskip("transformers.models.qwen2_moe.modeling_qwen2_moe")

    def theirs(routers, number, mask=None, per_layer=False):
        if per_layer:
            return sum(theirs([one], number, mask) for one in routers) / len(routers)
        arguments = (tuple(routers), routers[0].shape[1], number, mask)
        return qwen2_moe.load_balancing_loss_func(*arguments)

    result = verdict("load_balance_loss", theirs)
    assert result.state == "right", result
