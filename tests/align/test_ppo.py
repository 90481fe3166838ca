"""A PPO step: which models move, which tokens learn, and what is said of it."""

import copy
import math
import random

import pytest
import torch

from qwen2lite.align import ppo as module
from qwen2lite.align.logp import token_logp
from qwen2lite.align.ppo import PPO, PPOSettings
from qwen2lite.align.questions import question
from qwen2lite.align.reward import RewardModel
from qwen2lite.align.rollout import Answer, written_answers
from qwen2lite.text.chat import encode_chat
from qwen2lite.train.loss import IGNORED
from qwen2lite.train.optim import AdamW, parameter_groups
from qwen2lite.train.world import people
from tests.align.tiny import tiny
from tests.conftest import one_thread

PROMPTS = [question(person, "city", random.Random(0)) for person in people()[:3]]


@pytest.fixture(autouse=True)
def _one_thread():
    with one_thread():
        yield


def vowels(talks):
    return [sum(letter in "aeiou" for letter in talk[-1]["content"]) for talk in talks]


def talker(tokenizer):
    """The tiny model before it was taught to answer, but one that may end where a sentence does."""
    model = tiny()
    rows_VD = model.model.embed_tokens.weight.detach()
    rows_VD[tokenizer.special_tokens["<|im_end|>"]] = rows_VD[tokenizer.encode(".")[0]]
    return model


def at_work(tokenizer, reward=vowels, policy_rate=1e-3, value_rate=1e-3, **told):
    policy = talker(tokenizer)
    value = RewardModel.from_model(policy)
    movers = [
        AdamW(parameter_groups(model, 0.0), lr=rate)
        for model, rate in ((policy, policy_rate), (value, value_rate))
    ]
    told = {"value_only": 0, "max_new_tokens": 16, **told}
    return PPO(policy, value, talker(tokenizer), tokenizer, reward, *movers, PPOSettings(**told))


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def moved(model, before):
    return any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_policy_waits_and_the_reference_stays(tokenizer):
    ppo = at_work(tokenizer, value_only=1)
    before = [weights(model) for model in (ppo.policy, ppo.value, ppo.reference)]
    ppo.step(PROMPTS)
    assert [
        moved(model, was)
        for model, was in zip((ppo.policy, ppo.value, ppo.reference), before, strict=True)
    ] == [False, True, False]
    ppo.step(PROMPTS)
    assert moved(ppo.policy, before[0])
    assert not moved(ppo.reference, before[2])


def test_what_is_measured_is_of_the_answers_as_they_were_written(tokenizer):
    ppo = at_work(tokenizer, policy_rate=0.0, seed=5, samples=3, top_p=0.8)
    with torch.no_grad():
        ppo.policy.model.norm.weight.mul_(1.3)
    answers = written_answers(ppo.policy, tokenizer, PROMPTS, 3, 1.0, 0.8, 16, seed=5)
    assert {answer.ended for answer in answers} == {True, False}
    measured = ppo.step(PROMPTS)
    ended = [answer.ended for answer in answers]
    scores = vowels([answer.talk for answer in answers])
    scores = [score if done else -1 for score, done in zip(scores, ended, strict=True)]
    assert measured.score == pytest.approx(sum(scores) / 9)
    assert measured.unfinished == pytest.approx(ended.count(False) / 9)
    said = [sum(t != IGNORED for t in answer.learnt[1]) for answer in answers]
    assert measured.tokens == pytest.approx(sum(said) / 9)
    gains = []
    for answer in answers:
        rows = [torch.tensor([side]) for side in answer.learnt]
        ours, theirs = (token_logp(m, *rows).sum() for m in (ppo.policy, ppo.reference))
        gains.append((ours - theirs).item())
    assert measured.kl == pytest.approx(sum(gains) / 9, rel=1e-3, abs=1e-4)
    assert measured.clipped == 0
    assert measured.expected == 0  # the value model begins as zeros


