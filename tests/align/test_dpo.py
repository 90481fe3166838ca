"""DPO against probabilities that are written out, by hand, and against what must not pass for it."""

import math
import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite import Qwen2
from qwen2lite.align import dpo
from qwen2lite.align import logp as how_likely
from qwen2lite.align.dpo import (
    dpo_loss,
    dpo_step,
    margins,
    measure,
    pair_logps,
    train_dpo,
)
from qwen2lite.align.logp import answer_logp
from qwen2lite.align.pairs import pairs as pairs_about
from qwen2lite.align.reward import pairwise_loss
from qwen2lite.align.sft import answer_targets
from qwen2lite.train.loss import CHUNK_NUMBERS, IGNORED
from qwen2lite.train.optim import AdamW, parameter_groups
from qwen2lite.train.world import people
from tests.align.tiny import CONFIG, tiny
from tests.conftest import one_thread

numbers = st.floats(-50, 50, allow_subnormal=False)


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def small(seed=0):
    torch.manual_seed(seed)
    return Qwen2(CONFIG).double()


def some_pairs(count, seed=0):
    """Pairs of one prompt and two answers, of any length and nonsense."""
    chance = random.Random(seed)
    some = lambda low, high: [chance.randrange(11) for _ in range(chance.randint(low, high))]  # noqa: E731

    def learnt(prompt, answer):
        return prompt + answer, [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]

    prompts = [some(1, 5) for _ in range(count)]
    return [(learnt(p, some(1, 6)), learnt(p, some(1, 6))) for p in prompts]


def probability(model, learnt):
    """Of an answer, as a product of what the softmax of all scores gives its tokens one by one."""
    ids, targets = learnt
    p_TV = model(torch.tensor([ids]))[0].softmax(-1)
    product = torch.ones((), dtype=p_TV.dtype)
    for place, target in enumerate(targets):
        if target != IGNORED:
            product = product * p_TV[place, target]
    return product


def written_out(policy, reference, pairs, beta):
    """The loss as the paper has it, without a logarithm before the last one."""
    losses = []
    for chosen, rejected in pairs:
        ratio = probability(policy, chosen) / probability(reference, chosen)
        ratio = ratio / (probability(policy, rejected) / probability(reference, rejected))
        losses.append(-torch.log(ratio**beta / (1 + ratio**beta)))
    return sum(losses) / len(losses)


def as_rows(pairs):
    rows = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    longest = max(len(ids) for ids, _ in rows)
    ids = [ids + [3] * (longest - len(ids)) for ids, _ in rows]
    return torch.tensor(ids), torch.tensor([t + [IGNORED] * (longest - len(t)) for _, t in rows])


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(0, 99), st.integers(1, 100))
def test_an_answers_logp_is_that_of_its_tokens_product(count, seed, chunk):
    model, pairs = small(), some_pairs(count, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CHUNK_NUMBERS, "cpu", chunk)
        got = answer_logp(model, *as_rows(pairs)).view(2, -1)
    for column, pair in enumerate(pairs):
        for row, learnt in enumerate(pair):
            wanted = probability(model, learnt).log()
            torch.testing.assert_close(got[row, column], wanted, rtol=1e-5, atol=1e-6)


class Bigrams:
    """Stands for a model: what comes next depends on the last token alone. All of it is float64."""

    def __init__(self, scores_VV):
        self.scores_VV = scores_VV
        self.output_weight_VD = torch.eye(len(scores_VV), dtype=torch.float64)

    def model(self, ids_BT):
        return F.one_hot(ids_BT, len(self.scores_VV)).double()

    def score(self, x_BTD):
        return x_BTD @ self.scores_VV


def test_two_tokens_by_hand():
    """After the prompt 2, "0 1" has 0.25 x 0.3, and "1" has 0.25."""
    ids_BT = torch.tensor([[2, 0, 1], [2, 1, 0]])
    targets_BT = torch.tensor([[0, 1, IGNORED], [1, IGNORED, IGNORED]])
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]], dtype=torch.float64)
    logp = answer_logp(Bigrams(p.log() + 7), ids_BT, targets_BT)
    assert logp.tolist() == pytest.approx([math.log(0.075), math.log(0.25)], abs=1e-15)


