"""The contracts of lesson 74's tasks accept every right answer and tell wrong ones clearly."""

import math

import numpy as np
import pytest
import torch

from qwen2lite.align import ppo_loss
from qwen2lite.align.logp import in_rows
from qwen2lite.learn.check import examine
from qwen2lite.learn.checks.ppo_world import END, drawn_answers, expected_score, scored
from qwen2lite.learn.mutants import ppo as mutants
from qwen2lite.learn.mutants import ppo_losses, ppo_tasks
from qwen2lite.learn.mutants.ppo_tasks import right_tokens, stepped
from qwen2lite.train.loss import IGNORED
from tests.learn.verdict import verdict


def rewards_by_loop(score_B, gain_BT, said_BT, kl):
    rewards_BT = torch.zeros(said_BT.shape)
    for row, said_T in enumerate(said_BT):
        places = said_T.nonzero()[:, 0].tolist()
        for place in places:
            rewards_BT[row, place] = -kl * gain_BT[row, place]
        rewards_BT[row, places[-1]] += score_B[row]
    return rewards_BT


def rewards_by_counting(score_B, gain_BT, said_BT, kl):
    """The last token is the one up to which as many have been said as in all."""
    counts_BT = said_BT.cumsum(1)
    last_BT = said_BT & (counts_BT == counts_BT[:, -1:])
    return torch.where(said_BT, -kl * gain_BT, 0.0) + last_BT * score_B[:, None]


def rewards_by_scatter(score_B, gain_BT, said_BT, kl):
    places_T = torch.arange(said_BT.shape[1])
    last_B1 = (said_BT * places_T).argmax(1, keepdim=True)
    return gain_BT.mul(-kl).masked_fill(~said_BT, 0).scatter_add(1, last_B1, score_B[:, None])


def advantages_by_rows(rewards_BT, values_BT, said_BT, decay):
    advantages_BT = torch.zeros(said_BT.shape)
    for row, said_T in enumerate(said_BT.tolist()):
        later = after = 0.0
        for place in reversed([place for place, there in enumerate(said_T) if there]):
            value = values_BT[row, place].item()
            later = rewards_BT[row, place].item() + after - value + decay * later
            advantages_BT[row, place], after = later, value
    return advantages_BT


@torch.no_grad()
def advantages_by_matrix(rewards_BT, values_BT, said_BT, decay):
    """A = δ times the matrix of all λ^(s - t)."""
    values_BT = values_BT.masked_fill(~said_BT, 0)
    surprises_BT = rewards_BT + torch.cat((values_BT[:, 1:], values_BT[:, :1] * 0), 1) - values_BT
    places_T = torch.arange(said_BT.shape[1])
    steps_TT = places_T[:, None] - places_T
    weights_TT = torch.where(steps_TT >= 0, float(decay) ** steps_TT.clamp(min=0), 0.0)
    return (surprises_BT * said_BT) @ weights_TT * said_BT


def advantages_as_returns(rewards_BT, values_BT, said_BT, decay):
    """Returns first: r + (1 - λ) V of the next + λ times its return."""
    values_BT = torch.where(said_BT, values_BT, torch.zeros(())).detach()
    returns = [torch.zeros(len(said_BT))]
    nexts = [*values_BT.unbind(1)[1:], torch.zeros(len(said_BT))]
    for reward_B, next_B, said_B in zip(
        reversed(rewards_BT.unbind(1)), reversed(nexts), reversed(said_BT.unbind(1)), strict=True
    ):
        returns.append((reward_B + (1 - decay) * next_B + decay * returns[-1]) * said_B)
    return torch.stack(returns[:0:-1], 1) - values_BT


def policy_by_where(logp, before, advantage, clip):
    ratio = torch.exp(logp) / torch.exp(before)
    bound = torch.where(advantage > 0, 1 + clip, 1 - clip)
    stopped = torch.where(advantage > 0, ratio > bound, ratio < bound)
    return -(torch.where(stopped, bound, ratio) * advantage).mean()


