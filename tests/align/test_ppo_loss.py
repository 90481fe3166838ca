"""PPO's pieces against sums that are written out, exact expectations, and what must not pass."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite.align.ppo_loss import advantages, policy_loss, token_rewards, value_loss

f64 = torch.float64
SAID = torch.tensor([[0, 0, 1, 1, 1, 0], [0, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]).bool()


def some(seed=0, rows=SAID):
    """Rewards and values with numbers also where there is no token, as a model gives them."""
    chance = torch.Generator().manual_seed(seed)
    return (torch.randn(rows.shape, generator=chance, dtype=f64) for _ in range(2))


def test_the_score_falls_due_at_the_last_token_and_each_pays_for_its_distance():
    score_B = torch.tensor([2.0, -1.0, 0.5], dtype=f64)
    gain_BT = torch.full(SAID.shape, 7.0, dtype=f64)
    gain_BT[0, 2:5] = torch.tensor([0.5, -1.0, 0.0])
    gain_BT[1, 1:3] = torch.tensor([1.0, 2.0])
    gain_BT[2, 0] = -3.0
    wanted = [
        [0, 0, -0.05, 0.1, 2.0, 0],
        [0, -0.1, -1.2, 0, 0, 0],
        [0.8, 0, 0, 0, 0, 0],
    ]
    got_BT = token_rewards(score_B, gain_BT, SAID, kl=0.1)
    torch.testing.assert_close(got_BT, torch.tensor(wanted, dtype=f64), rtol=1e-12, atol=1e-12)
    assert token_rewards(score_B, gain_BT, SAID, kl=0.0).sum() == score_B.sum()


def test_what_a_reference_finds_likelier_is_paid_for_with_a_gain():
    """The mean over what is drawn from π is never a gain, though: KL is 0 or more."""
    pi, reference = (torch.tensor(p, dtype=f64) for p in ([0.7, 0.2, 0.1], [0.2, 0.3, 0.5]))
    gain_BT, said_BT = (pi / reference).log()[:, None], torch.ones(3, 1, dtype=torch.bool)
    paid_B = token_rewards(torch.zeros(3, dtype=f64), gain_BT, said_BT, kl=1.0)[:, 0]
    assert paid_B[0] < 0 < paid_B[2]
    torch.testing.assert_close(-(pi * paid_B).sum(), (pi * (pi / reference).log()).sum())


def written_out(rewards_BT, values_BT, said_BT, decay):
    """GAE as a double sum over the surprises that follow, row by row."""
    found = torch.zeros_like(values_BT)
    for row, said_T in enumerate(said_BT):
        places = said_T.nonzero()[:, 0].tolist()
        after = dict(itertools.pairwise(places))
        surprise = {
            t: rewards_BT[row, t]
            + (values_BT[row, after[t]] if t in after else 0)
            - values_BT[row, t]
            for t in places
        }
        for t in places:
            found[row, t] = sum(decay ** (u - t) * surprise[u] for u in places if u >= t)
    return found


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9999), st.floats(0, 1))
def test_advantages_are_the_decaying_sum_of_surprises(seed, decay):
    rewards_BT, values_BT = some(seed)
    rewards_BT = rewards_BT * SAID
    got_BT = advantages(rewards_BT, values_BT, SAID, decay)
    wanted_BT = written_out(rewards_BT, values_BT, SAID, decay)
    torch.testing.assert_close(got_BT, wanted_BT, rtol=1e-10, atol=1e-12)


def test_advantages_by_hand():
    """V = 0.5, 0.2; rewards 0, 1: surprises -0.3 and 0.8; half of the second comes to the first."""
    rewards, values = (torch.tensor([x], dtype=f64) for x in ([0, 0, 1], [9, 0.5, 0.2]))
    got = advantages(rewards, values, torch.tensor([[False, True, True]]), decay=0.5)
    torch.testing.assert_close(got, torch.tensor([[0, 0.1, 0.8]], dtype=f64))


def test_the_two_ends_of_decay():
    rewards_BT, values_BT = some()
    rewards_BT, known_BT = rewards_BT * SAID, values_BT * SAID
    to_go_BT = rewards_BT.flip(1).cumsum(1).flip(1) * SAID
    got_BT = advantages(rewards_BT, values_BT, SAID, 1.0)
    torch.testing.assert_close(got_BT, to_go_BT - known_BT)
    next_BT = torch.cat([known_BT[:, 1:], torch.zeros(3, 1)], dim=1)
    got_BT = advantages(rewards_BT, values_BT, SAID, 0.0)
    torch.testing.assert_close(got_BT, (rewards_BT + next_BT - known_BT) * SAID)


def test_padding_and_neighbours_are_not_looked_at():
    rewards_BT, values_BT = some()
    rewards_BT = rewards_BT * SAID
    whole_BT = advantages(rewards_BT, values_BT, SAID, 0.9)
    other_BT = advantages(rewards_BT, torch.where(SAID, values_BT, 1e6), SAID, 0.9)
    torch.testing.assert_close(whole_BT, other_BT, rtol=0, atol=0)
    alone_BT = advantages(rewards_BT[1:2, :3], values_BT[1:2, :3], SAID[1:2, :3], 0.9)
    torch.testing.assert_close(whole_BT[1:2, :3], alone_BT, rtol=0, atol=0)


def test_an_advantage_has_no_gradient():
    rewards_BT, values_BT = some()
    assert not advantages(rewards_BT, values_BT.requires_grad_(), SAID, 0.9).requires_grad


# A policy whose every answer can be counted: of two tokens, 0 goes on and 1 ends; three at most.
ANSWERS = [(1,), (0, 1), (0, 0, 1), (0, 0, 0)]
WORTH = torch.tensor([0.3, -1.0, 2.0, 0.5], dtype=f64)


def logps(scores_TV):
    """ln π of each answer's tokens, logp_BT, and where they are."""
    logp_TV = scores_TV.log_softmax(-1)
    said_BT = torch.tensor([[t < len(answer) for t in range(3)] for answer in ANSWERS])
    chosen_BT = torch.tensor([(*answer, 0, 0)[:3] for answer in ANSWERS])
    logp_BT = logp_TV.expand(4, -1, -1).gather(-1, chosen_BT[..., None])[..., 0]
    return logp_BT.where(said_BT, 0), said_BT


