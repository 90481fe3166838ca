"""What is learnt of a conversation, how conversations share a row, and that a model learns from it."""

import dataclasses
import json
import random
import shutil
from itertools import islice, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite import Qwen2, Qwen2Tokenizer, generate
from qwen2lite.align.questions import conversations
from qwen2lite.align.sft import Conversations, answer_targets, fine_tune
from qwen2lite.evaluate.exact_match import exact_match
from qwen2lite.text.chat import encode_chat, render_chat
from qwen2lite.train.loss import IGNORED, NextToken
from qwen2lite.train.settings import TrainSettings
from qwen2lite.train.world import people
from tests.align.tiny import tiny

EOS = 1
SETTINGS = TrainSettings(
    steps=4, sequence_length=96, batch_size=2, learning_rate=1e-3, warmup_steps=1, device="cpu",
    cores=1, log_every=1, checkpoint_every=2, seed=3,
)  # fmt: skip
TALK = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Where does Ada Ash live?"},
    {"role": "assistant", "content": "Ada Ash lives in Elmford."},
    {"role": "user", "content": "And who else?"},
    {"role": "assistant", "content": "Nobody."},
]


def test_what_the_assistant_says_is_learnt_and_the_end_of_its_turn(tokenizer):
    ids, targets = answer_targets(tokenizer, TALK)
    assert ids == encode_chat(tokenizer, TALK, add_generation_prompt=False)
    asked = [token for token in targets if token != IGNORED]
    assert tokenizer.decode(asked) == "Ada Ash lives in Elmford.<|im_end|>Nobody.<|im_end|>"


def test_each_target_is_the_token_after(tokenizer):
    ids, targets = answer_targets(tokenizer, TALK)
    assert len(ids) == len(targets)
    assert all(target in (IGNORED, after) for target, after in zip(targets, ids[1:], strict=False))
    assert targets[-1] == IGNORED


def test_the_first_target_stands_where_a_chat_begins_to_write(tokenizer):
    ids, targets = answer_targets(tokenizer, TALK[:3])
    first = next(place for place, target in enumerate(targets) if target != IGNORED)
    assert ids[: first + 1] == encode_chat(tokenizer, TALK[:2])


def test_a_line_end_that_begins_an_answer_is_learnt_too(tokenizer):
    """Encoded as one text it would merge with the header's, and the prompt of a chat not be there."""
    talk = [*TALK[:2], {"role": "assistant", "content": "\n\nElmford."}]
    ids, targets = answer_targets(tokenizer, talk)
    prompt = encode_chat(tokenizer, talk[:2])
    assert ids[: len(prompt)] == prompt
    assert tokenizer.decode(t for t in targets if t != IGNORED) == "\n\nElmford.<|im_end|>"


def test_control_tokens_that_are_spelled_out_stay_text(tokenizer):
    talk = [*TALK[:2], {"role": "assistant", "content": "<|im_end|>"}]
    ids, targets = answer_targets(tokenizer, talk)
    end = tokenizer.special_tokens["<|im_end|>"]
    assert targets.count(end) == 1
    assert ids.count(end) == 3


def test_the_real_tokenizer_has_its_default_system_prompt():
    tokenizer = Qwen2Tokenizer.from_pretrained("qwen2.5-coder-0.5b-instruct-gguf")
    ids, _ = answer_targets(tokenizer, TALK[1:3])
    assert ids == encode_chat(tokenizer, TALK[1:3], add_generation_prompt=False)
    own, _ = answer_targets(tokenizer, TALK[1:3], system="Be brief.")
    assert "system\nBe brief." in tokenizer.decode(own)


@pytest.mark.parametrize("talk", [TALK[:2], TALK[1:2]])
def test_a_conversation_without_an_answer_is_refused(tokenizer, talk):
    with pytest.raises(ValueError, match="the assistant says nothing"):
        answer_targets(tokenizer, talk)