def policy_by_losses(logp, before, advantage, clip):
    """The larger of two losses, each with its minus already."""
    ratio = (logp - before).exp()
    clipped = torch.clip(ratio, 1 - clip, 1 + clip)
    return torch.maximum(-advantage * ratio, -advantage * clipped).sum() / len(logp)


def policy_by_loop(logp, before, advantage, clip):
    total = 0
    for now, was, ahead in zip(logp, before, advantage, strict=True):
        ratio = (now - was).exp()
        total = total - torch.minimum(ratio * ahead, ratio.clamp(1 - clip, 1 + clip) * ahead)
    return total / len(logp)


def value_by_bounds(values, before, returns, clip):
    near = torch.clamp(values, before - clip, before + clip)
    return torch.maximum((values - returns) ** 2, (near - returns) ** 2).mean() / 2


def value_by_size(values, before, returns, clip):
    near = before + (values - before).clamp(-clip, clip)
    return torch.maximum((values - returns).abs(), (near - returns).abs()).pow(2).mul(0.5).mean()


def tokens_by_parts(prompt, said, limit, end):
    ids, targets = list(prompt), [IGNORED] * len(prompt)
    for token in [*said] + ([] if len(said) == limit else [end]):
        targets[-1] = token
        ids.append(token)
        targets.append(IGNORED)
    return [ids, targets]


def tokens_by_numpy(prompt, said, limit, end):
    ids = np.array([*prompt, *said, end][: None if len(said) < limit else -1])
    targets = np.roll(ids, -1)
    targets[: len(prompt) - 1] = targets[-1] = IGNORED
    return ids, targets


def tokens_by_tensors(prompt, said, limit, end):
    return tuple(map(torch.tensor, tokens_by_parts(prompt, said, limit, end)))


def right_step(*inputs):
    return stepped(inputs)


def step_by_hand(policy_VV, value_V, reference_VV, ids_BT, targets_BT, score_B):
    """In numbers of Python, with gradients from the formulas: the oracle of `stepped`."""
    policy, value, reference = (x.double().tolist() for x in (policy_VV, value_V, reference_VV))

    def shares(row):
        powers = [math.exp(x) for x in row]
        return [x / sum(powers) for x in powers]

    tokens = []
    for ids, targets, score in zip(
        ids_BT.tolist(), targets_BT.tolist(), score_B.tolist(), strict=True
    ):
        moves = [(a, b) for a, b in zip(ids, targets, strict=True) if b != IGNORED]
        later = after = 0.0
        for number, (a, b) in reversed(list(enumerate(moves))):
            was = shares(policy[a])[b]
            reward = -0.04 * math.log(was / shares(reference[a])[b])
            reward += score * (number == len(moves) - 1)
            later = reward + after - value[a] + 0.95 * later
            after = value[a]
            tokens.append((a, b, was, value[a], later))
    ahead = np.array([token[-1] for token in tokens])
    scaled = (ahead - ahead.mean()) / (ahead.std() + 1e-8)
    for _ in range(4):
        slopes, falls = np.zeros((len(policy), len(policy))), np.zeros(len(policy))
        for (a, b, was, expected, left), good in zip(tokens, scaled, strict=True):
            p = np.array(shares(policy[a]))
            ratio = p[b] / was
            if not (ratio > 1.2 if good > 0 else ratio < 0.8):
                slopes[a] -= good * ratio * ((np.arange(len(p)) == b) - p) / len(tokens)
            error, near = (
                value[a] - expected - left,
                np.clip(value[a] - expected, -0.15, 0.15) - left,
            )
            if error**2 >= near**2:
                falls[a] += error / len(tokens)
        policy = (np.array(policy) - 2 * slopes).tolist()
        value = (np.array(value) - 2 * falls).tolist()
    return torch.tensor(policy).float(), torch.tensor(value).float()


