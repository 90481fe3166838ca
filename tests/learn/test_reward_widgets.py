"""The lines are the model's rewards, the title compares their ends, and an explorer takes any pair."""

import math
import random

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.align.pairs import FAULTS, pairs
from qwen2lite.align.reward import RewardModel, rewards, to_the_end
from qwen2lite.learn.widgets import reward
from qwen2lite.learn.widgets.reward import draw_judges, draw_rewards, explore_rewards
from qwen2lite.learn.work import REPOSITORY
from qwen2lite.train.world import ATTRIBUTES, people

TINY = REPOSITORY / "data" / "qwen2-tiny"


@pytest.fixture(scope="module")
def tokenizer():
    return Qwen2Tokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def model():
    model = RewardModel.from_model(
        Qwen2.from_pretrained(TINY, dtype=torch.float32, device="cpu")
    ).eval()
    torch.nn.init.normal_(model.reward.weight, generator=torch.Generator().manual_seed(0))
    return model


def made(fault, place=0):
    return pairs(people()[:1], random.Random(0), FAULTS[fault])[place]


def drawn():
    """Both lines and both large marks of the last figure, and its labels."""
    [panel] = plt.gcf().axes
    heights = [line.get_ydata().tolist() for line in panel.lines]
    labels = [label.get_text() for label in panel.get_xticklabels()]
    return heights[::2], [height for [height] in heights[1::2]], labels, panel.get_title()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_marks_are_the_rewards(fault, tokenizer, model):
    pair = made(fault)
    draw_rewards(model, tokenizer, pair)
    lines, marks, _, title = drawn()
    read = rewards(model, tokenizer, pair.conversations).tolist()
    assert marks == pytest.approx(read, abs=1e-4)
    assert [line[-1] for line in lines] == marks
    chance = 1 / (1 + math.exp(marks[1] - marks[0]))
    assert title.startswith(f"{marks[0]:.2f} for the better, {marks[1]:.2f} for the worse")
    assert title.endswith(f"preferred with {chance:.0%}")


def test_the_lines_begin_before_the_answer_and_part_where_it_does(tokenizer, model):
    pair = made("twice")
    draw_rewards(model, tokenizer, pair)
    (better, worse), _, labels, _ = drawn()
    said = tokenizer.encode(pair.chosen)
    assert len(better) == len(said) + 2  # a line end before, <|im_end|> after
    assert len(worse) == len(labels) > len(better)
    assert labels[0] == "⏎" and labels[-1].endswith("<|im_end|>")
    assert "".join(labels[1 : len(said) + 1]) == pair.chosen
    # A right answer that goes on is right up to its end.
    assert better[:-1] == pytest.approx(worse[: len(said) + 1], abs=1e-4)
    assert better[-1] != pytest.approx(worse[len(said) + 1], abs=1e-2)
    ids = to_the_end(tokenizer, pair.conversations[0])
    with torch.no_grad():
        everywhere = model(torch.tensor([ids]))[0, :, 0].tolist()
    assert better == pytest.approx(everywhere[-len(better) :], abs=1e-5)


def test_where_the_answers_differ_both_tokens_are_named(tokenizer, model):
    draw_rewards(model, tokenizer, made("value"), "a title")
    _, _, labels, title = drawn()
    assert " Hazelton" in [label.split("\n")[0] for label in labels if "\n" in label]
    assert title == "a title"


def test_the_chosen_pair_is_drawn(tokenizer, model, monkeypatch, capsys):
    shown, seen = [], []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    monkeypatch.setattr(reward, "draw_rewards", lambda *given: seen.append(given))
    cast = people()[:2]
    explore_rewards(model, tokenizer, cast)
    [(draw, boxes)] = shown
    names = [person.name for person in cast]
    assert boxes == {"fault": list(FAULTS), "fact": list(ATTRIBUTES), "person": names}
    draw(fault="twice", fact="pet", person=names[1])
    [(_, _, pair)] = seen
    assert pair.chosen == f"{names[1]} has a pet {cast[1].pet}."
    assert pair.rejected == f"{pair.chosen} {pair.chosen}"
    assert capsys.readouterr().out == f"better: {pair.chosen}   worse: {pair.rejected}\n"


def test_every_judge_has_a_bar_for_every_fault():
    shares = {"one": {"value": 0.475, "twice": 1.0}, "two": {"value": 0.9, "twice": 0.25}}
    draw_judges(shares, "a finding")
    figure = plt.gcf()
    [panel] = figure.axes
    assert [[bar.get_height() for bar in bars] for bars in panel.containers] == [
        [47.5, 100],
        [90, 25],
    ]
    assert [text.get_text() for text in panel.texts] == ["47.5", "100", "90", "25"]
    assert [text.get_text() for text in figure.legends[0].texts] == ["a coin", "one", "two"]
    edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in panel.patches]
    assert all(a[1] <= b[0] for a, b in zip(sorted(edges), sorted(edges)[1:], strict=False))
    assert [label.get_text() for label in panel.get_xticklabels()] == ["value", "twice"]
    assert panel.get_title() == "a finding"