def earned(logp_BT, reference_BT, kl):
    """Of each answer, with what it pays."""
    return WORTH - kl * (logp_BT - reference_BT).sum(1)


@pytest.mark.parametrize("decay", [1.0, 0.95, 0.0])
def test_the_gradient_is_that_of_the_exact_expectation(decay):
    """With exact values any λ gives, over all answers, that of E[score] - kl · KL(π‖π_ref)."""
    kl, chance = 0.3, torch.Generator().manual_seed(1)
    scores_TV, others_TV = (torch.randn(3, 2, generator=chance, dtype=f64) for _ in range(2))
    scores_TV.requires_grad_()
    logp_BT, said_BT = logps(scores_TV)
    reference_BT, _ = logps(others_TV)
    share_B = logp_BT.sum(1).exp()
    assert float(share_B.detach().sum()) == pytest.approx(1)
    exact = (share_B * earned(logp_BT, reference_BT, kl)).sum()
    (wanted_TV,) = torch.autograd.grad(exact, scores_TV, retain_graph=True)

    gain_BT = (logp_BT - reference_BT).detach()
    rewards_BT = token_rewards(WORTH, gain_BT, said_BT, kl)
    to_go_BT = rewards_BT.flip(1).cumsum(1).flip(1)
    # What is to be expected at place t: the mean over the answers that get so far.
    chances_BT = share_B.detach()[:, None] * said_BT
    values_BT = ((chances_BT * to_go_BT).sum(0) / chances_BT.sum(0)).expand(4, -1)
    ahead_BT = advantages(rewards_BT, values_BT, said_BT, decay)
    loss = torch.zeros((), dtype=f64)
    for row, answer in enumerate(ANSWERS):
        at = slice(0, len(answer))
        mean = policy_loss(logp_BT[row, at], logp_BT[row, at].detach(), ahead_BT[row, at], 0.2)
        loss = loss + share_B[row].detach() * len(answer) * mean
    loss.backward()
    torch.testing.assert_close(-scores_TV.grad, wanted_TV, rtol=1e-9, atol=1e-12)


