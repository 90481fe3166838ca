"""The bars and lines show the numbers of the plans, and the sliders reach every plan."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from qwen2lite.learn.widgets import scaling
from qwen2lite.train.plan import USABLE, plan


def test_parts_add_up_to_the_total():
    for p in (plan("0.5b"), plan("7b", gpus=4, parallel="fsdp", activation_checkpointing=True)):
        assert sum(scaling.parts_of(p).values()) == pytest.approx(p.total / 1e9)


def test_bars_end_at_the_totals():
    plans = {"small": plan("0.5b"), "large": plan("7b", gpus=8, parallel="ddp")}
    scaling.draw_memory(plans, "a title")
    panel = plt.gcf().axes[0]
    last = panel.containers[-1]
    ends = [bar.get_x() + bar.get_width() for bar in last]
    assert ends == pytest.approx([p.total / 1e9 for p in plans.values()])
    assert [text.get_text() for text in panel.texts] == [f"{end:,.1f}" for end in ends]
    assert panel.lines[0].get_xdata()[0] == pytest.approx(USABLE * 80)
    assert panel.get_title() == "a title"
    assert panel.containers[0][1].get_width() == pytest.approx(plans["large"].weights / 1e9)


def test_the_end_of_the_memory_is_not_drawn_where_it_is_far_away():
    scaling.draw_memory({"small": plan("0.5b")}, "a title")
    assert not plt.gcf().axes[0].lines


def test_lines_hold_the_totals_of_every_size():
    numbers = (1, 2, 64)
    scaling.draw_over_gpus("a title", numbers, batch_size=2)
    lines = plt.gcf().axes[0].lines
    for place, size in enumerate(scaling.SIZES):
        for line, parallel in zip(lines[2 * place : 2 * place + 2], ("fsdp", "ddp"), strict=True):
            for gpus, total in zip(numbers, line.get_ydata(), strict=True):
                how = "none" if gpus == 1 else parallel
                p = plan(size, gpus=gpus, parallel=how, batch_size=2)
                assert total == pytest.approx(p.total / 1e9)


def test_the_sliders_reach_every_plan(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **given: shown.append((draw, given)))
    scaling.explore_memory()
    [(draw, given)] = shown
    assert given["size"].options == scaling.SIZES
    assert (given["gpus"].options[0], given["gpus"].options[-1]) == (1, 1024)
    start = {name: widget.value for name, widget in given.items()}
    settings = {"sequence_length": start["sequence"], "batch_size": start["batch"]}
    draw(**start)
    p = plan(start["size"], gpus=start["gpus"], parallel=start["parallel"], **settings)
    panel = plt.gcf().axes[0]
    assert panel.get_title() == p.advice
    assert panel.texts[0].get_text() == f"{p.total / 1e9:,.1f}"
    draw(size="0.5b", gpus=1, sequence=512, batch=1, parallel="fsdp", recompute=True)
    alone = plan("0.5b", sequence_length=512, activation_checkpointing=True)
    assert plt.gcf().axes[0].texts[0].get_text() == f"{alone.total / 1e9:,.1f}"
