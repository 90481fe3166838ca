"""Training beside transformers' Qwen2 in a plain PyTorch loop, in one run, on the same batches.

CPU: the model of runs/tiny.toml in float32 on 2 threads, compiled as that file says, which needs a C++
compiler, and not. Each side has a process of its own, and they take turns. All do 50 steps from the
same weights first, and the largest difference of their losses is printed. GPU, where there is one: the
shape of the 0.5B in bfloat16, sequences of 4,096 tokens; the unit is the share of the peak, whose
definition is that of `qwen2lite.train.cost`. Random weights in both cases.
"""

import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator
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
from qwen2lite.train.recipe import Recipe, new_model
from qwen2lite.train.recompute import recompute_layers

THREADS, STEPS = 2, 50
GPU_BATCH, GPU_LENGTH, H100_FLOPS = 4, 4096, 989e12
TINY = Path(__file__).parents[1] / "runs" / "tiny.toml"
Step = Callable[[], torch.Tensor]
"""Makes one update and returns its loss."""


def main() -> None:
    flags = measure.parser(__doc__).parse_args()
    torch.set_num_threads(THREADS)
    rows = cpu_rows(flags.repeats, sys.stderr if flags.json else sys.stdout)
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
    batches = list(islice(Loader(ids, settings.sequence_length, settings.batch_size), STEPS))
    model, rate = new_model(recipe, prepared), settings.learning_rate / 3
    objective = NextToken(model)
    if settings.compile:
        objective.compile()
    if name == "transformers":
        step = theirs(peer_of(model), batches, rate)
    else:
        step = ours(objective, batches, rate, Cores(THREADS).accumulate)

    def run(count: int) -> tuple[float, list[float]]:
        losses: list[torch.Tensor] = []
        seconds = measure.seconds(lambda: losses.extend(step() for _ in range(count)))
        return count * settings.tokens_per_step / seconds, torch.stack(losses).tolist()

    return run


def gpu_rows(repeats: int) -> Iterator[measure.Row]:
    """The 0.5B's shape; ours compiled, with and without activation checkpointing."""
    config = dataclasses.replace(CONFIGS["qwen2-0.5b"], eos_token_id=None)
    rng = torch.Generator("cuda").manual_seed(0)
    shape = (GPU_BATCH, GPU_LENGTH + 1)
    rows = torch.randint(config.vocab_size, shape, device="cuda", generator=rng)
    batch = (rows[:, :-1], rows[:, 1:].contiguous())
    add_gradients = partial(accumulate, dtype=torch.bfloat16)
    tokens = 10 * GPU_BATCH * GPU_LENGTH
    for name, recompute in (("train gpu", False), ("train gpu, recomputed", True)):
        torch.manual_seed(0)
        with torch.device("cuda"):
            model = Qwen2(config)
        objective = NextToken(model)
        if recompute:
            recompute_layers(objective)
        objective.compile()
        peer = peer_of(model)
        peer.compile()
        sides = [waiting(ours(objective, [batch], 1e-4, add_gradients)),
                 waiting(theirs(peer, [batch], 1e-4))]  # fmt: skip
        seconds = measure.median_seconds(repeats, *(partial(some, step) for step in sides))
        mine, theirs_ = (100 * mfu(config, GPU_LENGTH, tokens / s, H100_FLOPS) for s in seconds)
        yield measure.Row(
            name, mine, theirs_, "transformers, compiled", "% of peak", mine / theirs_
        )
        del model, objective, peer, sides
        torch.cuda.empty_cache()


def waiting(step: Step) -> Step:
    def wait() -> torch.Tensor:
        loss = step()
        torch.cuda.synchronize()
        return loss

    return wait


def some(step: Step, number: int = 10) -> None:
    for _ in range(number):
        step()


def ours(objective: NextToken, batches: list[Batch], rate: float, add_gradients: Callable) -> Step:
    turn = cycle(batches)
    groups = parameter_groups(objective.model, 0.1)
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)

    def step() -> torch.Tensor:
        loss = add_gradients(objective, [next(turn)])
        clip_gradients(objective.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def theirs(model: nn.Module, batches: list[Batch], rate: float, **autocast: object) -> Step:
    """The loop as most people write it."""
    turn = cycle(batches)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=rate, betas=(0.9, 0.95))
    place = next(model.parameters()).device.type

    def step() -> torch.Tensor:
        ids_BT, targets_BT = next(turn)
        with torch.autocast(place, torch.bfloat16, enabled=place == "cuda"):
            logits_BTV = model(ids_BT, use_cache=False).logits
        loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), targets_BT.flatten())
        loss.backward()
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