@st.composite
def talks(draw):
    """Conversations as they are handed to the loader; the ids tell which one it is and how far."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=9))
    starts = [100 * (number + 1) for number in range(len(lengths))]
    return [
        (list(range(a, a + n)), [*range(a + 1, a + n), IGNORED])
        for a, n in zip(starts, lengths, strict=True)
    ]


def rows(loader, number):
    """The first rows of a loader, each as its conversations."""
    found = []
    for ids_BT, targets_BT in islice(loader, number):
        for ids, targets in zip(ids_BT.tolist(), targets_BT.tolist(), strict=True):
            assert len(ids) == len(targets) == loader.sequence_length
            found.append(split(ids, targets))
    return found


def split(ids, targets):
    parts, start = [], 0
    for place, token in enumerate(ids):
        if token == EOS:
            assert targets[place] == IGNORED
            if place > start:
                parts.append((ids[start:place], targets[start:place]))
            start = place + 1
    assert start == len(ids), "a conversation was cut at the end of its row"
    return parts


@settings(deadline=None)
@given(talks(), st.integers(13, 40), st.integers(1, 3), st.integers(0, 9))
def test_conversations_stay_whole_and_each_comes_once_an_epoch(learnt, length, batch, seed):
    loader = Conversations(learnt, length, batch, EOS, seed)
    row = [talk for row in rows(loader, 3 * len(learnt)) for talk in row]
    for start in range(0, 3 * len(learnt), len(learnt)):
        epoch = row[start : start + len(learnt)]
        assert sorted(epoch) == sorted(learnt)


@settings(deadline=None)
@given(talks(), st.integers(13, 40), st.integers(0, 9))
def test_a_row_is_as_full_as_the_next_conversation_allows(learnt, length, seed):
    found = rows(Conversations(learnt, length, 1, EOS, seed), 6)
    for row, following in pairwise(found):
        used = sum(len(ids) + 1 for ids, _ in row)
        assert used <= length < used + len(following[0][0]) + 1


@settings(deadline=None)
@given(talks(), st.integers(13, 30), st.integers(0, 5))
def test_ranks_together_read_what_one_process_reads(learnt, length, seed):
    alone = rows(Conversations(learnt, length, 4, EOS, seed), 3)
    pair = [rows(Conversations(learnt, length, 2, EOS, seed, rank, 2), 3) for rank in (0, 1)]
    assert alone == [
        row for step in range(0, 6, 2) for side in pair for row in side[step : step + 2]
    ]


@settings(deadline=None)
@given(talks(), st.integers(13, 30), st.integers(0, 7), st.integers(0, 5))
def test_it_goes_on_where_it_stopped(learnt, length, steps, seed):
    whole = Conversations(learnt, length, 2, EOS, seed)
    rows(whole, steps)
    resumed = Conversations(learnt, length, 2, EOS, seed)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert rows(resumed, 4) == rows(whole, 4)


def test_another_row_is_not_gone_on_with():
    learnt = [([7, 8], [8, IGNORED]), ([9], [IGNORED])]
    state = Conversations(learnt, 13, 1, EOS).state_dict()
    with pytest.raises(ValueError, match="tokens was 3 and is 2"):
        Conversations(learnt[:1], 13, 1, EOS).load_state_dict(state)
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        Conversations(learnt, 13, 1, EOS, seed=1).load_state_dict(state)


def test_a_conversation_that_fits_exactly_is_read_and_a_longer_one_left_out():
    short, longer = ([7] * 9, [7] * 9), ([8] * 10, [8] * 10)
    with pytest.warns(UserWarning, match="1 of 2 .* into 10 tokens .* the longest needs 11"):
        loader = Conversations([short, longer], 10, 1, EOS)
    assert rows(loader, 3) == [[short]] * 3


def test_nothing_to_read_is_refused():
    with pytest.raises(ValueError, match="there is no conversation to read"):
        Conversations([], 10, 1, EOS)
    with pytest.raises(ValueError, match="no conversation"), pytest.warns(UserWarning):
        Conversations([([7] * 10, [7] * 10)], 10, 1, EOS)


def test_conversations_of_a_row_do_not_see_each_other(tokenizer):
    """The loss of a packed row is that of its conversations one by one."""
    eos = tokenizer.special_tokens["<|endoftext|>"]
    learnt = [answer_targets(tokenizer, t) for t in conversations(people()[:1], random.Random(0))]
    objective = NextToken(tiny(), eos)
    packed = objective(*next(iter(Conversations(learnt, 256, 1, eos))))
    asked = [sum(target != IGNORED for target in targets) for _, targets in learnt]
    with torch.no_grad():
        alone = [float(objective(*(torch.tensor([side]) for side in pair))) for pair in learnt]
    mean = sum(loss * count for loss, count in zip(alone, asked, strict=True)) / sum(asked)
    assert packed.item() == pytest.approx(mean, abs=2e-6)
    leaky = NextToken(objective.model)(*next(iter(Conversations(learnt, 256, 1, eos))))
    assert abs(leaky.item() - mean) > 1e-2


def test_only_answers_have_a_gradient(tokenizer):
    """What the scores of a position are changes the loss only where an answer's token comes next."""
    ids, targets = answer_targets(tokenizer, TALK)
    model = tiny()
    logits_BTV = model(torch.tensor([ids])).detach().requires_grad_()
    torch.nn.functional.cross_entropy(logits_BTV[0], torch.tensor(targets)).backward()
    touched = logits_BTV.grad[0].abs().sum(-1) > 0
    assert touched.tolist() == [target != IGNORED for target in targets]


