"""The picture holds the matrix, its title says what is in it, and the sliders reach every corner."""

import ipywidgets
import matplotlib.pyplot as plt

from qwen2lite.learn.widgets.dca import draw_distances, explore_distances, true_up_to
from qwen2lite.model.dca import dca_distances


def title():
    return plt.gcf().axes[0].get_title()


def test_true_up_to_by_hand():
    assert true_up_to(dca_distances(15, 7, 2)) == 8
    assert true_up_to(dca_distances(12, 9, 3)) == 10
    assert true_up_to(dca_distances(10, 8, 4)) == 8
    assert true_up_to(dca_distances(5, 9, 3)) == 5


def test_the_numbers_and_the_title_are_those_of_the_matrix():
    draw_distances(12, 9, 3)
    assert title().startswith("12 tokens in chunks of 6: no distance beyond 9,\n")
    assert title().endswith("the first 10 tokens see only true ones")
    shown = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text())
             for t in plt.gcf().axes[0].texts}  # fmt: skip
    matrix = dca_distances(12, 9, 3)
    assert shown == {(q, k): int(matrix[q, k]) for q in range(12) for k in range(q + 1)}


def test_a_window_that_leaves_no_chunk_is_told(capsys):
    draw_distances(12, 5, 5)
    assert "smaller than chunk_size" in capsys.readouterr().out


def test_the_sliders_begin_with_the_picture_above_them(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_distances()
    [(draw, sliders)] = shown
    draw(**{name: slider.value for name, slider in sliders.items()})
    assert "12 tokens in chunks of 6" in title()
    for corner in ({"local_size": 1}, {"length": 40, "chunk_size": 40}, {"length": 2}):
        draw(**{name: slider.value for name, slider in sliders.items()} | corner)
    assert "2 tokens" in title()
