"""What a training run is told: one dataclass, readable from the [train] table of a TOML file."""

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from qwen2lite.train.schedule import SCHEDULES, Schedule

Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How to train. A step is one update of the weights.

    Raises:
        ValueError: a value out of range, with what it may be.
    """

    steps: int = 1000
    """Updates in all."""
    sequence_length: int = 256
    """Tokens of one sequence."""
    batch_size: int = 8
    """Sequences that are read at once, on each process."""
    accumulation: int = 1
    """Batches whose gradients are averaged for one step: the way to a larger batch than fits."""
    seed: int = 0
    """Of the first weights and of the order of the sequences."""

    learning_rate: float = 3e-3
    """At the peak. Small models want a large one; Qwen(1) had 3e-4."""
    schedule: str = "cosine"
    """"cosine", "linear" or "cooldown"; see schedule.py."""
    warmup_steps: int = 100
    """Steps until the peak."""
    cooldown_steps: int = 0
    """Last steps in which "cooldown" descends; the other schedules have no use for it."""
    floor: float = 0.1
    """The learning rate of the last step, as a share of the peak."""
    optimizer: str = "fused"
    """"fused" is PyTorch's AdamW in one kernel, "ours" is optim.py's; the numbers are the same."""
    beta1: float = 0.9
    """What the mean of gradients keeps at each step."""
    beta2: float = 0.95
    """What the mean of squared gradients keeps at each step."""
    eps: float = 1e-8
    """Added to the root that a step is divided by."""
    weight_decay: float = 0.1
    """Share of each matrix that a step takes away, times the learning rate."""
    max_gradient_norm: float = 1.0
    """Longer gradients are shortened to this; inf leaves them."""

    device: str = "auto"
    """"auto" or a torch device."""
    precision: str = "auto"
    """Of the matrix products: "float32", "bfloat16", or "auto" for bfloat16 on a GPU that has it.
    The weights, their sums and the optimizer are always float32."""
    compile: bool = False
    """Let torch.compile fuse the model's operations: half a minute or more at first, then mostly
    faster. Where it can't, a run goes on without."""
    cores: int = 0
    """On a CPU, how many cores take a share of each batch's sequences; 0 is all, if the model is
    small. The last bits of sums depend on it."""
    document_mask: bool = False
    """Let no token look into another document of its sequence."""
    parallel: str = "none"
    """"ddp" if torchrun starts several processes and each holds the whole model, "fsdp" if each is to
    hold a share of it; see processes.py and shards.py. The last bits of sums depend on it."""
    activation_checkpointing: bool = False
    """Compute what is inside a layer a second time on the way back, in place of keeping it: a third
    more work, and memory for one layer. The numbers are the same."""

    evaluate_every: int = 100
    """Steps between evaluations on held-out text; 0 is never."""
    evaluation_batches: int = 8
    """Of an evaluation, each with the sequences of a whole step; the same ones each time."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl."""
    checkpoint_every: int = 200
    """Steps between checkpoints; the last step always makes one."""
    keep_checkpoints: int = 2
    """The newest so many stay."""
    sample_every: int = 0
    """Steps between samples; 0 is never."""
    sample_prompts: tuple[str, ...] = ()
    """Beginnings that samples continue, always with the likeliest token."""
    sample_tokens: int = 32
    """Longest sample."""
    tensorboard: bool = False
    """Also write metrics for TensorBoard, if it is installed."""

    def __post_init__(self) -> None:
        _check_kinds(type(self), vars(self), "TrainSettings")
        for name in ("steps", "sequence_length", "batch_size", "accumulation", "log_every",
                     "checkpoint_every", "keep_checkpoints", "evaluation_batches",
                     "sample_tokens"):  # fmt: skip
            _check(self, name, "at least 1", lambda value: value >= 1)
        _check(self, "seed", "0 or above, and below 2^64", lambda value: 0 <= value < 2**64)
        for name in ("cores", "warmup_steps", "cooldown_steps", "evaluate_every",
                     "sample_every", "weight_decay"):  # fmt: skip
            _check(self, name, "0 or above, and not infinite", lambda value: 0 <= value < math.inf)
        for name in ("learning_rate", "eps"):
            _check(self, name, "above 0 and not infinite", lambda value: 0 < value < math.inf)
        _check(self, "max_gradient_norm", "above 0", lambda value: value > 0)
        for name in ("beta1", "beta2"):
            _check(self, name, "at least 0 and below 1", lambda value: 0 <= value < 1)
        _check(self, "floor", "from 0 to 1", lambda value: 0 <= value <= 1)
        _check(self, "sample_prompts", "strings that aren't empty", _are_texts)
        _check_choice(self, "schedule", SCHEDULES)
        _check_choice(self, "optimizer", ("fused", "ours"))
        _check_choice(self, "precision", ("auto", "float32", "bfloat16"))
        _check_choice(self, "parallel", ("none", "ddp", "fsdp"))
        if self.warmup_steps + self.cooldown_steps > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} and cooldown_steps {self.cooldown_steps} don't "
                f"fit into {self.steps} steps; make them fewer, or steps more"
            )

    @classmethod
    def from_toml(cls, path: str | Path) -> "TrainSettings":
        """Reads the [train] table of a TOML file; what isn't there has its default.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not TOML, an unknown key (with the nearest known one), or a wrong value.
        """
        return build(cls, read_toml(path).get("train", {}), "train")

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one process reads for one update."""
        return self.sequence_length * self.batch_size * self.accumulation

    def learning_rates(self) -> Schedule:
        """The learning rate as a function of the step, from 0."""
        settings: dict[str, Any] = {"warmup_steps": self.warmup_steps, "floor": self.floor}
        if self.schedule == "cooldown":
            settings["cooldown_steps"] = self.cooldown_steps
        factor = partial(SCHEDULES[self.schedule], steps=self.steps, **settings)
        return lambda step: self.learning_rate * factor(step)


def read_toml(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it isn't TOML.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; runs/ holds files to begin with")
    try:
        # Windows' Notepad may put a byte order mark first, which TOML doesn't know.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from None


def build(cls: type[Settings], values: dict[str, Any], table: str) -> Settings:
    """Makes a dataclass from a table of a TOML file.

    Args:
        cls: the dataclass.
        values: the table's content.
        table: its name, for the message.

    Raises:
        ValueError: no table, an unknown or a missing key, or a value of another kind.
    """
    check_table(values, table)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_keys(values, fields, table)
    for name, field in fields.items():
        if name not in values and field.default is dataclasses.MISSING:
            raise ValueError(f"[{table}] has no {name}, which it needs")
    _check_kinds(cls, values, f"[{table}]")
    return cls(**{n: tuple(v) if isinstance(v, list) else v for n, v in values.items()})


def check_table(values: Any, table: str) -> None:
    """Raises ValueError where something else stands in the place of a table."""
    if not isinstance(values, dict):
        raise ValueError(f"{table} must be a table, which begins with [{table}]; got {values!r}")


def check_keys(values: Collection[str], known: Collection[str], table: str) -> None:
    """Raises ValueError for the first key that isn't known, and names the nearest one that is."""
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
            raise ValueError(
                f"[{table}] has no setting {name!r}; did you mean {near[0]!r}? "
                f"It may have {', '.join(known)}"
            )


def _check_kinds(cls: type, values: dict[str, Any], where: str) -> None:
    """Raises ValueError for the first value that isn't of its default's kind."""
    defaults = {field.name: field.default for field in dataclasses.fields(cls)}
    for name, value in values.items():
        default = defaults[name]
        if default is not dataclasses.MISSING and not _same_kind(value, default):
            wanted = {"int": "a whole number", "float": "a number", "str": "a string",
                      "bool": "true or false", "tuple": "a list"}[type(default).__name__]  # fmt: skip
            raise ValueError(f"{name} in {where} must be {wanted}, such as {default!r}; "
                             f"got {value!r}")  # fmt: skip


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, tuple):
        return isinstance(value, list | tuple)
    return default is None or type(value) is type(default)


def _are_texts(values: Any) -> bool:
    return all(isinstance(value, str) and value for value in values)


def _check(settings: TrainSettings, name: str, wanted: str, holds: Any) -> None:
    value = getattr(settings, name)
    if not holds(value):
        raise ValueError(f"{name} must be {wanted}, got {value}")


def _check_choice(settings: TrainSettings, name: str, choices: Collection[str]) -> None:
    value = getattr(settings, name)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
