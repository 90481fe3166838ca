"""A run from one TOML file: what to build, from what, and how to train it.

    [model]   the config, under the names of config.json; `like` names a published one to begin with
    [data]    the corpus and its tokenizer: `DataSettings`
    [train]   `TrainSettings`

runs/ holds files to begin with.
"""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from qwen2lite.infer.compile import compiles
from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.device import pick_device
from qwen2lite.model.qwen2 import Parts, Qwen2
from qwen2lite.train import by_hand
from qwen2lite.train.folder import check_may_change
from qwen2lite.train.gradients import Batch
from qwen2lite.train.loader import Loader
from qwen2lite.train.loop import pick_precision, train
from qwen2lite.train.parallel import join
from qwen2lite.train.prepare import DataSettings, Prepared, prepare
from qwen2lite.train.settings import TrainSettings, build, check_keys, check_table, read_toml
from qwen2lite.train.tokens import END_OF_TEXT


@dataclass(frozen=True)
class Recipe:
    """The three tables of a run's file."""

    config: Qwen2Config
    data: DataSettings
    train: TrainSettings

    def __post_init__(self) -> None:
        length, context = self.train.sequence_length, self.config.context_length
        if length > context:
            raise ValueError(
                f"sequence_length {length} is longer than the model's context of {context}; raise "
                "max_position_embeddings in [model], or shorten it"
            )

    @classmethod
    def from_toml(cls, path: str | Path) -> "Recipe":
        """Reads a run's file; what isn't in it has its default.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not TOML, an unknown table or key, or a wrong value.
        """
        tables = read_toml(path)
        check_keys(tables, ("model", "data", "train"), str(path))
        return cls(
            _config(tables.get("model", {})),
            build(DataSettings, tables.get("data", {}), "data"),
            build(TrainSettings, tables.get("train", {}), "train"),
        )


def run(
    recipe: Recipe, folder: str | Path, may_change: Collection[str] = (), bar: bool = True
) -> Path:
    """Prepares the corpus, builds the model and trains it; goes on where an earlier run stopped.

    Under torchrun every process calls it, and they train together.

    Args:
        recipe: what to do.
        folder: of this run.
        may_change: settings that may differ from those of the run to resume.
        bar: show progress.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError, FileNotFoundError, OSError: see `prepare` and `train`.
    """
    check_may_change(may_change)
    folder = Path(folder)
    with join(recipe.train) as processes:
        recipe = fit_to_machine(recipe, processes.device)
        settings = recipe.train
        if settings.compile and bar and processes.rank == 0:
            print("the first step is compiled, which takes half a minute or more")
        with processes.first():
            prepared = prepare(recipe.data, folder / "data", recipe.config.vocab_size)
        sizes = (settings.sequence_length, settings.batch_size, settings.seed)
        loader = Loader(prepared.train.ids, *sizes, processes.rank, processes.world_size)
        return train(
            new_model(recipe, prepared),
            loader,
            settings,
            folder,
            held_out=held_out_batches(prepared, settings, processes.world_size),
            tokenizer=prepared.tokenizer,
            processes=processes,
            may_change=may_change,
            bar=bar,
        )


def fit_to_machine(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe without `compile` where nothing can be compiled, and a warning that says why."""
    if not recipe.train.compile:
        return recipe
    numbers = torch.ones(8, device=device)
    can = compiles(partial(torch.compile(torch.square), numbers))
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, compile=can))


def new_model(recipe: Recipe, prepared: Prepared) -> Qwen2:
    """A model with fresh weights drawn from the seed, whose config knows the tokenizer's end."""
    eos = prepared.tokenizer.special_tokens[END_OF_TEXT]
    rows, tokens = recipe.config.vocab_size, prepared.train.facts.vocab_size
    if tokens > rows:
        raise ValueError(
            f"the tokenizer has {tokens:,} tokens and the model {rows:,} rows for them; "
            f"set vocab_size in [model] to {tokens} or more"
        )
    torch.manual_seed(recipe.train.seed)
    config = dataclasses.replace(recipe.config, eos_token_id=eos)
    return Qwen2(config, fast_parts(recipe.train)).float()


def fast_parts(settings: TrainSettings) -> Parts | None:
    """Parts with gradients by hand where training is in float32 on a CPU; None elsewhere.

    Compiled, the plain parts are faster than these on a Xeon and slower on an AMD EPYC
    (docs/speed.md).
    """
    device = pick_device(settings.device)
    exact = device.type == "cpu" and pick_precision(settings, device) == torch.float32
    return by_hand.PARTS if exact and not settings.compile else None


def held_out_batches(
    prepared: Prepared, settings: TrainSettings, world_size: int = 1
) -> list[Batch]:
    """The sequences of each evaluation in batches: fewer from a small corpus.

    They are the same however a step is cut into batches and processes, so that the curve of a run
    doesn't jump where it is resumed with another cut.
    """
    ids, length, size = prepared.held_out.ids, settings.sequence_length, settings.batch_size
    windows = (len(ids) - 1) // length
    of_a_step = max(1, min(size * settings.accumulation * world_size, windows))
    steps = max(1, min(settings.evaluation_batches, windows // of_a_step))
    ids_BT, targets_BT = next(Loader(ids, length, steps * of_a_step))
    return list(zip(ids_BT.split(size), targets_BT.split(size), strict=True))


def _config(values: dict[str, Any]) -> Qwen2Config:
    check_table(values, "model")
    values = dict(values)
    like = values.pop("like", None)
    known = [field.name for field in dataclasses.fields(Qwen2Config)]
    check_keys(values, known, "model")
    if like is not None:
        if not isinstance(like, str):
            raise ValueError(f"like in [model] must be a model's name, a string; got {like!r}")
        check_keys([like], CONFIGS, "like in [model]")
        # Its head size follows from its sizes, and so does that of one with others.
        values = CONFIGS[like].to_dict() | {"head_dim": 0} | values
    if values.get("num_experts"):  # else the config of a dense model, which leaves experts out
        values["model_type"] = "qwen2_moe"
    return Qwen2Config.from_dict(values)