def test_a_loss_by_hand():
    """The chosen answer is twice as likely as it was, the rejected one half as likely."""
    logp = torch.tensor([[0.2], [0.1]], dtype=torch.float64).log()
    reference = torch.tensor([[0.1], [0.2]], dtype=torch.float64).log()
    margin = margins(logp, reference)
    assert margin.item() == pytest.approx(math.log(4), abs=1e-15)
    assert dpo_loss(margin, 1.0).item() == pytest.approx(math.log(1 + 1 / 4), abs=1e-15)
    assert dpo_loss(margin, 0.5).item() == pytest.approx(math.log(1 + 1 / 2), abs=1e-15)


def loss(policy, reference, pairs, beta):
    return dpo_loss(margins(dpo._logps(policy, pairs), pair_logps(reference, pairs)), beta)


def agrees(mine):
    """The loss and every gradient, for two different models."""
    pairs = some_pairs(4, seed=3)
    policy, reference = small(1), small(2)
    both = [function(policy, reference, pairs, 0.3) for function in (mine, written_out)]
    torch.testing.assert_close(*both, rtol=1e-6, atol=1e-6)
    grads = [torch.autograd.grad(value, list(policy.parameters())) for value in both]
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_loss_and_gradients_are_those_of_the_paper():
    agrees(loss)


@pytest.mark.parametrize("chunk", [11, 10_000])
def test_autograd_agrees_with_differences(chunk, monkeypatch):
    monkeypatch.setitem(CHUNK_NUMBERS, "cpu", chunk)
    rows, chance = as_rows(some_pairs(3, seed=3)), torch.Generator().manual_seed(0)
    reference = torch.randn(2, 3, generator=chance, dtype=torch.float64)
    scores_VV = torch.randn(11, 11, generator=chance, dtype=torch.float64, requires_grad=True)

    def of_scores(scores_VV):
        logp = answer_logp(Bigrams(scores_VV), *rows).view(2, -1)
        return dpo_loss(margins(logp, reference), 0.3)

    assert torch.autograd.gradcheck(of_scores, scores_VV)


def with_the_prompt(pairs):
    return [tuple((ids, [*ids[1:], IGNORED]) for ids, _ in pair) for pair in pairs]


def test_a_prompt_that_is_counted_is_no_answers_logp_but_the_loss_is_the_same():
    """Both answers have it before them, so of the margin it is neither a part nor of its gradient."""
    pairs = some_pairs(4, seed=3)
    counted = pair_logps(small(), with_the_prompt(pairs)) - pair_logps(small(), pairs)
    assert counted.sum() < -1
    torch.testing.assert_close(counted[0], counted[1], rtol=1e-6, atol=1e-6)
    agrees(lambda *args: loss(*args[:2], with_the_prompt(args[2]), args[3]))


def mean_of_tokens(policy, reference, pairs, beta):
    lengths = [[sum(t != IGNORED for t in side[1]) for side in pair] for pair in pairs]
    lengths = torch.tensor(lengths).T
    both = dpo._logps(policy, pairs) / lengths, pair_logps(reference, pairs) / lengths
    return dpo_loss(margins(*both), beta)


def forgets_the_reference(policy, reference, pairs, beta):
    logp = dpo._logps(policy, pairs)
    return dpo_loss(margins(logp, torch.zeros_like(logp)), beta)


def prefers_the_rejected(policy, reference, pairs, beta):
    return loss(policy, reference, [pair[::-1] for pair in pairs], beta)


def one_place_late(policy, reference, pairs, beta):
    late = [[(ids, [IGNORED, *t[:-1]]) for ids, t in pair] for pair in pairs]
    return loss(policy, reference, late, beta)


