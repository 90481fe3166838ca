"""The bars show what the cache weighs, and the sliders reach what they promise."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite import CONFIGS
from qwen2lite.learn.widgets import gqa

GIB = 2**30


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    monkeypatch.setattr(plt, "show", lambda: None)
    # Counted by hand in the tests of the model; here only their order matters.
    sizes = dict(zip(CONFIGS, (1, 3, 14, 107, 135), strict=True))
    monkeypatch.setattr(gqa, "model_size", lambda name: sizes[name] * GIB)
    yield
    plt.close("all")


def test_a_cache_by_hand():
    small = CONFIGS["qwen2-0.5b"]
    assert gqa.cache_size(small, 2, 1, 1, "bfloat16") == 12 * 1024
    assert gqa.cache_size(small, 14, 1, 1, "bfloat16") == 84 * 1024
    assert gqa.cache_size(small, 1, 10, 3, "float32") == 30 * 12 * 1024
    assert gqa.three_caches("qwen2-72b", 2, 1, "8 bits") == [2560 * 1024, 320 * 1024, 40 * 1024]


def test_the_bars_are_the_caches():
    gqa.draw_memory(tokens=4096, batch=2, number="float32")
    [panel] = plt.gcf().axes
    drawn = [bar.get_height() for bar in panel.patches]
    wanted = [size / GIB for name in CONFIGS for size in gqa.three_caches(name, 4096, 2, "float32")]
    assert drawn == pytest.approx(wanted)
    assert panel.get_yscale() == "log"
    assert [label.get_text() for label in panel.get_xticklabels()] == list(CONFIGS)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ((1024, 1, "bfloat16"), "One text of 1,024 tokens, bfloat16: the cache outweighs 0 of 5"),
        ((131072, 1, "bfloat16"), "the cache outweighs 4 of 5 models unshared, 2 shared"),
        (
            (131072, 64, "float32"),
            "64 texts of 131,072 tokens, float32: the cache outweighs 5 of 5",
        ),
    ],
)
def test_the_title_counts_what_is_outweighed(asked, said):
    assert said in gqa.finding(*asked)
    gqa.draw_memory(*asked)
    assert said in plt.gca().get_title()


def test_the_sliders_start_with_the_picture_above_them(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    gqa.explore_memory()
    [(draw, sliders)] = shown
    assert draw is gqa.draw_memory
    assert {name: s.value for name, s in sliders.items()} == {
        "tokens": 131072,
        "batch": 1,
        "number": "bfloat16",
    }
    assert sliders["tokens"].options[0] == 1024
    assert list(sliders["number"].options) == list(gqa.FORMATS)
