"""train and plan: a model from one TOML file, and what that takes before it is started."""

import argparse
import os
from pathlib import Path


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds both commands to the command line."""
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

    plan = commands.add_parser("plan", help="memory and days of a training run")
    flag = plan.add_argument
    flag("--model", default="0.5b", help="0.5b, 1.5b, 7b, 57b-a14b or 72b (default: 0.5b)")
    flag("--gpus", type=int, default=1, help="one process on each (default: 1)")
    flag("--memory", type=float, default=80, help="GB of each GPU (default: 80)")
    flag("--sequence-length", type=int, default=4096, help="tokens (default: 4096)")
    flag("--batch-size", type=int, default=1, help="sequences on each GPU at once (default: 1)")
    flag("--parallel", choices=("none", "ddp", "fsdp"), help="default: fsdp on several GPUs")
    flag("--activation-checkpointing", action="store_true", help="compute layers twice")
    flag("--precision", default="bfloat16", choices=("bfloat16", "float32"), help="of the products")
    flag("--peak-flops", type=float, help="of a GPU, a second (default: an H100's in --precision)")
    flag("--mfu", type=float, default=0.4, help="share of it that is assumed (default: 0.4)")
    flag("--tokens", type=float, default=1e12, help="to train on (default: 1e12)")
    plan.set_defaults(run=_plan)


def _train(flags: argparse.Namespace) -> None:
    from qwen2lite.learn.keep import learner_home
    from qwen2lite.train.parallel import end
    from qwen2lite.train.recipe import Recipe, run

    recipe = Recipe.from_toml(flags.recipe)
    folder = Path(flags.folder or learner_home() / "runs" / Path(flags.recipe).stem)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts, one speaks
    if first:
        print(f"training {flags.recipe} in {folder}; Ctrl-C stops, the same command goes on")
    model = run(recipe, folder, flags.may_change)
    if first:
        _report(folder, model)
    end()


def _report(folder: Path, model: Path) -> None:
    from qwen2lite.train.metrics import read_metrics

    losses = {kind: [m[kind] for m in read_metrics(folder / "metrics.jsonl") if kind in m]
              for kind in ("loss", "held_out_loss")}  # fmt: skip
    for kind, values in losses.items():
        if values:
            print(f"{kind.replace('_', ' ')} {values[0]:.3f} → {values[-1]:.3f}")
    print(f'the model is {model}; try: python -m qwen2lite generate "Once" --model {model}')


def _plan(flags: argparse.Namespace) -> None:
    from qwen2lite.train.plan import plan

    named = {name: value for name, value in vars(flags).items() if name not in ("run", "model")}
    named["memory"] *= 1e9
    named["parallel"] = flags.parallel or ("fsdp" if flags.gpus > 1 else "none")
    print(plan(flags.model, **named))