@pytest.mark.parametrize(
    "wrong",
    [
        mean_of_tokens,
        forgets_the_reference,
        prefers_the_rejected,
        one_place_late,
    ],
)
def test_another_loss_is_seen(wrong):
    with pytest.raises(AssertionError):
        agrees(wrong)


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=6), st.floats(1e-3, 10))
def test_what_must_hold_of_every_margin(values, beta):
    margin = torch.tensor(values, dtype=torch.float64)
    zeros = torch.zeros_like(margin)
    assert dpo_loss(zeros, beta).item() == pytest.approx(math.log(2), abs=1e-15)
    # ln σ(x) - ln σ(-x) = x
    difference = dpo_loss(margin, beta) - dpo_loss(-margin, beta)
    assert difference.item() == pytest.approx(-beta * margin.mean().item(), abs=1e-9)
    both = torch.stack((margin, zeros)), torch.stack((zeros, zeros))
    swapped = [side.flip(0) for side in both]
    assert torch.equal(margins(*swapped), -margins(*both))
    assert torch.equal(margins(*both), margin)


def test_a_small_beta_asks_only_for_the_direction():
    """Then the slope is -beta/2 for every pair, however far it is won or lost."""
    margin = torch.tensor([-30.0, 0.0, 30.0], dtype=torch.float64, requires_grad=True)
    beta = 1e-6
    (slope,) = torch.autograd.grad(dpo_loss(margin, beta), margin)
    assert (slope * 3 / beta).tolist() == pytest.approx([-0.5] * 3, abs=1e-4)


def test_margins_of_any_size_have_a_loss_and_a_slope():
    margin = torch.tensor([-1e6, 1e6], requires_grad=True)
    loss = dpo_loss(margin, 1.0)
    loss.backward()
    assert loss.item() == 5e5
    assert margin.grad.tolist() == [-0.5, 0.0]


def test_it_is_the_reward_models_loss_of_what_the_policy_thinks():
    logp, reference = torch.randn(2, 7), torch.randn(2, 7)
    chosen, rejected = 0.3 * (logp - reference)
    wanted = pairwise_loss(chosen, rejected)
    torch.testing.assert_close(dpo_loss(margins(logp, reference), 0.3), wanted)


def test_measured_by_hand():
    """Both answers of the first pair became rarer, and still it is won."""
    reference = torch.tensor([[-1.0, -1.0], [-2.0, -2.0]])
    logp = torch.tensor([[-2.0, -1.0], [-6.0, -1.0]])
    got = measure(logp, reference, 1.0)
    wanted = (math.log1p(math.exp(-3)) + math.log1p(math.exp(1))) / 2
    assert got.loss == pytest.approx(wanted, abs=1e-6)
    assert (got.margin, got.accuracy, got.chosen, got.rejected) == (1.0, 0.5, -0.5, -1.5)


def test_a_tie_is_not_won_and_half_a_nat_is():
    assert measure(torch.zeros(2, 3), torch.zeros(2, 3), 0.1).accuracy == 0
    assert measure(torch.tensor([[0.5], [0.0]]), torch.zeros(2, 1), 0.1).accuracy == 1


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_neighbours_in_a_batch_change_nothing(rows, monkeypatch):
    model, pairs = small(), some_pairs(7)
    alone = torch.cat([pair_logps(model, [pair]) for pair in pairs], dim=1)
    monkeypatch.setattr(dpo, "_ROWS", rows)
    torch.testing.assert_close(pair_logps(model, pairs), alone, rtol=1e-6, atol=1e-6)


def what_is_kept(monkeypatch, model, rows):
    """Shapes that autograd keeps for the way back, and how many positions are scored at a time."""
    scored, kept, plain = [], [], model.score
    monkeypatch.setattr(model, "score", lambda x: scored.append(x.shape[1]) or plain(x))
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.shape) or x, lambda x: x):
        logp = answer_logp(model, *rows)
    return logp, scored, [shape for shape in kept if shape[-1:] == (CONFIG.vocab_size,)]


