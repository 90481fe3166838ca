"""The errors that the explorer draws are those of the norms, and its title says what it shows."""

import ipywidgets
import matplotlib.pyplot as plt
import pytest
import torch

from qwen2lite.learn.mutants.norm import NarrowSquares
from qwen2lite.learn.widgets.norm import SIZES, draw_errors, errors_by_size, explore_errors
from qwen2lite.model.norm import RMSNorm


def test_float16_loses_the_vector_from_256_on():
    """256 · 256 is 65,536, and float16 ends at 65,504."""
    errors = dict(zip(SIZES, errors_by_size(NarrowSquares, torch.float16), strict=True))
    assert all((error == 1) == (size >= 256) for size, error in errors.items())


@pytest.mark.parametrize(("dtype", "half_step"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_with_float32_inside_only_the_last_rounding_is_left(dtype, half_step):
    for eps in (1e-12, 1e-6):
        assert 0 < max(errors_by_size(RMSNorm, dtype, eps)) < half_step


def test_the_error_is_that_of_the_whole_vector():
    class Wrong(RMSNorm):
        def forward(self, x_BTD):
            return 1.25 * super().forward(x_BTD)

    assert errors_by_size(Wrong, torch.float32, width=8) == pytest.approx([0.25] * len(SIZES), 1e-3)


@pytest.mark.parametrize(
    ("eps", "said"),
    [(1e-6, "lost from 256 on"), (1e-12, "lost up to 0.00049 and from 256 on")],
)
def test_a_picture_holds_the_errors_and_says_what_is_lost(eps, said):
    draw_errors(eps, width=64)
    panel = plt.gcf().axes[0]
    assert panel.get_title() == f"All in float16, the vector is {said}"
    lines = {line.get_label(): list(line.get_ydata()) for line in panel.lines}
    assert lines["all in float16"] == errors_by_size(NarrowSquares, torch.float16, eps, 64)
    wanted = errors_by_size(RMSNorm, torch.bfloat16, eps, 64)
    assert lines["float32 inside, bfloat16 out"] == wanted


def test_the_sliders_set_eps_and_width(monkeypatch):
    shown = []
    monkeypatch.setattr(
        ipywidgets, "interact", lambda draw, **sliders: shown.append((draw, sliders))
    )
    explore_errors()
    [(draw, sliders)] = shown
    assert {name: slider.value for name, slider in sliders.items()} == {"eps": -6, "width": 10}
    draw(eps=-12, width=6)
    assert "up to 0.00049" in plt.gcf().axes[0].get_title()
