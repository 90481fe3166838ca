"""What is learnt is drawn as it is, and an explorer asks the model that was chosen."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.align.sft import answer_targets
from qwen2lite.learn.widgets import sft
from qwen2lite.learn.widgets.sft import (
    LEARNT,
    READ,
    draw_learnt,
    explore_answers,
    explore_learnt,
    targets_of,
)
from qwen2lite.learn.work import REPOSITORY
from qwen2lite.train.loss import IGNORED
from qwen2lite.train.world import people

TALK = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]


@pytest.fixture(scope="module")
def tokenizer():
    return Qwen2Tokenizer.from_pretrained(REPOSITORY / "data" / "qwen2-tiny")


def drawn():
    """Text and colour of each box of the last figure, and its title."""
    [panel] = plt.gcf().axes
    *tokens, title = (text.get_text() for text in panel.texts)
    colours = [plt.matplotlib.colors.to_hex(patch.get_facecolor()) for patch in panel.patches]
    return list(zip(tokens, colours, strict=True)), title


def test_the_answer_and_its_end_are_orange(tokenizer):
    draw_learnt(tokenizer, answer_targets(tokenizer, TALK))
    boxes, title = drawn()
    learnt = "".join(text for text, colour in boxes if colour == LEARNT)
    assert learnt == "Ada.<|im_end|>"
    assert {colour for _, colour in boxes} == {LEARNT, READ}
    count = sum(colour == LEARNT for _, colour in boxes)
    assert title == f"{count} of {len(boxes)} tokens are learnt (orange), the others only read"
    draw_learnt(tokenizer, answer_targets(tokenizer, TALK), "a title")
    assert drawn()[1] == "a title"


def test_more_or_less_is_learnt(tokenizer):
    ids, targets = answer_targets(tokenizer, TALK)
    assert targets_of(tokenizer, TALK) == (ids, targets)
    assert targets_of(tokenizer, TALK, "everything") == (ids, [*ids[1:], IGNORED])
    fewer = targets_of(tokenizer, TALK, "answers, not their end")[1]
    [place] = [p for p, (a, b) in enumerate(zip(targets, fewer, strict=True)) if a != b]
    assert targets[place] == tokenizer.special_tokens["<|im_end|>"] and fewer[place] == IGNORED


def test_another_answer_and_another_mask_are_drawn(tokenizer, monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_learnt(tokenizer, TALK)
    [(draw, boxes)] = shown
    assert boxes["says"].value == "Ada."
    for what in boxes["what"].options:
        draw(what=what, says="Bob!")
        learnt = "".join(text for text, colour in drawn()[0] if colour == LEARNT)
        assert "Bob!" in learnt and ("Who" in learnt) == (what == "everything")


def test_the_chosen_model_answers(tokenizer, monkeypatch, capsys):
    shown, said, ada = [], [], people()[0]
    monkeypatch.setattr(ipywidgets, "interact", lambda ask, **boxes: shown.append((ask, boxes)))
    monkeypatch.setattr(sft, "draw_conversation", said.append)
    answers = {"good": f"{ada.name} has a pet {ada.pet}.", "short": f"{ada.pet}.", "bad": "No."}
    monkeypatch.setattr(sft, "generate", lambda model, *_, **__: iter([answers[model]]))
    explore_answers({name: name for name in answers}, tokenizer, [ada])
    [(ask, boxes)] = shown
    assert boxes == {"model": list(answers), "person": [ada.name], "fact": [*vars(ada)][1:]}
    for name in answers:
        ask(model=name, person=ada.name, fact="pet")
    assert [talk[-1]["content"] for talk in said] == list(answers.values())
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["right", "right", f"wrong; right is: {answers['good']}"]


def test_a_real_model_is_asked_too(tokenizer, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda ask, **boxes: shown.append(ask))
    tiny = Qwen2.from_pretrained(
        REPOSITORY / "data" / "qwen2-tiny", dtype=torch.float32, device="cpu"
    )
    explore_answers({"untaught": tiny}, tokenizer, people()[:1])
    shown[0]("untaught", people()[0].name, "city")
    assert "wrong; right is: Clara Ash lives in Hazelton." in capsys.readouterr().out