def test_scores_of_a_vocabulary_are_never_many_nor_kept(monkeypatch):
    monkeypatch.setitem(CHUNK_NUMBERS, "cpu", 3 * CONFIG.vocab_size)
    ids_BT, targets_BT = rows = as_rows(some_pairs(4, seed=1))
    assert ids_BT.shape[1] != CONFIG.vocab_size
    logp, scored, kept = what_is_kept(monkeypatch, small(), rows)
    asked = int((targets_BT != IGNORED).sum())
    assert max(scored) == 3
    assert sum(scored) == asked < ids_BT.numel()
    assert not kept
    logp.sum().backward()
    assert sum(scored) == 2 * asked
    monkeypatch.setattr(how_likely, "checkpoint", lambda function, *args, **_: function(*args))
    assert what_is_kept(monkeypatch, small(), rows)[2]


def test_a_row_that_asks_for_nothing_is_certain():
    ids_BT = torch.tensor([[1, 2, 3]])
    assert answer_logp(small(), ids_BT, torch.full_like(ids_BT, IGNORED)).tolist() == [0.0]


def test_scores_in_16_bits_are_summed_in_32():
    ids_BT, targets_BT = as_rows(some_pairs(3))
    assert answer_logp(small().bfloat16(), ids_BT, targets_BT).dtype == torch.float32


def test_the_reference_has_no_gradient():
    assert not pair_logps(small(), some_pairs(3)).requires_grad


def optimizer(model, lr=1e-2, **more):
    return AdamW(parameter_groups(model, 0.0), lr=lr, **more)


def test_a_step_moves_along_the_gradient_of_the_loss():
    pairs, model, other = some_pairs(4), small(1), small(1)
    reference = pair_logps(small(2), pairs)
    measured = dpo_step(model, pairs, reference, optimizer(model), 0.3, math.inf)
    value = written_out(other, small(2), pairs, 0.3)
    assert measured.loss == pytest.approx(value.item(), rel=1e-6)
    value.backward()
    optimizer(other).step()
    for got, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