RIGHT = [
    ("token_rewards", rewards_by_loop),
    ("token_rewards", rewards_by_counting),
    ("token_rewards", rewards_by_scatter),
    ("token_rewards", lambda *inputs: ppo_loss.token_rewards(*inputs)),
    ("advantages", advantages_by_rows),
    ("advantages", advantages_by_matrix),
    ("advantages", advantages_as_returns),
    ("advantages", lambda *inputs: ppo_loss.advantages(*inputs)),
    ("policy_loss", policy_by_where),
    ("policy_loss", policy_by_losses),
    ("policy_loss", policy_by_loop),
    ("policy_loss", lambda *inputs: ppo_loss.policy_loss(*inputs)),
    ("value_loss", value_by_bounds),
    ("value_loss", value_by_size),
    ("value_loss", lambda *inputs: ppo_loss.value_loss(*inputs)),
    ("chosen_tokens", lambda *inputs: right_tokens(*inputs)),
    ("chosen_tokens", tokens_by_parts),
    ("chosen_tokens", tokens_by_numpy),
    ("chosen_tokens", tokens_by_tensors),
    ("mended_step", right_step),
    ("mended_step", step_by_hand),
    ("mended_step", lambda *inputs: list(stepped(inputs))),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize("name", sorted(mutants.MUTANTS | ppo_losses.MUTANTS))
def test_the_packages_own_passes(name):
    result = verdict(name, getattr(ppo_loss, name))
    assert result.state == "right"
    assert "package's own" in result.note


@pytest.mark.parametrize("seed", range(5))
def test_the_step_that_answers_are_compared_with_is_right(seed):
    """Its oracle is in plain numbers, with gradients from the formulas."""
    chance = torch.Generator().manual_seed(seed)
    policy_VV, reference_VV = (torch.randn(5, 5, generator=chance) for _ in range(2))
    value_V, score_B = (torch.randn(size, generator=chance) for size in (5, 7))
    answers = drawn_answers(policy_VV, 4, 7, 6, chance)
    rows = in_rows([right_tokens([2, 4], said, 6, END) for said in answers])
    inputs = policy_VV, value_V, reference_VV, *rows, score_B
    for got, want in zip(stepped(inputs), step_by_hand(*inputs), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_the_expected_score_is_that_of_all_answers():
    """Of a policy that ends with p = 1/4 each time: 1 for what ends, -1 for what doesn't."""
    table_VV = torch.tensor([[0.25, 0.5, 0.25]] * 3).log()
    for limit in (1, 2, 5):
        want = 1 - 2 * 0.75**limit
        assert math.isclose(
            expected_score(table_VV, 2, limit, lambda said: 1.0), want, rel_tol=1e-6
        )
    only_1 = expected_score(table_VV, 2, 2, lambda said: float(said == [1]))
    assert math.isclose(only_1, 0.5 * 0.25 - 0.75**2, rel_tol=1e-6)


def test_answers_are_drawn_with_the_policys_probabilities():
    chance = torch.Generator().manual_seed(1)
    table_VV = torch.randn(4, 4, generator=chance)
    answers = drawn_answers(table_VV, 3, 2000, 4, chance)
    assert all(END not in said and len(said) <= 4 for said in answers)
    scores = torch.tensor([scored(said, 4, lambda said: len(set(said)) / 3) for said in answers])
    want = expected_score(table_VV, 3, 4, lambda said: len(set(said)) / 3)
    # Five standard errors of a mean over 2,000.
    assert abs(float(scores.mean()) - want) < 5 * float(scores.std()) / 2000**0.5


def forgetful():
    """A step that is right the first times, and then gives again what it gave before."""
    given = []

    def step(*inputs):
        if len(given) < 4:
            given.append(stepped(inputs))
        return given[-1]

    return step


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("token_rewards", lambda s, g, w, kl: 3.0, "returned a float, and a tensor float32 [2, 5]"),
        ("token_rewards", lambda s, g, w, kl: s, "returned float32 [2], and float32 [2, 5] was"),
        ("token_rewards", lambda s, g, w, kl: g.mul_(-kl), "changed a tensor"),
        ("token_rewards", lambda s, g, w, kl: None, "returned None"),
        ("token_rewards", lambda s, g, w: g, "TypeError"),
        (
            "token_rewards",
            lambda s, g, w, kl: 0 * g,
            "Row 0 has its tokens at places 1 to 3: [0, -0.1, 0.05, 2.8, 0] was wanted, and yours is",
        ),
        (
            "advantages",
            lambda r, v, w, d: r.tolist(),
            "returned a list, and a tensor float32 [1, 5]",
        ),
        ("advantages", lambda r, v, w, d: (r - v).double(), "returned float64 [1, 5]"),
        ("advantages", lambda r, v, w, d: v.mul_(w), "changed a tensor"),
        ("advantages", lambda r, v, w, d: r - v, "was wanted, and yours is [-7, -0.5"),
        ("policy_loss", lambda n, b, a, c: -0.7, "returned a float, and a tensor float32 []"),
        ("policy_loss", lambda n, b, a, c: n * a, "returned float32 [3], and float32 [] was"),
        ("policy_loss", lambda n, b, a, c: n.sum() * 0, "the loss is -0.7000, and yours is"),
        (
            "policy_loss",
            lambda n, b, a, c: policy_by_where(n.detach(), b, a, c),
            "stops the gradient",
        ),
        (
            "policy_loss",
            lambda n, b, a, c: policy_by_where(n.detach(), b, a, c) + 0 * n.sum(),
            "the gradient is [0, 0, -0.1667], and yours is [0, 0, 0]",
        ),
        ("value_loss", lambda v, b, r, c: 0.3, "returned a float, and a tensor float32 []"),
        ("value_loss", lambda v, b, r, c: (v - r).mean(), "the loss is 0.4071, and yours is"),
        ("value_loss", lambda v, b, r, c: value_by_size(v.detach(), b, r, c), "stops the gradient"),
        ("value_loss", lambda v, b, r, c: v.sub_(r).mean(), "changed a tensor"),
        ("chosen_tokens", lambda p, s, n, e: p + s, "returned [7, 8, 3, …]; a pair of lists"),
        ("chosen_tokens", lambda p, s, n, e: (p, [0.5]), "a pair of lists of whole numbers was"),
        ("chosen_tokens", lambda p, s, n, e: (p, p, p), "a pair of lists of whole numbers was"),
        ("chosen_tokens", lambda p, s, n, e: 3, "returned 3; a pair of lists"),
        (
            "chosen_tokens",
            lambda p, s, n, e: (p, s),
            "the ids are [7, 8, 3, 4, 9], and yours are [7",
        ),
        (
            "chosen_tokens",
            lambda p, s, n, e: (p + s + [e], p),
            "the targets are [-100, 3, 4, 9, -100]",
        ),
        (
            "chosen_tokens",
            lambda p, s, n, e: tokens_by_parts(p, s.append(5) or s[:-1], n, e),
            "changed a list",
        ),
        ("mended_step", lambda *x: x[0], "returned float32 [4, 4]; the two tables were wanted"),
        (
            "mended_step",
            lambda *x: (x[0], x[0]),
            "Row 3 of the policy should have moved by [-0.",
        ),
        (
            "mended_step",
            lambda *x: (stepped(x)[0], x[1]),
            "The value model should have moved by [0",
        ),
        ("mended_step", lambda *x: (stepped(x)[0], x[0]), "float32 [4, 4], and float32 [4] was"),
        ("mended_step", lambda *x: (x[0].add_(1), x[1]), "changed a tensor"),
        (
            "mended_step",
            forgetful(),
            "In 30 steps the score expected of the policy went from",
        ),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


def gae_of_a_library(rewards_BT, values_BT, said_BT, decay):
    """Values of the padding are left as they are, and results masked at the end."""
    values_BT, later_B, columns = values_BT.detach(), 0, []
    for t in reversed(range(values_BT.shape[1])):
        after_B = values_BT[:, t + 1] if t + 1 < values_BT.shape[1] else 0
        later_B = (rewards_BT[:, t] + after_B - values_BT[:, t] + decay * later_B) * said_BT[:, t]
        columns.append(later_B)
    return torch.stack(columns[::-1], 1)


def loss_with_max(logp, before, advantage, clip):
    ratio = (logp - before).exp()
    return -torch.maximum(ratio * advantage, ratio.clip(1 - clip, 1 + clip) * advantage).mean()


@pytest.mark.parametrize(
    ("name", "part", "why"),
    [
        (
            "token_rewards",
            lambda s, g, w, kl: rewards_by_loop(s, -g, w, kl),
            "sign of KL is turned",
        ),
        ("token_rewards", lambda s, g, w, kl: rewards_by_loop(s, g, w, 0), "KL is forgotten"),
        ("advantages", gae_of_a_library, "There is nothing to come"),
        ("advantages", lambda r, v, w, d: advantages_by_rows(r, v, w, 1), "λ is forgotten"),
        ("advantages", lambda r, v, w, d: advantages_by_rows(r, v, w, 0), "only the surprises"),
        ("policy_loss", loss_with_max, "The larger of the two is taken"),
        ("policy_loss", lambda n, b, a, c: policy_by_loop(b, n, a, c), "ratio is upside down"),
        ("policy_loss", lambda n, b, a, c: policy_by_loop(n, b, a, 1e9), "Nothing is clipped"),
        ("value_loss", lambda v, b, r, c: value_by_size(v, b, r, c) * 2, "twice as large"),
        ("value_loss", lambda v, b, r, c: value_by_size(v, b, r, 1e9), "plain squared error"),
        (
            "chosen_tokens",
            lambda p, s, n, e: tokens_by_parts(p, s, n + 1, e),
            "an end that the policy never chose",
        ),
        (
            "chosen_tokens",
            lambda p, s, n, e: tokens_by_parts(p, s, len(s), e),
            "ends the answer is",
        ),
    ],
)
def test_a_mistake_is_known_in_another_hand(name, part, why):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert why in result.reason, result


def test_a_step_in_another_hand_is_known():
    def against_the_reference(policy_VV, value_V, reference_VV, *rest):
        return ppo_tasks.stepped(
            (policy_VV, value_V, reference_VV, *rest),
            change=lambda seen: {"before": ppo_tasks.table_logp(reference_VV, *rest[:2])},
        )

    result = verdict("mended_step", against_the_reference)
    assert "stands still" in result.reason
    assert result.held == ("the first step: both tables move as they should",)


def test_a_step_on_parts_that_are_not_written_is_not_written():
    def stub(*inputs):
        raise NotImplementedError

    assert verdict("mended_step", stub).state == "not written yet"


def test_the_learners_chance_is_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    examine(mended_step=right_step, advantages=advantages_by_rows)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize(
    ("name", "odd"),
    [
        ("token_rewards", lambda score_B, gain_BT, said_BT, kl: torch.full((2, 5), 7.0)),
        ("advantages", lambda rewards_BT, *rest: torch.full(rewards_BT.shape, 7.0)),
        ("policy_loss", lambda *inputs: torch.tensor(7.0)),
        ("value_loss", lambda *inputs: torch.tensor(7.0)),
        ("chosen_tokens", lambda *inputs: ([1], [2])),
    ],
)
def test_a_mistake_that_nobody_foresaw_gets_no_reason(name, odd):
    """Better none than another one's."""
    result = verdict(name, odd)
    assert (result.state, result.reason) == ("wrong", "")


def test_a_wrong_step_of_an_unknown_kind_may_be_the_fault_of_what_it_calls():
    result = verdict("mended_step", lambda policy_VV, value_V, *rest: (policy_VV + 7, value_V))
    assert result.state == "wrong"
    assert result.reason.startswith("The step uses the functions of tasks 1 to 4")
