"""Explorer of a round trip: a model goes into a folder, a line changes on the way, it comes back."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import fill
from typing import Any

import ipywidgets
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.learn.work import REPOSITORY
from qwen2lite.train.world import documents
from qwen2lite.weights.export import export

TINY = REPOSITORY / "data" / "qwen2-tiny"
CHANGES: dict[str, dict[str, Any]] = {
    "hidden_size: 64": {"hidden_size": 64},
    "vocab_size: 1000": {"vocab_size": 1000},
    "num_hidden_layers: 3": {"num_hidden_layers": 3},
    "num_key_value_heads: 4": {"num_key_value_heads": 4},
    "tie_word_embeddings: false": {"tie_word_embeddings": False},
    "8 heads of 16 for 4 of 32": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 16,
    },
    "rms_norm_eps: 0.1": {"rms_norm_eps": 0.1},
    "no rope_theta": {"rope_theta": None},
    "a YaRN factor of 4": {
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 256,
        }
    },
    "rope_theta: 5000": {"rope_theta": 5000.0},
    "rms_norm_eps: 0.001": {"rms_norm_eps": 1e-3},
    "rms_norm_eps: 0.00001": {"rms_norm_eps": 1e-5},
    "max_position_embeddings: 100": {"max_position_embeddings": 100},
    "eos_token_id: 5": {"eos_token_id": 5},
}
"""Wrong lines of the config.json of qwen2-tiny; None leaves a line out."""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
NOTHING = 1e-6
"""A divergence below this is rounding."""


@cache
def tiny() -> Qwen2:
    """The small trained model, in float32."""
    return Qwen2.from_pretrained(TINY, dtype=torch.float32, device="cpu")


@cache
def some_ids() -> torch.Tensor:
    """Texts of its world that it hasn't read: 4 rows of 200 tokens."""
    tokenizer = Qwen2Tokenizer.from_pretrained(TINY)
    end, ids = tokenizer.special_tokens["<|endoftext|>"], []
    for text in documents(7):
        ids += [*tokenizer.encode(text), end]
        if len(ids) >= 800:
            return torch.tensor(ids[:800]).view(4, 200)
    raise AssertionError("the world's documents never end")


@torch.inference_mode()
def logits_on_texts(model: Qwen2) -> torch.Tensor:
    """What a model says of these texts, [B, T, V]."""
    return model(some_ids())


def loss_of(logits_BTV: torch.Tensor) -> float:
    """Mean loss on the next token."""
    return F.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), some_ids()[:, 1:].flatten()).item()


