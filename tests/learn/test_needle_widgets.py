"""A cell of the picture is the share of its depth and length, and the titles say what is best."""

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.learn.widgets.needle import draw_grids, explore_grids

GRIDS = {"poor": [[1.0, 0.5], [0.0, 0.0], [0.0, 0.25]], "good": [[1.0, 1.0]] * 3}
REST = ([100, 200, 400], [0.0, 1.0], 200)


def test_cells_stand_where_they_belong():
    draw_grids(GRIDS, *REST)
    poor, good, _ = plt.gcf().axes
    shown = {t.get_position(): t.get_text() for t in poor.texts}
    assert shown[0, 1] == "50%" and shown[2, 1] == "25%" and shown[2, 0] == "0%"
    assert poor.lines[0].get_xdata()[0] == 1.5, "behind the second of three lengths"
    assert poor.get_title() == "poor\nat 400: 12%" and good.get_title() == "good\nat 400: 100%"
    assert plt.gcf().get_suptitle() == "At 400 tokens, good finds most"


def test_one_way_alone_can_be_drawn_under_a_title_of_its_own():
    draw_grids({"poor": GRIDS["poor"]}, *REST, title="as it is")
    assert plt.gcf().get_suptitle() == "as it is"


def test_ways_can_be_chosen(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **controls: shown.append((draw, controls))
    )
    explore_grids(GRIDS, *REST)
    [(draw, controls)] = shown
    draw(controls["ways"].value)
    assert len(plt.gcf().axes) == 3
    draw(("good",))
    assert len(plt.gcf().axes) == 2
    before = plt.gcf()
    draw(())
    assert plt.gcf() is before
