"""The picture shows roof and points where they are, and the sliders reach every step."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.infer.roofline import Roofline
from qwen2lite.learn.widgets import roofline
from qwen2lite.model.config import CONFIGS

HALF = CONFIGS["qwen2-0.5b"]


def test_a_step_by_hand():
    assert roofline.step_work(HALF, 1, 0, 2.0) == (2 * 494_032_768, 2 * 494_032_768)
    nbytes, flops = roofline.step_work(HALF, 8, 1000, 2.0)
    assert nbytes == 2 * 494_032_768 + 8 * 1000 * 12_288
    assert flops == pytest.approx(8 * (2 * 494_032_768 + 1000 * 24 * 4 * 14 * 64))


def test_attention_alone_has_an_intensity_of_the_query_heads_a_key_head():
    (b0, f0), (b1, f1) = (roofline.step_work(HALF, 1, length, 2.0) for length in (0, 4096))
    assert (f1 - f0) / (b1 - b0) == pytest.approx(
        HALF.num_attention_heads / HALF.num_key_value_heads
    )


def test_the_roof_bends_at_the_ridge_and_points_lie_where_they_are():
    machine = Roofline(bandwidth=20e9, rate=1e12)
    roofline.draw_roofline({"mine": machine}, {"a": (2, 30e9), "b": (100, 0.5e12)}, "a title")
    panel = plt.gcf().axes[0]
    roof, *points = panel.lines
    assert roof.get_xdata()[1] == machine.ridge and roof.get_ydata()[1] == 1
    assert roof.get_ydata()[0] == pytest.approx(roof.get_xdata()[0] * 0.02)
    assert [(p.get_xdata()[0], p.get_ydata()[0]) for p in points] == [(2, 0.03), (100, 0.5)]
    assert panel.texts[0].get_text() == "mine: 20 GB/s, 1 TFLOP/s"
    assert panel.get_title() == "a title"


@pytest.mark.parametrize(
    ("given", "title"),
    [
        (
            {"size": "0.5b", "rows": 1, "machine": "H100"},
            "0.5B, 1 text, 16 bits on H100: memory bounds, at most 3,390 tokens/s",
        ),
        (
            {"size": "7b", "rows": 512, "machine": "H100"},
            "7B, 512 texts, 16 bits on H100: arithmetic bounds, at most 69,900 tokens/s",
        ),
        (
            {"size": "7b", "rows": 1, "bits": 4, "machine": "laptop"},
            "7B, 1 text, 4 bits on laptop: memory bounds, at most 20.3 tokens/s",
        ),
    ],
)
def test_titles_say_what_bounds(given, title):
    roofline.draw_bound(**given)
    panel = plt.gcf().axes[0]
    assert panel.get_title() == title
    roof, point = panel.lines[0], panel.lines[-1]
    assert point.get_ydata()[0] <= roof.get_ydata()[-1] * (1 + 1e-9)


def test_this_machine_is_measured_once_by_the_best_of_some_tries(monkeypatch):
    bandwidths, rates = iter((1e9, 2e9)), iter((3e12, 1e12, 2e12, 1e12))
    monkeypatch.setattr(roofline, "read_bandwidth", lambda device: next(bandwidths))
    monkeypatch.setattr(roofline, "product_rate", lambda device, dtype: next(rates))
    roofline.this_machine.cache_clear()
    assert roofline.this_machine() == roofline.this_machine() == Roofline(2e9, 3e12)
    roofline.draw_bound(machine=roofline.HERE)
    assert plt.gcf().axes[0].texts[0].get_text() == "this machine: 2 GB/s, 3 TFLOP/s"
    roofline.this_machine.cache_clear()


def test_the_sliders_begin_with_the_picture_above_them(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **given: shown.append((draw, given)))
    roofline.explore_bound()
    [(draw, given)] = shown
    draw(**{name: widget.value for name, widget in given.items()})
    begun = plt.gcf().axes[0].get_title()
    roofline.draw_bound()
    assert begun == plt.gcf().axes[0].get_title()
    assert given["rows"].options[-1] == 2048 and given["length"].options[-1] == 131072
    draw(size="72b", rows=2048, length=131072, bits=4, machine="H100")
    assert "memory bounds" in plt.gcf().axes[0].get_title()