def divergence_by_position(before_BTV: torch.Tensor, after_BTV: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the second model from the first at each position, [B, T]."""
    p_BTV, q_BTV = before_BTV.log_softmax(-1), after_BTV.log_softmax(-1)
    return F.kl_div(q_BTV, p_BTV, reduction="none", log_target=True).sum(-1)


def send(model: Qwen2, changes: dict[str, Any], folder: Path, **rest: Any) -> Path:
    """Exports a model, then changes lines of its config.json.

    Args:
        model: to be written.
        changes: new values by key; None leaves the line out.
        folder: doesn't exist yet.
        rest: for `export`.
    """
    path = export(model, folder, **rest) / "config.json"
    config = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    kept = {key: value for key, value in config.items() if changes.get(key, 0) is not None}
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    return folder


@cache
def outcomes() -> dict[str, float | None]:
    """The mean divergence that each wrong line makes; None where the folder is refused."""
    found: dict[str, float | None] = {}
    before_BTV = logits_on_texts(tiny())
    for name, changes in CHANGES.items():
        with TemporaryDirectory(ignore_cleanup_errors=True) as place:
            folder = send(tiny(), changes, Path(place) / "out")
            try:
                after = Qwen2.from_pretrained(folder, dtype=torch.float32, device="cpu")
            except ValueError:
                found[name] = None
                continue
            found[name] = divergence_by_position(before_BTV, logits_on_texts(after)).mean().item()
    return found


def draw_changes() -> None:
    """A bar for each wrong line: how far the model is from what it was, where it loads at all."""
    found = outcomes()
    silent = sum(value is not None and value > NOTHING for value in found.values())
    refused = sum(value is None for value in found.values())
    _, panel = plt.subplots(figsize=(9, 4.6), layout="constrained")
    for row, value in enumerate(found.values()):
        if value is not None and value > NOTHING:
            panel.barh(row, value - NOTHING, left=NOTHING, color="tab:red", height=0.7)
            panel.text(value * 1.3, row, f"{value:.1g}", va="center", fontsize=9)
        else:
            said = "refused" if value is None else f"below {NOTHING:g}"
            colour = "tab:green" if value is None else "0.45"
            panel.text(NOTHING * 1.2, row, said, va="center", fontsize=9, color=colour)
    panel.set_xscale("log")
    panel.set(xlim=(NOTHING, 100), xlabel="divergence of the model that comes back (nats a token)")
    panel.set_yticks(range(len(found)), list(found))
    panel.set_ylim(len(found) - 0.4, -0.6)
    panel.set_title(
        f"Of {len(found)} wrong lines {refused} are refused, "
        f"and {silent} move the model without a word",
        fontsize=11,
    )
    plt.show()


def draw_round_trip(change: str = "none", dtype: str = "bfloat16", shard_kb: int = 300) -> None:
    """Left the files, right how far the model that comes back is from the one that went.

    Args:
        change: a key of `CHANGES`, or "none".
        dtype: of the weights in the files.
        shard_kb: size at which a file is cut, in kB.
    """
    before_BTV = logits_on_texts(tiny())
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10, 3.6), layout="constrained", width_ratios=(2, 3)
    )
    model = Qwen2.from_pretrained(TINY, dtype=torch.float32, device="cpu").to(DTYPES[dtype])
    with TemporaryDirectory(ignore_cleanup_errors=True) as place:
        changes = CHANGES.get(change, {})
        folder = send(model, changes, Path(place) / "out", max_shard_bytes=1000 * shard_kb)
        sizes = [file.stat().st_size / 1000 for file in sorted(folder.glob("*.safetensors"))]
        try:
            back = Qwen2.from_pretrained(folder, dtype=torch.float32, device="cpu")
        except ValueError as error:
            _say(right, str(error))
        else:
            _draw_positions(right, before_BTV, logits_on_texts(back))
    left.barh(range(1, len(sizes) + 1), sizes, color="tab:blue", edgecolor="white", height=0.8)
    left.axvline(shard_kb, color="tab:red", lw=1, ls=":")
    left.set(xlabel="kB", ylabel="file")
    left.set_yticks(range(1, len(sizes) + 1, 1 + len(sizes) // 12))
    left.set_ylim(max(len(sizes), 4) + 0.6, 0.4)
    files = "one file" if len(sizes) == 1 else f"{len(sizes)} files"
    left.set_title(f"{dtype}: {sum(sizes) / 1000:.1f} MB in {files}", fontsize=11)
    figure.suptitle(f"changed on the way: {change}", fontsize=10)
    plt.show()


def _draw_positions(panel: Any, before_BTV: torch.Tensor, after_BTV: torch.Tensor) -> None:
    by_position_T = divergence_by_position(before_BTV, after_BTV).mean(0).clamp_min(1e-8)
    panel.semilogy(range(1, len(by_position_T) + 1), by_position_T, ".", ms=4)
    panel.set(xlabel="position in the text", ylabel="divergence, nats (≥ 1e-8)", ylim=(5e-9, 30))
    said = f"The loss goes from {loss_of(before_BTV):.2f} to {loss_of(after_BTV):.2f}"
    if by_position_T.mean() < NOTHING:
        equal = torch.equal(before_BTV, after_BTV)
        said = "The same logits, to the bit" if equal else f"No difference above {NOTHING:g} nats"
    panel.set_title(said, fontsize=11)


def _say(panel: Any, error: str) -> None:
    panel.set_axis_off()
    panel.set_title("Refused", fontsize=11)
    panel.text(0.5, 0.5, fill(error, 50), ha="center", va="center", transform=panel.transAxes)


def explore_round_trip() -> None:
    """A menu of wrong lines, the dtype of the files, and the size at which they are cut."""
    ipywidgets.interact(
        draw_round_trip,
        change=ipywidgets.Dropdown(options=["none", *CHANGES], value="no rope_theta"),
        dtype=ipywidgets.Dropdown(options=list(DTYPES), value="bfloat16"),
        shard_kb=ipywidgets.IntSlider(
            value=300,
            min=100,
            max=4000,
            step=100,
            description="cut at, kB",
            continuous_update=False,
        ),
    )
