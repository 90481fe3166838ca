"""train: a model from one TOML file."""

import argparse
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command to the command line."""
    train = commands.add_parser("train", help="train a model; runs/tiny.toml takes minutes")
    train.add_argument("recipe", help="a TOML file, such as runs/tiny.toml")
    train.add_argument("--folder", help="of the run (default: work/runs/ and the file's name)")
    train.add_argument(
        "--may-change",
        nargs="*",
        default=[],
        metavar="SETTING",
        help="settings that may differ from the run to resume, such as steps",
    )
    train.set_defaults(run=_train)


def _train(flags: argparse.Namespace) -> None:
    from qwen2lite.learn.keep import learner_home
    from qwen2lite.train.metrics import read_metrics
    from qwen2lite.train.recipe import Recipe, run

    recipe = Recipe.from_toml(flags.recipe)
    folder = Path(flags.folder or learner_home() / "runs" / Path(flags.recipe).stem)
    print(f"training {flags.recipe} in {folder}; Ctrl-C stops, the same command goes on")
    model = run(recipe, folder, flags.may_change)
    losses = {kind: [m[kind] for m in read_metrics(folder / "metrics.jsonl") if kind in m]
              for kind in ("loss", "held_out_loss")}  # fmt: skip
    for kind, values in losses.items():
        if values:
            print(f"{kind.replace('_', ' ')} {values[0]:.3f} → {values[-1]:.3f}")
    print(f'the model is {model}; try: python -m qwen2lite generate "Once" --model {model}')
