"""The curve shows the losses it was given, smoothed or not, and the explorer reaches all of it."""

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.learn.widgets.pretrain import column, draw_curve, explore_curve, smoothed

LINES = [
    {"step": 1, "loss": 8.0},
    {"step": 2, "loss": 4.0},
    {"step": 2, "held_out_loss": 5.0},
    {"step": 3, "loss": 2.0},
]


def test_smoothing_by_hand():
    assert smoothed([8, 4, 2], 0) == [8, 4, 2]
    assert smoothed([8, 4, 2], 0.5) == [8, 6, 4]
    assert smoothed([], 0.5) == []


def test_a_column_leaves_out_the_lines_without_it():
    assert column(LINES, "held_out_loss") == ([2], [5.0])
    assert column(LINES, "sample") == ([], [])


def drawn():
    panel = plt.gcf().axes[0]
    return {line.get_label(): line for line in panel.lines if line.get_label()[0] != "_"}, panel


def test_the_picture_holds_losses_and_yardsticks():
    draw_curve(LINES, {"ln V": 6.9, "bigram": 3.0}, "It falls")
    lines, panel = drawn()
    assert lines["training"].get_ydata().tolist() == [8, 4, 2]
    assert lines["held-out text"].get_xdata().tolist() == [2]
    assert [text.get_text() for text in panel.texts] == ["ln V 6.90", "bigram 3.00"]
    assert panel.get_title() == "It falls" and panel.get_xscale() == "linear"


def test_the_explorer_smooths_and_changes_axes(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_curve(LINES, {"bigram": 3.0}, "It falls")
    [(draw, boxes)] = shown
    start = {name: box.value for name, box in boxes.items()}
    assert start == {"smoothing": 0.0, "log_steps": False, "log_loss": False, "compare": True}
    draw(smoothing=0.5, log_steps=True, log_loss=True, compare=False)
    lines, panel = drawn()
    assert lines["training"].get_ydata().tolist() == [8, 6, 4]
    assert (panel.get_xscale(), panel.get_yscale()) == ("log", "log") and not panel.texts
