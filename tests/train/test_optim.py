"""AdamW against PyTorch's and against a step by hand; which weights decay; clipping."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qwen2lite.train.by_hand import PARTS
from qwen2lite.train.optim import AdamW, clip_gradients, parameter_groups

SHAPES = [(3, 4), (5,), (2, 3, 2), (1,)]


def some_weights():
    chance = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(shape, generator=chance)) for shape in SHAPES]


def groups(weights):
    return [
        {"params": weights[:2], "weight_decay": 0.3},
        {"params": weights[2:], "weight_decay": 0.0, "lr": 0.05, "betas": (0.8, 0.99)},
    ]


def set_gradients(weights, step):
    """Large and tiny ones; now and then a weight has none, as an expert without tokens."""
    chance = torch.Generator().manual_seed(step)
    for number, weight in enumerate(weights):
        scale = 10.0 ** float(torch.randint(-6, 3, (), generator=chance))
        gradient = torch.randn(weight.shape, generator=chance) * scale
        weight.grad = None if (step + number) % 4 == 0 else gradient


def go(optimizer, weights, steps):
    for step in steps:
        set_gradients(weights, step)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 0.98
        optimizer.step()


def agree_over_50_steps(kind):
    mine, theirs = some_weights(), some_weights()
    ours = kind(groups(mine), lr=0.02, eps=1e-7, betas=(0.9, 0.95))
    pytorchs = torch.optim.AdamW(groups(theirs), lr=0.02, eps=1e-7, betas=(0.9, 0.95))
    for step in range(50):
        go(ours, mine, [step])
        go(pytorchs, theirs, [step])
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-6)


def test_it_makes_the_steps_of_pytorchs():
    agree_over_50_steps(AdamW)


class DecayInTheGradient(AdamW):
    """Adam with L2 regularisation, which AdamW was made to replace."""

    def _move(self, weights, group):
        for weight in weights:
            weight.grad += group["weight_decay"] * weight
        super()._move(weights, group | {"weight_decay": 0.0})


class OneCountForAll(AdamW):
    """Counts the optimizer's steps and not each weight's."""

    def _move(self, weights, group):
        for weight in group["params"]:
            self._state(weight)["step"] += weight.grad is None
        super()._move(weights, group)


class NoCorrection(AdamW):
    def _move(self, weights, group):
        for weight in weights:
            self._state(weight)["step"].fill_(10_000)
        super()._move(weights, group)


class DecayNotTimesTheRate(AdamW):
    def _move(self, weights, group):
        super()._move(weights, group | {"weight_decay": group["weight_decay"] / group["lr"]})


@pytest.mark.parametrize(
    "kind", [DecayInTheGradient, OneCountForAll, NoCorrection, DecayNotTimesTheRate]
)
def test_an_adamw_with_a_bug_is_caught(kind):
    with pytest.raises(AssertionError):
        agree_over_50_steps(kind)


def test_where_none_are_given_betas_and_eps_are_those_of_qwen1():
    settings = AdamW(some_weights()).defaults
    assert (settings["betas"], settings["eps"]) == ((0.9, 0.95), 1e-8)


def test_one_step_by_hand():
    weight = nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = AdamW([weight], lr=0.1, betas=(0.9, 0.95), eps=0.5, weight_decay=0.2)
    weight.grad = torch.tensor([4.0, 0.0])
    optimizer.step()
    # m/(1-β1) = 4 and v/(1-β2) = 16, so the step is 0.1 · 4 / (4 + 0.5); decay takes 0.1 · 0.2.
    assert weight.tolist() == pytest.approx([2 * 0.98 - 0.4 / 4.5, -0.98], rel=1e-6)
    weight.grad = torch.tensor([-2.0, 0.0])
    optimizer.step()
    mean = (0.9 * 0.1 * 4 - 0.1 * 2) / (1 - 0.9**2)
    square = (0.95 * 0.05 * 16 + 0.05 * 4) / (1 - 0.95**2)
    wanted = (1.96 - 0.4 / 4.5) * 0.98 - 0.1 * mean / (math.sqrt(square) + 0.5)
    assert weight.tolist() == pytest.approx([wanted, -0.98 * 0.98], rel=1e-6)


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_either_adamw_goes_on_where_the_other_stopped(ours_first, fused):
    def pytorchs(weights):
        return torch.optim.AdamW(groups(weights), lr=0.02, betas=(0.9, 0.95), fused=fused)

    def ours(weights):
        return AdamW(groups(weights), lr=0.02, betas=(0.9, 0.95))

    first, second = (ours, pytorchs) if ours_first else (pytorchs, ours)
    never_stopped, stopped = some_weights(), some_weights()
    go(ours(never_stopped), never_stopped, range(12))
    before = first(stopped)
    go(before, stopped, range(6))
    after = second(stopped)
    state = before.state_dict()
    settings = [{k: v for k, v in g.items() if k != "fused"} for g in state["param_groups"]]
    after.load_state_dict({"state": state["state"], "param_groups": settings})
    go(after, stopped, range(6, 12))
    for one, other in zip(never_stopped, stopped, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-6, atol=2e-6)
    forgetful = some_weights()
    go(first(forgetful), forgetful, range(6))
    go(second(forgetful), forgetful, range(6, 12))
    assert (forgetful[0] - stopped[0]).abs().max() > 1e-3


def test_a_weight_without_a_gradient_stays():
    weights = some_weights()
    before = [weight.clone() for weight in weights]
    optimizer = AdamW(weights, lr=0.1)
    weights[0].grad = torch.ones(3, 4)
    optimizer.step()
    assert [torch.equal(*pair) for pair in zip(weights, before, strict=True)] == [
        False, True, True, True,
    ]  # fmt: skip
    assert [len(optimizer.state[weight]) for weight in weights] == [3, 0, 0, 0]


def test_a_closure_is_refused():
    optimizer = AdamW(some_weights())
    with pytest.raises(ValueError, match="takes no closure: call backward"):
        optimizer.step(lambda: 0.0)


MATRICES = {
    "q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight",
    "gate_proj.weight", "up_proj.weight", "down_proj.weight",
}  # fmt: skip


@pytest.mark.parametrize("parts", [None, PARTS])
@pytest.mark.parametrize("tied", [True, False])
def test_matrices_decay_and_nothing_else(tied, parts, small):
    model = small(parts, tie_word_embeddings=tied)
    decaying, others = parameter_groups(model, 0.25)
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.25, 0.0)
    names = {parameter: name for name, parameter in model.named_parameters()}
    decay = {names[parameter] for parameter in decaying["params"]}
    stay = {names[parameter] for parameter in others["params"]}
    wanted = {f"model.layers.{n}." for n in range(2)}
    in_layers = {name for name in decay if name != "lm_head.weight"}
    assert {name.split("self_attn.")[0].split("mlp.")[0] for name in in_layers} == wanted
    assert {".".join(name.split(".")[-2:]) for name in in_layers} == MATRICES
    assert len(in_layers) == 2 * len(MATRICES)
    assert ("lm_head.weight" in decay) == (not tied)
    assert "model.embed_tokens.weight" in stay
    assert {name.rsplit(".", 1)[-1] for name in stay if "norm" not in name} == {"weight", "bias"}
    together = decaying["params"] + others["params"]
    assert len(together) == len(decay | stay) == len(names), "each once"


def test_experts_decay_too(small):
    model = small(num_experts=3, num_experts_per_tok=2, moe_intermediate_size=10)
    decaying, _ = parameter_groups(model, 0.1)
    decay = {id(parameter) for parameter in decaying["params"]}
    experts = [p for name, p in model.named_parameters() if "expert" in name and p.ndim > 1]
    assert len(experts) >= 4
    assert all(id(parameter) in decay for parameter in experts)


def test_decay_alone_shrinks_the_matrices_and_leaves_the_rest(small):
    model = small()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    AdamW(parameter_groups(model, 0.5), lr=0.1).step()
    for name, parameter in model.named_parameters():
        share = 0.95 if "proj.weight" in name else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * share, rtol=1e-6, atol=0)


@settings(deadline=None)
@given(st.integers(0, 40), st.sampled_from([1e-3, 0.7, 5.0, 1e4, math.inf]))
def test_clipping_is_pytorchs(seed, longest):
    mine, theirs = some_weights(), some_weights()
    set_gradients(mine, seed)
    set_gradients(theirs, seed)
    before = [w.grad.clone() for w in mine if w.grad is not None]
    norm = clip_gradients(mine, longest)
    wanted = nn.utils.clip_grad_norm_(theirs, longest)
    torch.testing.assert_close(norm, wanted, rtol=1e-6, atol=0)
    by_hand = math.sqrt(sum(float(g.double().square().sum()) for g in before))
    assert float(norm) == pytest.approx(by_hand, rel=1e-5)
    for one, other in zip(mine, theirs, strict=True):
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-6, atol=0)
    assert float(clip_gradients(mine, math.inf)) <= longest * (1 + 1e-5)


def test_clipping_by_hand():
    weight, bias, idle = (nn.Parameter(torch.zeros(n)) for n in (1, 1, 2))
    weight.grad, bias.grad = torch.tensor([3.0]), torch.tensor([-4.0])
    assert float(clip_gradients([weight, bias, idle], 6.0)) == 5.0
    assert (float(weight.grad), float(bias.grad)) == (3.0, -4.0), "short enough: not touched"
    assert float(clip_gradients([weight, bias, idle], 2.5)) == 5.0
    assert (float(weight.grad), float(bias.grad)) == pytest.approx((1.5, -2.0), rel=1e-6)
    assert idle.grad is None


def test_without_gradients_the_norm_is_zero():
    assert float(clip_gradients(some_weights(), 1.0)) == 0.0
