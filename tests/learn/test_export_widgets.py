"""The pictures of the round trip show what was measured, and the menus reach what they promise."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite import Qwen2
from qwen2lite.learn.widgets import export


def test_divergence_by_hand():
    before = torch.tensor([[[0.5, 0.5], [0.2, 0.8]]]).log() + 3
    after = torch.tensor([[[0.25, 0.75], [0.2, 0.8]]]).log()
    got = export.divergence_by_position(before, after)
    assert got[0].tolist() == pytest.approx([0.1438, 0.0], abs=1e-4)


def test_each_wrong_line_is_in_the_file_and_the_others_as_they_were(tmp_path):
    for number, (name, changes) in enumerate(export.CHANGES.items()):
        folder = export.send(export.tiny(), changes, tmp_path / str(number))
        text = (folder / "config.json").read_text(encoding="utf-8")
        for key, value in changes.items():
            assert (f'"{key}"' in text) == (value is not None), name
        assert '"intermediate_size": 352' in text


def test_the_outcomes_are_those_that_the_lesson_tells():
    found = export.outcomes()
    assert [name for name, value in found.items() if value is None] == list(export.CHANGES)[:5]
    changed = [name for name, value in found.items() if value and value > export.NOTHING]
    assert changed == list(export.CHANGES)[5:11], "drawn from the largest to the smallest"
    values = [found[name] for name in changed]
    assert values == sorted(values, reverse=True) and values[0] > 4 and values[-1] < 1e-4


def test_the_bars_are_the_outcomes():
    export.draw_changes()
    [panel] = plt.gcf().axes
    wanted = [v for v in export.outcomes().values() if v is not None and v > export.NOTHING]
    drawn = [bar.get_x() + bar.get_width() for bar in panel.patches]
    assert drawn == pytest.approx(wanted)
    assert panel.get_title().startswith("Of 14 wrong lines 5 are refused, and 6 ")
    assert sum(text.get_text() == "refused" for text in panel.texts) == 5


@pytest.mark.parametrize(
    ("change", "dtype", "shard_kb", "files", "title"),
    [
        ("none", "bfloat16", 300, 7, "The same logits, to the bit"),
        ("none", "float32", 4000, 1, "The same logits, to the bit"),
        ("none", "float16", 4000, 1, "No difference above 1e-06 nats"),
        ("no rope_theta", "bfloat16", 1000, 2, "The loss goes from 0.52 to 1.15"),
        ("hidden_size: 64", "bfloat16", 4000, 1, "Refused"),
    ],
)
def test_a_round_trip_shows_files_and_what_comes_back(change, dtype, shard_kb, files, title):
    export.draw_round_trip(change, dtype, shard_kb)
    left, right = plt.gcf().axes
    assert len(left.patches) == files
    assert sum(bar.get_width() for bar in left.patches) == pytest.approx(
        1741 if dtype != "float32" else 3482, rel=0.01
    )
    assert right.get_title() == title
    assert len(right.get_lines()) == (title != "Refused")


def test_the_model_that_stays_here_is_left_alone():
    before = [p.detach().clone() for p in export.tiny().parameters()]
    export.draw_round_trip("none", "float16")
    assert all(map(torch.equal, before, export.tiny().parameters()))
    assert isinstance(export.tiny(), Qwen2) and export.tiny().dtype == torch.float32


def test_the_menus_offer_every_change(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **menus: shown.append((draw, menus)))
    export.explore_round_trip()
    [(draw, menus)] = shown
    assert draw is export.draw_round_trip
    assert list(menus["change"].options) == ["none", *export.CHANGES]
    assert {name: menu.value for name, menu in menus.items()} == {
        "change": "no rope_theta",
        "dtype": "bfloat16",
        "shard_kb": 300,
    }
