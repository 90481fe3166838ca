"""The Online Merging Optimizer by hand, against sums of AdamW's steps, and against wrong mergers."""

import dataclasses
import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qwen2lite import Qwen2
from qwen2lite.align.dpo import pair_logps, train_dpo
from qwen2lite.align.merge import (
    OnDARE,
    OnTIES,
    by_sign,
    deltas,
    drop_at_random,
    keep_top,
)
from qwen2lite.train.loss import IGNORED
from qwen2lite.train.optim import AdamW, parameter_groups
from tests.align.tiny import CONFIG

SHAPES = [(3, 4), (5,), (2, 3, 2), (1,)]
BOTH = pytest.mark.parametrize("kind", [OnDARE, OnTIES])


def some(seed, dtype=torch.float32):
    chance = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=chance, dtype=dtype) for shape in SHAPES]


def some_weights(dtype=torch.float32):
    return [nn.Parameter(x) for x in some(1, dtype)]


def taus(weights, seed=2):
    return dict(zip(weights, some(seed, weights[0].dtype), strict=True))


def groups(weights):
    return [
        {"params": weights[:2], "weight_decay": 0.3},
        {"params": weights[2:], "weight_decay": 0.0, "lr": 0.05, "betas": (0.8, 0.99)},
    ]


def go(optimizer, weights, steps):
    """The same gradients for all; now and then a weight has none, as an expert without tokens."""
    for step in range(steps):
        for number, (weight, gradient) in enumerate(zip(weights, some(step + 7), strict=True)):
            weight.grad = None if (step + number) % 4 == 0 else gradient.to(weight)
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * 0.98
        optimizer.step()


@BOTH
def test_with_nothing_dropped_and_nothing_merged_it_is_adamw(kind):
    """To the last bit, and so are its means."""
    mine, plain = some_weights(), some_weights()
    merging = kind(groups(mine), taus(mine), keep=1.0, alpha=0.0, lr=0.02)
    adamw = AdamW(groups(plain), lr=0.02)
    go(merging, mine, 50)
    go(adamw, plain, 50)
    assert all(map(torch.equal, mine, plain))
    for one, other in zip(mine, plain, strict=True):
        for name, value in adamw.state[other].items():
            assert torch.equal(merging.state[one][name], value)


def test_merged_is_the_weighted_sum_of_all_steps_and_tau():
    """Gradients that don't depend on the weights make the same d, whatever they are merged with."""
    mine, plain, alpha = some_weights(torch.float64), some_weights(torch.float64), 0.1
    tau = taus(mine)
    merging = OnDARE(mine, tau, keep=1.0, alpha=alpha, lr=0.02, weight_decay=0.0)
    adamw = torch.optim.AdamW(plain, lr=0.02, betas=(0.9, 0.95), weight_decay=0.0)
    go(merging, mine, 6)
    go(adamw, plain, 6)
    steps = [sum((step + number) % 4 != 0 for step in range(6)) for number in range(4)]
    for weight, other, start, made in zip(mine, plain, some(1, torch.float64), steps, strict=True):
        wanted = start + (1 - alpha) * (other - start) + made * alpha * tau[weight]
        torch.testing.assert_close(weight.data, wanted.data, rtol=1e-12, atol=1e-12)


def first_step(kind, tau, alpha, **more):
    """AdamW's first step is as long as the learning rate, and goes against the gradient."""
    weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    merging = kind([weight], {weight: torch.full_like(weight, tau)}, keep=1.0, alpha=alpha,
                   lr=0.1, eps=0.0, weight_decay=0.5, **more)  # fmt: skip
    weight.grad = torch.full_like(weight, 3.0)
    merging.step()
    return weight.item()


def test_a_step_by_hand():
    """0.95 is what the decay leaves, and d is -0.1."""
    assert first_step(OnDARE, 0.5, 0.2) == pytest.approx(0.95 - 0.08 + 0.1, abs=1e-15)
    assert first_step(OnTIES, 0.5, 0.2) == pytest.approx(0.95 + 0.1, abs=1e-15)
    assert first_step(OnTIES, 0.3, 0.2) == pytest.approx(0.95 - 0.08, abs=1e-15)
    assert first_step(OnTIES, -0.5, 0.2) == pytest.approx(0.95 - 0.08 - 0.1, abs=1e-15)
    code = first_step(OnTIES, 0.3, 0.2, weigh_first=False)
    assert code == pytest.approx(0.95 + 0.06, abs=1e-15)


