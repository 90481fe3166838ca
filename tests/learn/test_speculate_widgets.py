"""The pictures of drafts show what the formula says, and who wrote which token."""

import itertools

import ipywidgets
import matplotlib.pyplot as plt
import pytest
from matplotlib.colors import to_hex

from qwen2lite.learn.widgets.speculate import (
    GUESSED,
    LENGTHS,
    OWN,
    REPLACED,
    best_draft,
    draw_speed,
    draw_steps,
    expected_tokens,
    explore_speed,
    speed,
    steps_finding,
)


@pytest.mark.parametrize(("share", "length"), [(0.9, 4), (0.5, 3), (0.2, 1)])
def test_expected_tokens_are_the_mean_over_all_drafts(share, length):
    mean = 0.0
    for right in itertools.product((True, False), repeat=length):
        chance = share ** sum(right) * (1 - share) ** (length - sum(right))
        mean += chance * (1 + len(list(itertools.takewhile(bool, right))))
    assert expected_tokens(share, length) == pytest.approx(mean)


def test_drafts_pay_when_more_are_right_than_a_guess_takes():
    for ratio in (0.1, 0.5, 0.9):
        assert best_draft(ratio - 0.05, ratio) == 0 < best_draft(ratio + 0.05, ratio)
    assert speed(0.9, 4, 0.48) == pytest.approx(4.0951 / 2.92)


def test_the_marked_length_is_the_best():
    draw_speed(0.9, 0.3)
    panel = plt.gca()
    *others, curve, star, _ = panel.lines
    assert list(curve.get_ydata()) == [speed(0.9, length, 0.3) for length in LENGTHS]
    assert star.get_xdata()[0] == best_draft(0.9, 0.3) and len(others) == 5
    assert star.get_ydata()[0] == max(curve.get_ydata())
    assert panel.get_title().endswith("times as fast") and "90% are right" in panel.get_title()


def test_choosing_draws_another_picture(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **controls: shown.append((draw, controls))
    )
    explore_speed()
    [(draw, controls)] = shown
    draw(**{name: control.value for name, control in controls.items()})
    draw(0.4, 0.6)
    titles = [plt.figure(number).axes[0].get_title() for number in plt.get_fignums()]
    assert "3 guesses, 1.38 times as fast" in titles[0] and "drafts don't pay" in titles[1]


STEPS = [([1, 2], [1, 2, 3]), ([4, 5], [4, 6]), ([7], [8]), ([], [9])]


def test_every_token_has_the_colour_of_who_wrote_it():
    draw_steps(STEPS, lambda ids: f" w{ids[0]}\n")
    panel = plt.gca()
    bars = [bar for bar in panel.patches if bar.get_width() > 1]
    colours = [GUESSED, GUESSED, OWN, GUESSED, REPLACED, REPLACED, OWN]
    assert [to_hex(bar.get_facecolor()) for bar in bars] == colours
    words = [text.get_text() for text in panel.texts]
    assert words == [f"·w{n}↵" for n in (1, 2, 3, 4, 6, 5, 8, 7, 9)], "wrong guesses below"
    assert len(panel.lines) == len(STEPS), "a mark before each step"


def test_the_title_counts_tokens_steps_and_guesses():
    assert steps_finding(STEPS) == "7 tokens in 4 steps: 43% of them were guessed"


def test_long_texts_take_several_lines():
    draw_steps([([n], [n, n]) for n in range(40)], lambda ids: "token")
    places = {text.get_position() for text in plt.gca().texts}
    assert len(places) == 80 and len({y for _, y in places}) > 4
