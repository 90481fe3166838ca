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
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from qwen2lite.infer.compile import compiles
from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.device import pick_device
from qwen2lite.model.qwen2 import Parts, Qwen2
from qwen2lite.train import by_hand
from qwen2lite.train.gradients import Batch
from qwen2lite.train.loader import Loader
from qwen2lite.train.loop import pick_precision, train
from qwen2lite.train.parallel import join
from qwen2lite.train.prepare import DataSettings, Prepared, prepare
from qwen2lite.train.settings import TrainSettings, build, check_keys, read_toml
from qwen2lite.train.tokens import END_OF_TEXT


@dataclass(frozen=True)
class Recipe:
    """The three tables of a run's file."""

    config: Qwen2Config
    data: DataSettings
    train: TrainSettings

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
    folder, recipe = Path(folder), fit_to_machine(recipe)
    settings = recipe.train
    with join(settings) as processes:
        with processes.first():
            if settings.compile and bar:
                print("the first step is compiled, which takes half a minute or more")
            prepared = prepare(recipe.data, folder / "data", recipe.config.vocab_size)
        sizes = (settings.sequence_length, settings.batch_size, settings.seed)
        loader = Loader(prepared.train.ids, *sizes, processes.rank, processes.world_size)
        return train(
            new_model(recipe, prepared),
            loader,
            settings,
            folder,
            held_out=held_out_batches(prepared, settings),
            tokenizer=prepared.tokenizer,
            processes=processes,
            may_change=may_change,
            bar=bar,
        )


def fit_to_machine(recipe: Recipe) -> Recipe:
    """The recipe without `compile` where nothing can be compiled, and a warning that says why."""
    if not recipe.train.compile:
        return recipe
    numbers = torch.ones(8, device=pick_device(recipe.train.device))
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

    Compiled, the plain parts are faster still: the compiler fuses what it can look into.
    """
    device = pick_device(settings.device)
    exact = device.type == "cpu" and pick_precision(settings, device) == torch.float32
    return by_hand.PARTS if exact and not settings.compile else None


def held_out_batches(prepared: Prepared, settings: TrainSettings) -> list[Batch]:
    """The batches of each evaluation: at most `evaluation_batches`, fewer from a small corpus."""
    length, size = settings.sequence_length, settings.batch_size
    windows = (len(prepared.held_out.ids) - 1) // length
    size = max(1, min(size, windows))
    number = max(1, min(settings.evaluation_batches, windows // size))
    return list(islice(Loader(prepared.held_out.ids, length, size), number))


def _config(values: dict[str, Any]) -> Qwen2Config:
    values = dict(values)
    like = values.pop("like", None)
    known = [field.name for field in dataclasses.fields(Qwen2Config)]
    check_keys(values, known, "model")
    if like is not None:
        check_keys([like], CONFIGS, "like in [model]")
        values = CONFIGS[like].to_dict() | values
    return Qwen2Config.from_dict(values)