def test_gradients_do_not_add_up_over_steps():
    pairs, model = some_pairs(4), small(1)
    still, reference = optimizer(model, lr=0.0), pair_logps(small(2), pairs)
    norms = []
    for _ in range(2):
        dpo_step(model, pairs, reference, still, 0.3, math.inf)
        norms.append(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert norms[0] == norms[1] > 0


def test_a_long_gradient_is_shortened():
    pairs, model = some_pairs(4), small(1)
    dpo_step(model, pairs, pair_logps(model, pairs), optimizer(model), 50.0, 0.25)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert norm == pytest.approx(0.25, rel=1e-5)


def test_where_the_policy_is_its_own_reference_beta_does_nothing():
    pairs, moved = some_pairs(4), []
    for beta in (0.01, 5.0):
        model = small(1)
        adamw = optimizer(model, eps=1e-20)
        for _ in range(3):
            measured = dpo_step(model, pairs, pair_logps(model, pairs), adamw, beta, math.inf)
            assert measured.loss == pytest.approx(math.log(2), abs=1e-12)
        moved.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    torch.testing.assert_close(*moved, rtol=1e-6, atol=1e-8)


def run(pairs, steps=6, **more):
    model, rates = small(1), more.pop("rates", lambda step: 1e-2)
    seen = list(train_dpo(model, pairs, optimizer(model), steps, rates, **more))
    return model, seen


def test_the_reference_is_the_model_at_first_and_stays():
    pairs = some_pairs(4)
    model, seen = run(pairs, batch_size=4)
    start = pair_logps(small(1), pairs)
    assert seen[0].loss == pytest.approx(math.log(2), abs=1e-12)
    assert seen[0].margin == pytest.approx(0, abs=1e-12)
    assert [one.loss for one in seen] == sorted((one.loss for one in seen), reverse=True)
    end = measure(pair_logps(model, pairs), start, 0.1)
    assert end.margin > seen[-1].margin > seen[1].margin > 0


def test_every_pair_is_read_once_an_epoch_and_the_seed_orders(monkeypatch):
    pairs, read = some_pairs(5), []

    def look(model, batch, reference, optimizer, beta):
        torch.testing.assert_close(reference, pair_logps(model, batch), rtol=1e-12, atol=1e-12)
        read.extend(pairs.index(pair) for pair in batch)

    monkeypatch.setattr(dpo, "dpo_step", look)
    for seed in (0, 0, 1):
        run(pairs, steps=5, batch_size=2, seed=seed)
    first, again, other = read[:10], read[10:20], read[20:]
    assert first == again != other
    for order in (first, other):
        assert sorted(order[:5]) == sorted(order[5:]) == [0, 1, 2, 3, 4]


def test_the_learning_rate_is_the_schedules():
    pairs = some_pairs(4)
    still, _ = run(pairs, rates=lambda step: 0.0)
    first, _ = run(pairs, steps=3, rates=lambda step: 0.01 if step == 0 else 0.0)
    one, _ = run(pairs, steps=1, rates=lambda step: 0.01)
    for model, other in ((still, small(1)), (first, one)):
        for got, wanted in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(got, wanted)


def test_what_can_not_be_learnt_from_is_refused():
    model = small()
    with pytest.raises(ValueError, match="no pair to read"):
        next(train_dpo(model, [], optimizer(model), 1, lambda step: 1.0))
    with pytest.raises(ValueError, match="no pair to read"):
        pair_logps(model, [])
    with pytest.raises(ValueError, match="no pair to learn from"):
        dpo_loss(torch.zeros(0), 0.1)
    for beta in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="beta must be above 0"):
            dpo_loss(torch.zeros(1), beta)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        pair_logps(model, [(([11, 1], [1, IGNORED]), ([0, 1], [1, IGNORED]))])


def test_a_step_that_gives_no_number_moves_nothing():
    pairs, model = some_pairs(2), small()
    before = [p.detach().clone() for p in model.parameters()]
    reference = torch.full((2, 2), -math.inf, dtype=torch.float64)
    with pytest.raises(ValueError, match="this step moved no weight"):
        dpo_step(model, pairs, reference, optimizer(model))
    assert all(map(torch.equal, before, model.parameters()))


def about(tokenizer, persons):
    return [
        tuple(answer_targets(tokenizer, talk) for talk in pair.conversations)
        for pair in pairs_about(persons, random.Random(0))
    ]


def test_what_both_answers_begin_with_has_no_gradient(tokenizer):
    """Only what differs is compared: that a sentence begins with the name isn't taught by this."""
    [(chosen, rejected), *_] = about(tokenizer, people()[:1])
    same = next(i for i, (a, b) in enumerate(zip(chosen[0], rejected[0], strict=False)) if a != b)
    model = tiny().double()
    cut = [(ids, [IGNORED] * (same - 1) + t[same - 1 :]) for ids, t in (chosen, rejected)]
    grads = []
    for pair in ((chosen, rejected), tuple(cut)):
        margin = margins(dpo._logps(model, [pair]), torch.zeros(2, 1))
        grads.append(torch.autograd.grad(margin.sum(), list(model.parameters())))
    for got, wanted in zip(*grads, strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)
    assert max(float(g.abs().max()) for g in grads[0]) > 0.1


def test_the_small_world_is_preferred_as_it_is(tokenizer):
    """What is true of four people is preferred, also in a question's other wording."""
    model, pairs = tiny(), about(tokenizer, people()[:4])
    start = pair_logps(model, pairs)
    for _ in train_dpo(model, pairs, optimizer(model), 12, lambda step: 1e-3, batch_size=10):
        pass
    end = measure(pair_logps(model, pairs), start, 0.1)
    assert end.accuracy == 1
    assert end.margin > 5