def test_what_is_clipped_is_the_mean_of_the_last_pass(tokenizer, monkeypatch):
    ppo = at_work(tokenizer, samples=1, batch_size=1, passes=2, decay=0.0)
    shares = iter((0.9, 0.9, 0.9, 0.0, 0.25, 0.5))
    monkeypatch.setattr(ppo, "_learn", lambda written: next(shares))
    assert ppo.step(PROMPTS).clipped == pytest.approx(0.25)
    assert ppo.steps == 1


def test_a_policy_that_is_its_reference_is_no_nat_away(tokenizer):
    assert at_work(tokenizer).step(PROMPTS).kl == pytest.approx(0, abs=1e-5)


def answer(tokenizer, text, ended=True):
    start, said = encode_chat(tokenizer, PROMPTS[0]), tokenizer.encode(text)
    said = [*said, tokenizer.special_tokens["<|im_end|>"]] if ended else said
    talk = [*PROMPTS[0], {"role": "assistant", "content": text}]
    return Answer(talk, (start + said, [IGNORED] * (len(start) - 1) + said + [IGNORED]), ended)


def given_answers(monkeypatch, answers):
    monkeypatch.setattr(module, "written_answers", lambda *_: answers)


def test_an_answer_that_was_cut_off_has_a_score_of_its_own(tokenizer, monkeypatch):
    both = [answer(tokenizer, "aeiou"), answer(tokenizer, "aeiou", ended=False)]
    given_answers(monkeypatch, both)
    ppo = at_work(tokenizer, unfinished=-3.0)
    measured = ppo.step(PROMPTS[:1])
    assert measured.score == (5 - 3) / 2
    assert measured.unfinished == 0.5


def test_every_token_of_the_answer_learns_and_the_stop_token_is_one(tokenizer, monkeypatch):
    """The policy's gradient reaches the scores of each token said, and no others."""
    both = [answer(tokenizer, "Elmford."), answer(tokenizer, "Ada Ash lives in Foxhill.")]
    given_answers(monkeypatch, both)
    ppo = at_work(tokenizer, kl=0.0, passes=1)
    seen = []
    plain = module.token_logp

    def watched(model, ids_BT, targets_BT):
        logp_BT = plain(model, ids_BT, targets_BT)
        if logp_BT.requires_grad:
            logp_BT.register_hook(lambda grad: seen.append((grad, targets_BT)))
        return logp_BT

    monkeypatch.setattr(module, "token_logp", watched)
    ppo.step(PROMPTS[:1])
    [(grad_BT, targets_BT)] = seen
    assert torch.equal(grad_BT != 0, targets_BT != IGNORED)
    end = tokenizer.special_tokens["<|im_end|>"]
    assert (grad_BT[targets_BT == end] != 0).sum() == 2


def test_rewards_count_less_their_running_mean(tokenizer, monkeypatch):
    """So a value model that expects 0 of everything is right on average."""
    texts = ["a", "aa", "aaa", "aaaaaa"]
    ppo = at_work(tokenizer, kl=0.0, decay=1.0, policy_rate=0.0, value_rate=0.0)
    returns = []
    plain = module.value_loss
    monkeypatch.setattr(module, "value_loss", lambda *xs: returns.append(xs[2]) or plain(*xs))
    for count, half in enumerate((texts[:2], texts[2:]), start=1):
        given_answers(monkeypatch, [answer(tokenizer, text) for text in half])
        ppo.step(PROMPTS[:1])
        mean = sum(map(len, texts[: 2 * count])) / (2 * count)
        assert {round(float(r), 4) for r in returns[-1]} == {len(text) - mean for text in half}


