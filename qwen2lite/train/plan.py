r"""A training run on paper: whether it fits into the GPUs' memory, and how long it takes.

    print(plan("7b", gpus=8, memory=80e9, sequence_length=4096, batch_size=2, parallel="fsdp"))

What each line is counted from stands in cost.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.train import cost

USABLE = 0.9
"""Share of a GPU's memory that a plan may fill. The rest is for the CUDA context, the buffers of
communication, and what is lost between blocks: a rule of thumb, not a measurement."""
PEAKS = {"bfloat16": 989e12, "float32": 67e12}
"""Operations a second of an NVIDIA H100 SXM in dense products, from its data sheet."""
_MOST_GPUS = 4096
_DAY = 86_400


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run's settings, and what follows from them. Bytes are those of one GPU.

    Raises:
        ValueError: a value out of range.

    Source: MFU of large runs: arXiv 2204.02311, section 4.1; arXiv 2407.21783, section 3.3.2.
    """

    config: Qwen2Config
    gpus: int = 1
    """How many, with one process on each."""
    memory: float = 80e9
    """Of each, in bytes."""
    sequence_length: int = 4096
    """Tokens of one sequence."""
    batch_size: int = 1
    """Sequences on each GPU at once. More of them by `accumulation` need no more memory."""
    parallel: str = "none"
    """"none", "ddp" or "fsdp"."""
    activation_checkpointing: bool = False
    """Compute layers a second time in place of keeping them."""
    precision: str = "bfloat16"
    """Of the products: "bfloat16" or "float32"."""
    peak_flops: float | None = None
    """Operations a second of one GPU in dense products of that precision, from its data sheet: an A100
    has 312e12 in bfloat16. None is an H100 SXM's, see `PEAKS`."""
    mfu: float = 0.4
    """The share of it that is assumed to be reached. PaLM reports 0.46 and Llama 3 405B 0.38 to 0.43;
    small models reach less. Activation checkpointing takes up to a quarter of it."""
    tokens: float = 1e12
    """To train on. Qwen2 had 7e12, the 0.5B 12e12."""

    def __post_init__(self) -> None:
        for name in ("gpus", "memory", "sequence_length", "batch_size", "peak_flops", "tokens"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0 and not infinite, got {value}")
        if not 0 < self.mfu <= 1:
            raise ValueError(f"mfu must be above 0 and at most 1, got {self.mfu}")
        choices = ("none",) if self.gpus == 1 else ("ddp", "fsdp")
        if self.parallel not in choices:
            raise ValueError(
                f"parallel must be {' or '.join(map(repr, choices))} for {self.gpus} "
                f"GPU{'s' * (self.gpus > 1)}, got {self.parallel!r}"
            )
        if self.precision not in cost.BYTES:
            raise ValueError(f"precision must be {' or '.join(cost.BYTES)}, got {self.precision!r}")

    @property
    def parameters(self) -> int:
        """In all."""
        return cost.parameters(self.config)

    @property
    def _share(self) -> int:
        """Parameters that one GPU is in charge of."""
        return -(-self.parameters // self.gpus) if self.parallel == "fsdp" else self.parameters

    @property
    def weights(self) -> int:
        """4 bytes a parameter, or its share of them with FSDP."""
        return 4 * self._share

    @property
    def gradients(self) -> int:
        """4 bytes a parameter, or its share, from a step's first batch on; with DDP 8.

        DDP adds the gradients of a step's batches up beside the buckets that it sends them in.
        """
        return (8 if self.parallel == "ddp" else 4) * self._share

    @property
    def optimizer(self) -> int:
        """AdamW's two means: 8 bytes a parameter, or its share."""
        return 8 * self._share

    @property
    def copies(self) -> int:
        """Weights in the products' format, or gathered from the other GPUs."""
        return cost.copies_bytes(self.config, self.precision, self.parallel == "fsdp")

    @property
    def activations(self) -> int:
        """What the forward pass keeps for the backward pass."""
        return cost.activation_bytes(self.config, *self._passes)

    @property
    def logits(self) -> int:
        """Scores of as many positions as the loss takes at a time, and the output layer's gradient."""
        return cost.logits_bytes(self.config, self._passes[0], self.precision)

    @property
    def layer(self) -> int:
        """The one layer that is on its way back, when the scores are gone."""
        return cost.layer_bytes(self.config, *self._passes)

    @property
    def _passes(self) -> tuple[int, str, bool]:
        tokens = self.sequence_length * self.batch_size
        return tokens, self.precision, self.activation_checkpointing

    @property
    def total(self) -> int:
        """All together, where scores and the layer on its way back are never there at once.

        When a layer that is computed twice counts more than the scores, that is somewhat too much: of
        autocast's copies only the layer's own are left by then.
        """
        lasting = self.weights + self.gradients + self.optimizer + self.copies + self.activations
        return lasting + max(self.logits, self.layer)

    @property
    def fits(self) -> bool:
        """Whether that is at most `USABLE` of the memory."""
        return self.total <= USABLE * self.memory

    @property
    def flops_per_token(self) -> float:
        """See `cost.flops_per_token`."""
        return cost.flops_per_token(self.config, self.sequence_length)

    @property
    def tokens_per_second(self) -> float:
        """Of all GPUs, at the assumed MFU."""
        peak = self.peak_flops or PEAKS[self.precision]
        return self.mfu * self.gpus * peak / self.flops_per_token

    @property
    def days(self) -> float:
        """For all tokens."""
        return self.tokens / self.tokens_per_second / _DAY

    @property
    def remedy(self) -> dict[str, Any] | None:
        """The first change that makes a run fit: {} if it does already, None if nothing helps."""
        if self.fits:
            return {}
        return next((some for some in self._changes() if replace(self, **some).fits), None)

    @property
    def advice(self) -> str:
        """How many sequences would fit; or, where none do, what to change."""
        remedy = self.remedy
        if remedy is None:
            return (
                f"it doesn't fit, and {_MOST_GPUS:,} GPUs wouldn't help: a sequence of "
                f"{self.sequence_length:,} tokens is too much; make it shorter"
            )
        if remedy:
            named = ", ".join(f"{name} = {value!r}" for name, value in remedy.items())
            total = _gb(replace(self, **remedy).total)
            return f"it doesn't fit; it would, in {total}, with {named}"
        most = self.batch_size
        while replace(self, batch_size=2 * most).fits:
            most *= 2
        return f"it fits, and so would batch_size = {most}" if most > self.batch_size else "it fits"

    def _changes(self) -> Iterator[dict[str, Any]]:
        """From what costs least to what costs most; each names only what would be another."""
        fsdp = {} if self.parallel == "fsdp" else {"parallel": "fsdp"}
        again = {} if self.activation_checkpointing else {"activation_checkpointing": True}
        fewer = {} if self.batch_size == 1 else {"batch_size": 1}
        here = fsdp if self.gpus > 1 else {}
        yield from (here, fewer, here | fewer, again, here | again, here | again | fewer)
        gpus = 2 * self.gpus
        while gpus <= _MOST_GPUS:
            yield {"gpus": gpus} | fsdp
            yield {"gpus": gpus} | fsdp | again | fewer
            gpus *= 2

    def __str__(self) -> str:
        """A table for people. 1 GB is 1,000,000,000 bytes, as on a GPU's package."""
        active = cost.parameters(self.config, active=True)
        used = f", {active:,} of them for each token" if active < self.parameters else ""
        how = {"none": "", "ddp": ", each with the whole model", "fsdp": ", each with a share"}
        again = ", layers computed twice" if self.activation_checkpointing else ""
        rows = [(name, getattr(self, name)) for name in ("weights", "gradients", "optimizer")]
        rows += [(name, getattr(self, name)) for name in ("copies", "activations")]
        rows.append(("logits", self.logits) if self.logits > self.layer else ("layer", self.layer))
        return "\n".join(
            [
                f"{self.parameters:,} parameters{used}",
                f"{self.gpus} GPU{'s' if self.gpus > 1 else ''}{how[self.parallel]}; "
                f"{self.batch_size} × {self.sequence_length:,} tokens on each{again}",
                "",
                *[f"{name:<12}{_gb(size):>12}" for name, size in rows],
                f"{'total':<12}{_gb(self.total):>12} of {_gb(self.memory)}",
                self.advice,
                "",
                f"{self.flops_per_token:.3g} FLOPs a token; at an MFU of {self.mfu:.0%}, which is "
                f"assumed, {self.tokens_per_second:,.0f} tokens/s",
                f"{self.tokens:.3g} tokens take {_time(self.days)}",
            ]
        )


def plan(config: Qwen2Config | str, **settings: Any) -> Plan:
    """Plans a run.

    Args:
        config: the model's shape, or the name of a published one, of which "7b" is enough.
        settings: see `Plan`.

    Raises:
        ValueError: a value out of range, or no such model.
    """
    if isinstance(config, str):
        known = {name.removeprefix("qwen2-"): published for name, published in CONFIGS.items()}
        short = config.lower().removeprefix("qwen2-")
        if short not in known:
            raise ValueError(
                f"no published Qwen2 is called {config!r}; there are {', '.join(known)}"
            )
        config = known[short]
    return Plan(config=config, **settings)


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _time(days: float) -> str:
    if days >= 10:
        return f"{days:,.0f} days"
    return f"{days:.1f} days" if days >= 1 else f"{24 * days:.1f} hours"
