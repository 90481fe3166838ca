"""The bars are the limits' own numbers, the counts are those of a real step, the sliders reach all."""

from itertools import groupby

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite import CONFIGS, Qwen2, Qwen2Config
from qwen2lite.infer.compile import CompiledQwen2
from qwen2lite.learn.tape import Tape
from qwen2lite.learn.widgets import gpu


def title():
    return plt.gcf().axes[0].get_title()


def test_by_hand_on_an_h100():
    machine = gpu.MACHINES["H100"]
    weights, caches = gpu.working_seconds(1, 1000, machine)
    assert weights == pytest.approx(2 * 494_032_768 / 3.35e12)
    assert caches == pytest.approx(1000 * 12_288 / 3.35e12)
    assert gpu.tokens_a_second(1, 1000, 980, 5e-6, machine) == pytest.approx(1 / 4.9e-3)
    assert gpu.tokens_a_second(8, 1000, 1, 5e-6, machine) == pytest.approx(
        8 / (weights + 8 * caches)
    )
    # From 296 rows on the products of the weights take longer than fetching them.
    assert gpu.working_seconds(295, 1, machine)[0] == weights
    assert gpu.working_seconds(296, 1, machine)[0] > weights


def is_product(name):
    return name in ("mm", "addmm") or "attention" in name


def test_the_counts_are_those_of_a_step():
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    layers = CONFIGS["qwen2-0.5b"].num_hidden_layers
    model = Qwen2(Qwen2Config(**sizes, **heads, num_hidden_layers=layers)).eval().bfloat16()
    cache, ids_BT = model.new_cache(4), torch.tensor([[4]])
    names = Tape(lambda: model.score(model.model(ids_BT, cache))).names
    fused = sum(len(list(group)) if one else 1 for one, group in groupby(names, is_product))
    # Another version of PyTorch may cut an operation otherwise.
    assert len(names) == pytest.approx(gpu.OPERATIONS["one by one"], rel=0.1)
    assert fused == pytest.approx(gpu.OPERATIONS["compiled"], rel=0.1)


def test_the_sizes_of_the_0_5b():
    config = CONFIGS["qwen2-0.5b"]
    with torch.device("meta"):
        model = Qwen2(config)
    assert sum(weight.numel() for weight in model.parameters()) == gpu.PARAMETERS
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    assert 2 * numbers == gpu.COLUMN_BYTES


def test_bars_end_at_the_times():
    gpu.draw_step("H100", rows=4, columns=2048, launch=10.0)
    panel = plt.gcf().axes[0]
    sent = [container[0].get_width() for container in panel.containers[::3]]
    assert sent == pytest.approx([9.8, 3.62, 0.01])
    weights, caches = gpu.working_seconds(4, 2048, gpu.MACHINES["H100"])
    for container in panel.containers[2::3]:
        bar = container[0]
        assert bar.get_x() + bar.get_width() == pytest.approx(1e3 * (weights + caches))
    assert "at most 408 tokens/s" in panel.texts[0].get_text()


def test_the_title_says_who_waits():
    gpu.draw_step("H100", rows=1, columns=1024, launch=5.0)
    assert title() == "The 0.5B on an H100, 1 row: a graph lifts the limit 16.4-fold"
    gpu.draw_step("RTX 4090", rows=256, columns=8192, launch=1.0)
    assert (
        title()
        == "The 0.5B on an RTX 4090, 256 rows: the GPU is busy anyway, and a graph gains nothing"
    )


def test_sizes_are_the_packages():
    sizes = {"vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    static = CompiledQwen2(Qwen2(Qwen2Config(**sizes, **heads)).eval(), with_compiler=False)
    for length in (1, 255, 256, 257, 512, 513, 1000):
        k_BKSH, _ = static.new_cache(length).columns(0)
        assert k_BKSH.shape[2] == gpu.next_size(length)


def test_the_picture_of_the_sizes_holds_what_its_title_says():
    gpu.draw_columns(4096)
    assert title() == "5 sizes will do, and above 128 tokens none is twice as long as its text"
    _, doubled, filled = plt.gcf().axes[0].lines
    assert len(set(doubled.get_ydata())) == 5
    pairs = list(zip(doubled.get_ydata(), filled.get_ydata(), strict=True))
    assert all(length <= size < 2 * length for size, length in pairs if length > 128)
    assert pairs[127] == (256, 128)


def test_the_sliders_begin_with_the_picture_above_them(monkeypatch):
    shown = []
    monkeypatch.setattr(ipywidgets, "interact", lambda draw, **given: shown.append((draw, given)))
    gpu.explore_step()
    [(draw, given)] = shown
    draw(**{name: widget.value for name, widget in given.items()})
    first = title()
    gpu.draw_step()
    assert title() == first
    for machine in given["machine"].options:
        for end in (0, -1):
            rows, columns = (given[name].options[end] for name in ("rows", "columns"))
            draw(machine=machine, rows=rows, columns=columns, launch=given["launch"].max)