@BOTH
def test_what_is_dropped_decays_all_the_same(kind, monkeypatch):
    monkeypatch.setattr("qwen2lite.align.merge.drop_at_random", lambda x, *_: torch.zeros_like(x))
    monkeypatch.setattr("qwen2lite.align.merge.keep_top", lambda x, _: torch.zeros_like(x))
    weights = some_weights()
    before = [w.detach().clone() for w in weights]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    kind(weights, taus(weights), keep=0.5, alpha=0.5, lr=0.1, weight_decay=0.5).step()
    for weight, old in zip(weights, before, strict=True):
        assert torch.equal(weight.data, old * (1 - 0.1 * 0.5))


@BOTH
def test_the_means_are_of_all_gradients_whatever_is_dropped(kind):
    mine, plain = some_weights(), some_weights()
    merging = kind(mine, taus(mine), keep=0.3, alpha=0.1, lr=0.02)
    adamw = AdamW(plain, lr=0.02)
    go(merging, mine, 5)
    go(adamw, plain, 5)
    for one, other in zip(mine, plain, strict=True):
        assert torch.equal(merging.state[one]["exp_avg_sq"], adamw.state[other]["exp_avg_sq"])
        assert torch.equal(merging.state[one]["exp_avg"], adamw.state[other]["exp_avg"])


def test_chance_by_hand(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", lambda x: torch.tensor([0.05, 0.6, 0.24, 0.25]))
    x = torch.tensor([1.0, -2.0, 3.0, 4.0])
    assert drop_at_random(x, 0.25).tolist() == [1, 0, 3, 0]
    assert drop_at_random(x, 0.25, rescale=True).tolist() == [4, 0, 12, 0]


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9, 1.0])
def test_chance_keeps_as_many_as_it_should(keep):
    torch.manual_seed(0)
    x = torch.randn(100_000)
    kept, scaled = drop_at_random(x, keep), drop_at_random(x, keep, rescale=True)
    for y, factor in ((kept, 1.0), (scaled, 1 / keep)):
        share = (y != 0).double().mean().item()
        assert share == pytest.approx(keep, abs=5 * math.sqrt(keep * (1 - keep) / len(x)))
        torch.testing.assert_close(y[y != 0], x[y != 0] * factor)
    if keep < 1:
        assert not torch.equal(kept != 0, scaled != 0), "the second draw was the first"


def test_step_and_tau_are_dropped_apart():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(1000))
    merging = OnDARE([weight], {weight: torch.full((1000,), 0.5)}, keep=0.5, alpha=0.2,
                     lr=0.1, eps=0.0)  # fmt: skip
    weight.grad = torch.ones_like(weight)
    merging.step()
    values, counts = weight.detach().mul(100).round().unique(return_counts=True)
    assert values.tolist() == [-8, 0, 2, 10]
    assert counts.min() > 180


def test_the_published_rescaling_counts_a_hundredfold():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(1000))
    merging = OnDARE([weight], {weight: torch.zeros(1000)}, keep=0.01, alpha=0.0, rescale=True,
                     lr=0.1, eps=0.0)  # fmt: skip
    weight.grad = torch.ones_like(weight)
    merging.step()
    assert weight.detach().unique().tolist() == pytest.approx([-10, 0])


def test_the_largest_by_hand():
    x = torch.tensor([[3.0, -5.0], [1.0, 4.0]])
    assert keep_top(x, 0.5).tolist() == [[0, -5], [0, 4]]
    assert keep_top(x, 0.75).tolist() == [[3, -5], [0, 4]]
    assert keep_top(x, 0.01).tolist() == [[0, -5], [0, 0]]
    assert torch.equal(keep_top(x, 1.0), x)


@settings(deadline=None)
@given(
    st.lists(st.floats(-9, 9, width=32).filter(bool), min_size=1, max_size=20), st.floats(0.01, 1)
)
def test_what_is_kept_is_no_smaller_than_what_is_not(values, keep):
    x = torch.tensor(values)
    y = keep_top(x, keep)
    kept = y != 0
    assert kept.sum() == max(1, round(keep * len(values)))
    assert torch.equal(y[kept], x[kept])
    if not kept.all():
        assert x[kept].abs().min() >= x[~kept].abs().max()


