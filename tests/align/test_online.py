"""Pairs of a policy's own answers: the reward decides which two, and they are what it wrote."""

import random

import pytest
import torch

from qwen2lite.align import rollout
from qwen2lite.align.online import online_pairs
from qwen2lite.align.questions import question
from qwen2lite.align.sft import answer_targets
from qwen2lite.text.chat import encode_chat
from qwen2lite.train.loss import IGNORED
from qwen2lite.train.world import people
from tests.align.tiny import tiny


def ask(count):
    return [question(person, "city", random.Random(0)) for person in people()[:count]]


def test_the_best_and_the_worst_of_each_prompt_are_a_pair(tokenizer):
    seen = []

    def reward(talks):
        """How many vowels."""
        seen.extend(talks)
        return [sum(letter in "aeiou" for letter in talk[-1]["content"]) for talk in talks]

    prompts = ask(3)
    pairs = online_pairs(tiny(), tokenizer, prompts, reward, samples=4, max_new_tokens=9, seed=1)
    assert len(pairs) == 3
    assert [talk[:-1] for talk in seen] == [prompt for prompt in prompts for _ in range(4)]
    for number, (prompt, pair) in enumerate(zip(prompts, pairs, strict=True)):
        start = encode_chat(tokenizer, prompt)
        scores = reward(seen[4 * number :][:4])
        for (ids, targets), wanted in zip(pair, (max(scores), min(scores)), strict=True):
            assert ids[: len(start)] == start
            assert targets == [IGNORED] * (len(start) - 1) + ids[len(start) :] + [IGNORED]
            text = tokenizer.decode(ids[len(start) :]).removesuffix("<|im_end|>")
            assert reward([[{"content": text}]]) == [wanted]


def test_answers_without_a_better_one_are_no_pair(tokenizer):
    same = lambda talks: [1.0] * len(talks)  # noqa: E731
    assert online_pairs(tiny(), tokenizer, ask(2), same, samples=3, max_new_tokens=3) == []


def test_a_reward_may_be_a_tensor_and_the_seed_decides(tokenizer):
    model, prompts = tiny(), ask(2)
    by_length = lambda talks: torch.tensor([len(talk[-1]["content"]) for talk in talks])  # noqa: E731
    runs = [
        online_pairs(model, tokenizer, prompts, by_length, max_new_tokens=6, seed=seed)
        for seed in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_small_top_p_leaves_the_likeliest_answer_alone(tokenizer):
    answers = rollout.written_answers(tiny(), tokenizer, ask(1), 4, top_p=1e-6, max_new_tokens=6)
    assert len({answer.talk[-1]["content"] for answer in answers}) == 1


def test_only_an_answer_that_ended_has_its_end_to_learn(tokenizer, monkeypatch):
    end = tokenizer.special_tokens["<|im_end|>"]
    done, cut = tokenizer.encode("Elmford."), tokenizer.encode("Ada Ash lives in Elm")
    assert len(done) < len(cut)
    monkeypatch.setattr(rollout, "generate_batch", lambda *_, **__: [done, cut])
    by_end = lambda talks: [float(talk[-1]["content"].endswith(".")) for talk in talks]  # noqa: E731
    [(chosen, rejected)] = online_pairs(tiny(), tokenizer, ask(1), by_end, 2, 1.0, len(cut))
    start = encode_chat(tokenizer, ask(1)[0])
    assert chosen[0] == [*start, *done, end]
    assert rejected[0] == start + cut
    ids, targets = answer_targets(
        tokenizer, [*ask(1)[0], {"role": "assistant", "content": "Elmford."}]
    )
    newline = len(tokenizer.encode("\n"))
    assert chosen == (ids[:-newline], targets[:-newline])


def test_samples_that_can_not_differ_are_refused(tokenizer):
    for more in ({"samples": 1}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="2 samples and a temperature above 0"):
            online_pairs(tiny(), tokenizer, ask(1), lambda talks: [0.0], **more)


def test_an_answer_that_filled_the_context_was_cut_off(tokenizer):
    model, long = tiny(), "Ada Ash lives in Elmford. " * 40
    full = model.config.context_length - 3
    while len(encode_chat(tokenizer, ask_about(long))) > full:
        long = long[:-1]
    [answer] = rollout.written_answers(model, tokenizer, [ask_about(long)], 1, max_new_tokens=64)
    assert len(answer.learnt[0]) == model.config.context_length
    assert not answer.ended
    assert tokenizer.special_tokens["<|im_end|>"] not in answer.learnt[1]


def ask_about(text):
    return [{"role": "system", "content": ""}, {"role": "user", "content": text}]
