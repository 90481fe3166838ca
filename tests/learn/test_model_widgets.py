"""The bars show where the parameters sit, and the sliders reach what they promise."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite import CONFIGS, Qwen2Config
from qwen2lite.learn.widgets import model
from qwen2lite.train.cost import parameters


def test_places_by_hand():
    sizes = {"vocab_size": 10, "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1}
    small = Qwen2Config(num_attention_heads=2, num_key_value_heads=1, **sizes)
    found = {name: count for name, count in model.places(small).items() if count}
    assert found == {"embedding": 40, "output": 40, "attention": 56, "MLP": 72, "the rest": 12}
    assert model.at_the_ends(small) == 80 / 220


@pytest.mark.parametrize("name", CONFIGS)
def test_places_are_all_there_is(name):
    found = model.places(CONFIGS[name])
    assert sum(found.values()) == parameters(CONFIGS[name])
    assert found["the rest"] < 0.001 * parameters(CONFIGS[name])
    assert bool(found["experts"]) == (name == "qwen2-57b-a14b") != bool(found["MLP"])


def widths(row):
    return [bar.get_width() for bar in plt.gca().patches if round(bar.get_y() + 0.4) == row]


def test_the_bars_are_the_places_in_per_cent():
    model.draw_places()
    for row, config in enumerate(CONFIGS.values()):
        wanted = [100 * count / parameters(config) for count in model.places(config).values()]
        assert widths(row) == pytest.approx(wanted)
    assert plt.gca().get_title() == "Tables for words are 28% of the 0.5B, 3% of the 72B"


def test_a_variant_gets_a_bar_of_its_own():
    model.draw_places("qwen2-7b", layers=2, rows=16_000)
    assert [label.get_text() for label in plt.gca().get_yticklabels()] == [*CONFIGS, "yours"]
    assert sum(widths(5)) == pytest.approx(100)
    assert plt.gca().get_title() == "7B with 2 layers and 16,000 rows: 20% at the ends"
    model.draw_places("qwen2-72b")
    assert len(plt.gca().get_yticklabels()) == 5
    assert plt.gca().get_title() == "Tables for words are 3% of the 72B, 28% of the 0.5B"


def test_the_sliders_start_with_the_picture_above_them(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    model.explore_places()
    [(draw, sliders)] = shown
    assert draw is model.draw_places
    assert {name: s.value for name, s in sliders.items()} == {
        "size": "qwen2-0.5b",
        "layers": 0,
        "rows": 0,
    }
    assert sliders["layers"].options[-1] == ("120", 120)
    assert sliders["rows"].options[1] == ("16,000", 16_000)