SIGNS = [
    # d, τ, merged with α = 0.25, and as the published code does it
    (4.0, 8.0, 5.0, 5.0),
    (-4.0, -8.0, -5.0, -5.0),
    (4.0, -8.0, 3.0, -2.0),
    (-4.0, 8.0, -3.0, 2.0),
    (4.0, -16.0, -4.0, -4.0),
    (4.0, -2.0, 3.0, 3.0),
    (4.0, 0.0, 3.0, 3.0),
    (0.0, -8.0, -2.0, -2.0),
    (0.0, 0.0, 0.0, 0.0),
    # So small that their product is 0, which has no sign.
    (1e-23, -2e-23, 7.5e-24, -5e-24),
    (1e-6, -1e-7, 7.5e-7, 7.5e-7),
]


def merges_so(merge, column):
    d, tau, *wanted = (torch.tensor(side) for side in zip(*SIGNS, strict=True))
    torch.testing.assert_close(merge(d, tau, 0.25), wanted[column], rtol=1e-6, atol=0)


def test_signs_by_hand():
    merges_so(by_sign, 0)
    merges_so(lambda *args: by_sign(*args, weigh_first=False), 1)


def always_the_sum(d, tau, alpha):
    return (1 - alpha) * d + alpha * tau


def always_the_larger(d, tau, alpha):
    a, b = (1 - alpha) * d, alpha * tau
    return torch.where(a.abs() >= b.abs(), a, b)


def nothing_where_they_disagree(d, tau, alpha):
    return torch.where(d * tau < 0, 0.0, (1 - alpha) * d + alpha * tau)


def weights_swapped(d, tau, alpha):
    return by_sign(d, tau, 1 - alpha)


def product_of_both(d, tau, alpha):
    a, b = (1 - alpha) * d, alpha * tau
    return torch.where(a * b < 0, torch.where(a.abs() >= b.abs(), a, b), a + b)


@pytest.mark.parametrize(
    "wrong",
    [
        always_the_sum,
        always_the_larger,
        nothing_where_they_disagree,
        weights_swapped,
        product_of_both,
        lambda *args: by_sign(*args, weigh_first=False),
    ],
)
def test_other_rules_are_seen(wrong):
    with pytest.raises(AssertionError):
        merges_so(wrong, 0)


def small(seed, **changes):
    torch.manual_seed(seed)
    return Qwen2(dataclasses.replace(CONFIG, **changes))


def test_tau_is_what_sft_did():
    model, base = small(0), small(1)
    found = deltas(model, base)
    assert list(found) == list(model.parameters())
    for weight, before in zip(model.parameters(), base.parameters(), strict=True):
        assert torch.equal(found[weight], (weight - before).data)
        assert not found[weight].requires_grad


def test_tau_stays_while_the_model_moves():
    model = small(0)
    found = deltas(model, small(1))
    before = {weight: tau.clone() for weight, tau in found.items()}
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(1)
    assert all(torch.equal(found[weight], tau) for weight, tau in before.items())


def test_another_model_is_no_base():
    model = small(0)
    with pytest.raises(ValueError, match=r"differ in .*mlp.*weight"):
        deltas(model, small(0, intermediate_size=6))
    with pytest.raises(ValueError, match=r"differ in lm_head\.weight"):
        deltas(model, small(0, tie_word_embeddings=False))


@BOTH
def test_what_can_not_be_merged_is_refused(kind):
    weights = some_weights()
    for keep, alpha in ((0.0, 0.1), (1.1, 0.1), (math.nan, 0.1), (0.5, -0.1), (0.5, 1.1)):
        with pytest.raises(ValueError, match="keep must be above 0 and at most 1"):
            kind(weights, taus(weights), keep=keep, alpha=alpha)
    assert kind(weights, taus(weights), keep=1.0, alpha=1.0).alpha == 1.0
    with pytest.raises(ValueError, match="2 parameters have no τ"):
        kind(weights, dict(list(taus(weights).items())[:2]), keep=0.5, alpha=0.1)


@BOTH
def test_preferences_are_learnt_with_it(kind):
    chance = random.Random(0)
    draw = lambda: [chance.randrange(11) for _ in range(4)]  # noqa: E731
    learnt = lambda start, said: (start + said, [IGNORED] * 3 + said + [IGNORED])  # noqa: E731
    starts = [draw() for _ in range(4)]
    pairs = [(learnt(start, draw()), learnt(start, draw())) for start in starts]
    model = small(0)
    before = pair_logps(model, pairs)
    found = deltas(model, small(1))
    merging = kind(parameter_groups(model, 0.0), found, keep=0.5, alpha=1e-4, lr=1e-2)
    seen = list(train_dpo(model, pairs, merging, 20, lambda step: 1e-2, batch_size=4))
    assert seen[-1].accuracy == 1
    assert not torch.equal(pair_logps(model, pairs), before)
