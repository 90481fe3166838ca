"""Training beside transformers' Qwen2 in a plain PyTorch loop, in one run, on the same batches.

CPU: the model of runs/tiny.toml in float32 on 2 threads, compiled as that file says, which needs a C++
compiler, and not. Each side has a process of its own, and they take turns. All do 50 steps from the
same weights first, and the largest difference of their losses is printed. GPU, where there is one: the
shape of the 0.5B in bfloat16, 131,072 tokens a step in sequences of 4,096, as in runs/h100.toml; the
unit is the share of the peak, whose definition is that of `qwen2lite.train.cost`. transformers takes
half as many sequences at once: all of its scores at once leave no room for more. Random weights in both
cases.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TextIO

import measure
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from qwen2lite.model.config import CONFIGS
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.train.cost import mfu
from qwen2lite.train.gradients import Batch, Cores, accumulate
from qwen2lite.train.loader import Loader
from qwen2lite.train.loss import NextToken
from qwen2lite.train.optim import clip_gradients, parameter_groups
from qwen2lite.train.prepare import prepare
from qwen2lite.train.products import use_fastest_products
from qwen2lite.train.recipe import Recipe, new_model
from qwen2lite.train.recompute import recompute_layers

THREADS, STEPS = 2, 50
GPU_LENGTH, GPU_SEQUENCES, GPU_AT_ONCE, H100_FLOPS = 4096, 32, 8, 989e12
TINY = Path(__file__).parents[1] / "runs" / "tiny.toml"
Step = Callable[[], torch.Tensor]
"""Makes one update and returns its loss."""


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--gpu", action="store_true", help="only the GPU's rows")
    flags = parser.parse_args()
    torch.set_num_threads(THREADS)
    rows = [] if flags.gpu else cpu_rows(flags.repeats, sys.stderr if flags.json else sys.stdout)
    if torch.cuda.is_available():
        rows += gpu_rows(flags.repeats)
    measure.show(rows, flags.json)
    if not torch.cuda.is_available():
        print("train gpu: no GPU here: not measured", file=sys.stderr if flags.json else sys.stdout)


def cpu_rows(repeats: int, say: TextIO) -> list[measure.Row]:
    with measure.processes(
        cpu_side, ("train cpu", "train cpu, not compiled", "transformers")
    ) as sides:
        losses = {name: torch.tensor(run(STEPS)[1]) for name, run in sides.items()}
        peer = losses.pop("transformers")
        for name, mine in losses.items():
            print(f"{name}: losses over {STEPS} steps {mine[0]:.4f} to {mine[-1]:.4f}, never further "
                  f"than {(mine - peer).abs().max():.1e} from transformers'", file=say)  # fmt: skip
        *mine, peer = measure.medians(repeats, *(partial(speed, run) for run in sides.values()))
    return [measure.Row(name, rate, peer, "transformers", "tokens/s", rate / peer)
            for name, rate in zip(losses, mine, strict=True)]  # fmt: skip


def speed(run: Callable[[int], tuple[float, list[float]]]) -> float:
    tokens_per_second, _ = run(10)
    return tokens_per_second


def cpu_side(name: str) -> Callable[[int], tuple[float, list[float]]]:
    """A function that makes some steps, and returns tokens a second and their losses."""
    torch.set_num_threads(THREADS)
    recipe = Recipe.from_toml(TINY)
    data = dataclasses.replace(recipe.data, characters=1_000_000)
    settings = dataclasses.replace(
        recipe.train, device="cpu", compile=not name.endswith("not compiled")
    )
    recipe = dataclasses.replace(recipe, train=settings, data=data)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(recipe.data, Path(folder), recipe.config.vocab_size)
        ids = prepared.train.ids[:].copy()  # the file goes with the folder
    batches = islice(Loader(ids, settings.sequence_length, settings.batch_size), STEPS)
    steps = [[batch] for batch in batches]
    model, rate = new_model(recipe, prepared), settings.learning_rate / 3
    objective = NextToken(model)
    if name == "transformers":
        step = theirs(peer_of(model), steps, rate)
    else:
        use_fastest_products(objective)
        if settings.compile:
            objective.compile()
        step = ours(objective, steps, rate, Cores(THREADS).accumulate)

    def run(count: int) -> tuple[float, list[float]]:
        losses: list[torch.Tensor] = []
        seconds = measure.seconds(lambda: losses.extend(step() for _ in range(count)))
        return count * settings.tokens_per_step / seconds, torch.stack(losses).tolist()

    return run


def gpu_rows(repeats: int) -> list[measure.Row]:
    """The 0.5B's shape; ours compiled, with and without activation checkpointing."""
    share: dict[str, float] = {}
    own, peer = ("train gpu", "train gpu, recomputed"), "transformers, compiled"
    for names in (own, (peer,)):  # the memory isn't enough for all
        with measure.processes(gpu_side, names) as sides:
            share |= zip(names, measure.medians(repeats, *sides.values()), strict=True)
    return [
        measure.Row(name, share[name], share[peer], peer, "% of peak", share[name] / share[peer])
        for name in own
    ]


def gpu_side(name: str) -> Callable[[], float]:
    """A function that makes three steps, and returns the share of the peak."""
    config = dataclasses.replace(CONFIGS["qwen2-0.5b"], eos_token_id=None)
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = Qwen2(config)
        ids = torch.randint(config.vocab_size, (GPU_SEQUENCES, GPU_LENGTH + 1))
    at_once = GPU_AT_ONCE // 2 if name.startswith("transformers") else GPU_AT_ONCE
    batches = [(rows[:, :-1], rows[:, 1:].contiguous()) for rows in ids.split(at_once)]
    if name.startswith("transformers"):
        model = peer_of(model)
        model.compile()
        step = waiting(theirs(model, [batches], 1e-4))
    else:
        objective = NextToken(model)
        if name.endswith("recomputed"):
            recompute_layers(objective)
        objective.compile()
        add_gradients = partial(accumulate, dtype=torch.bfloat16)
        step = waiting(ours(objective, [batches], 1e-4, add_gradients))
    step()  # compiles, while the other side does

    def run() -> float:
        seconds = measure.seconds(lambda: [step() for _ in range(3)])
        return 100 * mfu(config, GPU_LENGTH, 3 * ids[:, 1:].numel() / seconds, H100_FLOPS)

    return run


def waiting(step: Step) -> Step:
    def wait() -> torch.Tensor:
        loss = step()
        torch.cuda.synchronize()
        return loss

    return wait


def ours(
    objective: NextToken, steps: list[list[Batch]], rate: float, add_gradients: Callable
) -> Step:
    turn = cycle(steps)
    groups = parameter_groups(objective.model, 0.1)
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)

    def step() -> torch.Tensor:
        loss = add_gradients(objective, next(turn))
        clip_gradients(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def theirs(model: nn.Module, steps: list[list[Batch]], rate: float) -> Step:
    """The loop as most people write it."""
    turn = cycle(steps)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=rate, betas=(0.9, 0.95))
    place = next(model.parameters()).device.type

    def step() -> torch.Tensor:
        batches = next(turn)
        for ids_BT, targets_BT in batches:
            with torch.autocast(place, torch.bfloat16, enabled=place == "cuda"):
                logits_BTV = model(ids_BT, use_cache=False).logits
            loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
            (loss / len(batches)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def peer_of(model: Qwen2) -> nn.Module:
    """transformers' model with the same weights."""
    values = {k: v for k, v in model.config.to_dict().items() if k != "architectures"}
    peer = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**values)).to(model.device)
    missing, unexpected = peer.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    return peer.train()


if __name__ == "__main__":
    main()