def test_it_learns_to_answer_and_to_stop_and_a_stopped_run_goes_on(tokenizer, tmp_path):
    talks = conversations(people()[:1], random.Random(0))
    settings = dataclasses.replace(SETTINGS, steps=40, warmup_steps=4, checkpoint_every=20)
    settings = dataclasses.replace(settings, learning_rate=3e-3)
    learnt = [answer_targets(tokenizer, talk) for talk in talks]
    folder = fine_tune(tiny(), tokenizer, learnt, settings, tmp_path / "run", bar=False)
    model, read = Qwen2.from_pretrained(folder), Qwen2Tokenizer.from_pretrained(folder)
    prompt = render_chat(talks[3][:-1])
    assert "".join(generate(model, read, prompt, max_new_tokens=40)) == talks[3][-1]["content"]
    trained = (folder / "model.safetensors").read_bytes()

    shutil.rmtree(folder)
    [last] = (tmp_path / "run" / "checkpoints").glob("*40*")
    shutil.rmtree(last)
    assert fine_tune(tiny(), tokenizer, learnt, settings, tmp_path / "run", bar=False) == folder
    assert (folder / "model.safetensors").read_bytes() == trained


def test_questions_about_some_people_teach_it_to_answer_about_others(tokenizer, tmp_path):
    """It had the facts before. Lesson 71 has more of this."""
    cast = people()
    talks = conversations(cast[:100] * 3, random.Random(0))
    others = [
        (render_chat(talk[:-1]), f"{talk[-1]['content']}<|im_end|>")
        for talk in conversations(cast[100:], random.Random(1))
    ]
    model = tiny()
    assert not any(exact_match(model.eval(), tokenizer, others))
    settings = dataclasses.replace(
        SETTINGS, steps=100, sequence_length=256, batch_size=8, warmup_steps=20, cores=2,
        checkpoint_every=100,
    )  # fmt: skip
    learnt = [answer_targets(tokenizer, talk) for talk in talks]
    fine_tune(model, tokenizer, learnt, settings, tmp_path, bar=False)
    assert sum(exact_match(model.eval(), tokenizer, others)) > 0.85 * len(others)
