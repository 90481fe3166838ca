"""The bars show who sits where, and the masks what each row sees."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.learn.widgets.batching import (
    ANSWERS,
    draw_masks,
    draw_seating,
    explore_seating,
    seating,
    steps_of,
)


def test_seats_by_hand():
    lengths = (4, 1, 2, 3)
    assert seating(lengths, 2, False) == [(0, 0, 4), (1, 0, 1), (0, 4, 6), (1, 4, 7)]
    assert seating(lengths, 2, True) == [(0, 0, 4), (1, 0, 1), (1, 1, 3), (1, 3, 6)]


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 4, 5, 12, 20])
def test_a_place_is_taken_by_one_text_at_a_time(rows, replaced):
    seats = seating(ANSWERS, rows, replaced)
    taken = [(row, step) for row, start, end in seats for step in range(start, end)]
    assert len(taken) == len(set(taken)) == sum(ANSWERS)
    assert {row for row, _ in taken} <= set(range(rows))
    assert steps_of(seats) >= max(max(ANSWERS), sum(ANSWERS) / rows)


@pytest.mark.parametrize("rows", range(1, 14))
def test_replacing_is_never_slower(rows):
    ways = [steps_of(seating(ANSWERS, rows, replaced)) for replaced in (False, True)]
    groups = [ANSWERS[start : start + rows] for start in range(0, len(ANSWERS), rows)]
    assert ways[0] == sum(map(max, groups)) and ways[1] <= ways[0]


def test_the_picture_has_a_bar_for_each_text_and_says_the_steps():
    draw_seating((4, 1, 2, 3), 2)
    groups, replaced = plt.gcf().axes
    assert groups.get_title() == "A group waits for its longest: 7 steps, 29% of the places idle"
    assert replaced.get_title() == "A free row gets the next text: 6 steps, 17% of the places idle"
    bars = [(b.get_y() + b.get_height() / 2, b.get_x(), b.get_width()) for b in replaced.patches]
    assert bars == [(0, 0, 4), (1, 0, 1), (1, 1, 2), (1, 3, 3)]
    assert [text.get_text() for text in groups.texts] == ["0", "1", "2", "3"]


def test_the_sliders_change_rows_and_lengths(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_seating()
    [(draw, sliders)] = shown
    assert sliders.keys() == {"rows", "longest"}
    draw(rows=1, longest=20)
    title = plt.gcf().axes[0].get_title()
    assert f"{sum(ANSWERS) - ANSWERS[0] + 20} steps, 0% of the places idle" in title


def test_the_masks_are_those_of_the_package():
    draw_masks((0, 2), 3)
    panels = plt.gcf().axes
    drawn = [panel.images[0].get_array().astype(int).tolist() for panel in panels]
    assert drawn == [[[1, 0, 0], [1, 1, 0], [1, 1, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]]
    assert [panel.get_title() for panel in panels] == ["row 0: padding 0", "row 1: padding 2"]