def test_more_passes_leave_the_first_probabilities_and_clip(tokenizer, monkeypatch):
    before = []
    plain = module.policy_loss
    monkeypatch.setattr(module, "policy_loss", lambda *xs: before.append(xs[:2]) or plain(*xs))
    ppo = at_work(tokenizer, passes=4, policy_rate=1e-2, clip=0.05)
    measured = ppo.step(PROMPTS)
    assert len(before) == 4
    torch.testing.assert_close(before[0][0], before[0][1], rtol=1e-4, atol=1e-5)
    # Each pass has an order of its own.
    assert all(
        torch.equal(pair[1].sort().values, before[0][1].sort().values) for pair in before[1:]
    )
    assert not torch.allclose(before[3][0], before[3][1], atol=0.1)
    assert measured.clipped > 0.1


def test_it_learns_what_is_rewarded(tokenizer):
    """Short answers that end. Where not to end costs less than to go on, it learns not to end."""
    short = lambda talks: [-len(talk[-1]["content"]) / 10 for talk in talks]  # noqa: E731
    ppo = at_work(tokenizer, short, samples=8, unfinished=-6.0, policy_rate=5e-4)
    measured = [ppo.step(PROMPTS) for _ in range(4)]
    assert measured[-1].score > measured[0].score + 0.3
    assert measured[-1].tokens < measured[0].tokens - 2
    assert measured[-1].kl > 0.5


def test_the_same_seed_gives_the_same_run(tokenizer):
    def run(seed):
        ppo = at_work(tokenizer, seed=seed)
        return [ppo.step(PROMPTS) for _ in range(2)]

    assert run(1) == run(1) != run(2)


def test_bad_rewards_and_settings_are_refused(tokenizer):
    for reward in (lambda talks: [1.0], lambda talks: [math.nan] * len(talks)):
        ppo = at_work(tokenizer, reward)
        before = weights(ppo.policy)
        with pytest.raises(ValueError, match="one finite number for each of 6"):
            ppo.step(PROMPTS)
        assert not moved(ppo.policy, before)
    with pytest.raises(ValueError, match="no prompt"):
        at_work(tokenizer).step([])
    for name, number in (
        ("samples", 0), ("passes", 0), ("batch_size", 0), ("max_new_tokens", 0), ("kl", -0.1),
        ("value_only", -1), ("clip", 0.0), ("value_clip", math.nan), ("max_gradient_norm", 0.0),
        ("decay", 1.1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=name):
            PPOSettings(**{name: number})


def test_a_loss_that_is_no_number_moves_nothing(tokenizer, monkeypatch):
    ppo = at_work(tokenizer)
    monkeypatch.setattr(module, "policy_loss", lambda logp, *_: (logp * math.nan).mean())
    before = weights(ppo.policy)
    with pytest.raises(ValueError, match="lower learning rate"):
        ppo.step(PROMPTS)
    assert not moved(ppo.policy, before)


def test_differences_of_rounding_are_not_scaled_up(tokenizer, monkeypatch):
    """Two answers of equal worth, of which the value model expects nothing but noise."""
    given_answers(monkeypatch, [answer(tokenizer, "Elmford."), answer(tokenizer, "Foxhill.")])
    seen, plain = [], module.policy_loss
    monkeypatch.setattr(module, "policy_loss", lambda *xs: seen.append(xs[2]) or plain(*xs))
    ppo = at_work(tokenizer, lambda talks: [1.0] * len(talks), kl=0.0, passes=1)
    torch.nn.init.normal_(ppo.value.reward.weight, std=1e-8)
    ppo.step(PROMPTS[:1])
    [ahead] = seen
    assert 0 < ahead.abs().max() < 0.01


def test_answers_of_equal_worth_teach_nothing_and_break_nothing(tokenizer, monkeypatch):
    given_answers(monkeypatch, [answer(tokenizer, "")])
    ppo = at_work(tokenizer, lambda talks: [1.0] * len(talks), kl=0.0, samples=1)
    before = copy.deepcopy(weights(ppo.policy))
    measured = ppo.step(PROMPTS[:1])
    assert measured.expected == 0
    assert not moved(ppo.policy, before)
