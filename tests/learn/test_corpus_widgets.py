"""The bars show what the chosen filters leave, and the boxes choose among all filters."""

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np

from qwen2lite.learn.widgets.corpus import draw_left, explore_filters, still_there, summary

KINDS = ["", "loop", "", "loop", "typo", ""]
DROPPED = {
    "rules": np.array([False, True, False, False, False, True]),
    "near": np.array([False, False, False, True, False, False]),
}


def test_a_document_stays_where_no_chosen_filter_drops_it():
    assert still_there(DROPPED, [], 6).all()
    assert still_there(DROPPED, ["near"], 6).tolist() == [True, True, True, False, True, True]
    left = still_there(DROPPED, ["rules", "near"], 6)
    assert left.tolist() == [True, False, True, False, True, False]
    assert summary(KINDS, left) == "left: 67% of the sound, 33% of the damaged"


def bars(panel):
    """(kind, before, left) from top to bottom. Only the first panel shows the names."""
    names = [label.get_text() for label in panel.figure.axes[0].get_yticklabels()]
    before, left = ([bar.get_width() for bar in group] for group in panel.containers)
    return list(zip(names, before, left, strict=True))[::-1]


def test_the_bars_are_the_counts():
    draw_left(KINDS, DROPPED, [["rules"], ["rules", "near"], []])
    panels = plt.gcf().axes
    assert bars(panels[0]) == [("sound", 3, 2), ("loop", 2, 1), ("typo", 1, 1)]
    assert bars(panels[1]) == [("sound", 3, 2), ("loop", 2, 0), ("typo", 1, 1)]
    assert bars(panels[2]) == [("sound", 3, 3), ("loop", 2, 2), ("typo", 1, 1)]
    titles = [panel.get_title() for panel in panels]
    assert titles[1] == "rules + near\nleft: 67% of the sound, 33% of the damaged"
    assert titles[2].startswith("no filter\nleft: 100% of the sound, 100%")


def test_each_filter_has_a_box(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **boxes: shown.append((draw, boxes)))
    explore_filters(KINDS, DROPPED)
    [(draw, boxes)] = shown
    assert list(boxes) == ["rules", "near"] and not any(box.value for box in boxes.values())
    draw(rules=False, near=True)
    assert bars(plt.gcf().axes[0])[1] == ("loop", 2, 1)
