"""Explorer of sampling: what temperature, top-k and top-p make of one distribution."""

from collections.abc import Callable

import ipywidgets
import matplotlib.pyplot as plt
import torch

from qwen2lite.infer.sample import keep_top_p


def filtered(
    scores_V: torch.Tensor, temperature: float, top_k: int, top_p: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of all tokens, the likeliest first, and their ids.

    Args:
        scores_V: logits of one position.
        temperature: 0 gives everything to the likeliest.
        top_k: 0 keeps all.
        top_p: 1 keeps all.
    """
    ranked_V, ids_V = scores_V.float().sort(descending=True, stable=True)
    places_V = torch.arange(len(ranked_V))
    if temperature == 0:
        return (places_V == 0).float(), ids_V
    kept_V = ranked_V / temperature
    if top_k:
        kept_V = kept_V.masked_fill(places_V >= top_k, float("-inf"))
    if top_p < 1:
        kept_V = keep_top_p(kept_V, top_p)
    return kept_V.softmax(-1), ids_V


def draw_choice(
    scores_V: torch.Tensor,
    name: Callable[[int], str],
    temperature: float = 0.7,
    top_k: int = 20,
    top_p: float = 0.8,
    bars: int = 12,
) -> None:
    """Bars of the likeliest tokens and one for all others, before and after.

    Args:
        scores_V: logits of one position.
        name: the text of an id.
        temperature: see `filtered`, as the next two.
        top_k: 0 keeps all.
        top_p: 1 keeps all.
        bars: tokens shown one by one.
    """
    bars = min(bars, len(scores_V))
    before_V, ids_V = filtered(scores_V, 1.0, 0, 1.0)
    after_V, _ = filtered(scores_V, temperature, top_k, top_p)
    left = int((after_V > 0).sum())
    names = [repr(name(int(token)))[1:-1].strip() or "␣" for token in ids_V[:bars]]
    rest = len(ids_V) - bars
    names += [f"{rest:,} others"] * (rest > 0)
    panel = plt.figure(figsize=(9, 3.4), layout="constrained").subplots()
    places = torch.arange(len(names)).numpy()
    for shares_V, shift, colour, label in (
        (before_V, -0.2, "0.75", "as the model gives it"),
        (after_V, 0.2, "C0", "after temperature, top-k, top-p"),
    ):
        heights = torch.cat((shares_V[:bars], shares_V[bars:].sum()[None]))[: len(names)]
        panel.bar(places + shift, heights.numpy(), width=0.4, color=colour, label=label)
    panel.set_xticks(places, names, rotation=40, ha="right")
    panel.set(ylabel="probability", ylim=(0, 1.05))
    settings = f"Temperature {temperature:.2g}, top-k {top_k or 'off'}, top-p {top_p:.2g}"
    panel.set_title(f"{settings}: {left:,} of {len(ids_V):,} tokens left")
    panel.legend(loc="upper center")
    plt.show()


def explore_choice(scores_V: torch.Tensor, name: Callable[[int], str]) -> None:
    """Sliders over temperature, top-k and top-p.

    Args:
        scores_V: see `draw_choice`.
        name: see `draw_choice`.
    """

    def draw(temperature: float, top_k: int, top_p: float) -> None:
        draw_choice(scores_V, name, temperature, top_k, top_p)

    sliders = {
        "temperature": ipywidgets.FloatSlider(value=0.7, min=0.0, max=2.0, step=0.1),
        "top_k": ipywidgets.IntSlider(value=20, min=0, max=100),
        "top_p": ipywidgets.FloatSlider(value=0.8, min=0.05, max=1.0, step=0.05),
    }
    for title, slider in sliders.items():
        slider.description, slider.continuous_update = title, False
        slider.style.description_width = "7em"
    ipywidgets.interact(draw, **sliders)