def test_without_the_last_tokens_gradient_it_is_another():
    """The stop token: who leaves it out learns something else."""
    scores_TV = torch.zeros(3, 2, dtype=f64, requires_grad=True)
    logp_BT, said_BT = logps(scores_TV)
    rewards_BT = token_rewards(WORTH, torch.zeros(4, 3, dtype=f64), said_BT, 0.0)
    ahead_BT = advantages(rewards_BT, torch.zeros(4, 3, dtype=f64), said_BT, 1.0)
    found = []
    for upto in (0, 1):
        loss = sum(
            logp_BT[row].sum().exp().detach()
            * -(logp_BT[row] * ahead_BT[row])[: len(a) - upto].sum()
            for row, a in enumerate(ANSWERS)
        )
        (grad,) = torch.autograd.grad(loss, scores_TV, retain_graph=True)
        found.append(-grad)
    share_B = logp_BT.sum(1).exp()
    (wanted,) = torch.autograd.grad((share_B * WORTH).sum(), scores_TV)
    torch.testing.assert_close(found[0], wanted, rtol=1e-9, atol=1e-12)
    assert (found[1] - wanted).abs().max() > 0.1


def slope(ratio, advantage, clip=0.2):
    """Of the loss of one token, by ln π."""
    before = torch.tensor([-1.0], dtype=f64)
    logp = (before + torch.tensor([ratio], dtype=f64).log()).requires_grad_()
    policy_loss(logp, before, torch.tensor([advantage], dtype=f64), clip).backward()
    return float(logp.grad)


@pytest.mark.parametrize(
    ("ratio", "advantage", "wanted"),
    [
        (1.0, 2.0, -2.0),
        (1.1, 2.0, -2.2),
        (1.3, 2.0, 0.0),
        (0.5, 2.0, -1.0),
        (0.7, -2.0, 0.0),
        (1.5, -2.0, 3.0),
    ],
)
def test_only_what_went_too_far_the_right_way_is_clipped(ratio, advantage, wanted):
    assert slope(ratio, advantage) == pytest.approx(wanted, rel=1e-12)


def test_the_policys_loss_by_hand():
    """Ratios 1.5 and 0.5 with advantages 1 and -1: -(1.2 - 0.8) / 2."""
    ratio = torch.tensor([1.5, 0.5], dtype=f64)
    loss = policy_loss(ratio.log(), torch.zeros(2, dtype=f64), torch.tensor([1.0, -1.0]), 0.2)
    assert float(loss) == pytest.approx(-0.2)


def test_the_values_loss_by_hand():
    """Moved by 0.4 towards its target, 0.15 counts; moved by 0.1, or away, all of it does."""
    now, before, target = (
        torch.tensor(x, dtype=f64) for x in ([0.4, 0.1, -0.4], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    )
    loss = value_loss(now.requires_grad_(), before, target, clip=0.15)
    assert float(loss.detach()) == pytest.approx((0.85**2 + 0.9**2 + 1.4**2) / 6)
    loss.backward()
    torch.testing.assert_close(now.grad, torch.tensor([0.0, -0.3, -1.4 / 3], dtype=f64))


def test_an_expectation_that_fell_is_clipped_from_where_it_was():
    now, before, came = torch.tensor([0.5]), torch.tensor([1.0]), torch.tensor([0.0])
    assert value_loss(now, before, came, clip=0.15).item() == pytest.approx(0.85**2 / 2)


def test_an_expectation_that_overshot_comes_back():
    """From 0 past its target 0.1 to 0.4: within 0.15 it would be off by 0.05, it is by 0.3."""
    now = torch.tensor([0.4], dtype=f64, requires_grad=True)
    loss = value_loss(now, torch.zeros(1, dtype=f64), torch.tensor([0.1], dtype=f64), 0.15)
    assert float(loss.detach()) == pytest.approx(0.045)
    loss.backward()
    assert float(now.grad) == pytest.approx(0.3)
