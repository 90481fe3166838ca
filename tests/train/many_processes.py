"""What each process of test_parallel.py does: `torchrun … many_processes.py FOLDER CASE…`.

A case is `ddp-NAME`, `fsdp-NAME` or `alone-NAME`, which process 0 does while the others wait, with
`:RUN` where it begins with what another one left. It is a run of the tiny model in a folder of its
own, whose name also tells how many processes there were. However many, a step has the same eight
sequences, so that the runs can be compared.
"""

import atexit
import dataclasses
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta
from itertools import accumulate as accumulate_sums
from itertools import islice
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile

from qwen2lite import Qwen2, Qwen2Config, Qwen2Tokenizer
from qwen2lite.model.balance import balance_by_bias
from qwen2lite.model.grouped import grouped_moe
from qwen2lite.model.parts import Parts
from qwen2lite.train import loop, shards
from qwen2lite.train.by_hand import PARTS
from qwen2lite.train.gradients import accumulate
from qwen2lite.train.loader import Loader
from qwen2lite.train.loss import CHUNK_NUMBERS, IGNORED, NextToken
from qwen2lite.train.parallel import end, join
from qwen2lite.train.plan import Plan
from qwen2lite.train.processes import Alone, Copies
from qwen2lite.train.recompute import recompute_layers
from qwen2lite.train.settings import TrainSettings

TINY = Path(__file__).parents[2] / "data" / "qwen2-tiny"
SEQUENCES = 8
DENSE = Qwen2Config(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=True,
    initializer_range=0.1,
    eos_token_id=0,
)
SPARSE = dataclasses.replace(
    DENSE,
    tie_word_embeddings=False,
    num_experts=10,
    mlp_only_layers=(0,),
    num_experts_per_tok=1,
    moe_intermediate_size=8,
    shared_expert_intermediate_size=16,
)
LARGER = dataclasses.replace(
    DENSE,
    vocab_size=3000,
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
)
"""Large enough that a tensor here and there doesn't count."""
SETTINGS = TrainSettings(
    steps=10,
    sequence_length=11,
    batch_size=SEQUENCES,
    warmup_steps=3,
    learning_rate=1e-2,
    max_gradient_norm=0.3,
    device="cpu",
    cores=1,
    log_every=1,
    checkpoint_every=4,
    keep_checkpoints=10,
    evaluate_every=5,
)
CASES: dict[str, dict] = {
    "plain": {},
    "accumulate": {"accumulation": 2},
    "recompute": {"activation_checkpointing": True},
    "all": {"accumulation": 2, "activation_checkpointing": True},
    "sparse": {"config": SPARSE},
    "sparse_all": {"config": SPARSE, "accumulation": 2, "activation_checkpointing": True},
    "grouped": {"config": SPARSE, "parts": Parts(moe=grouped_moe)},
    "grouped_bfloat16": {
        "config": SPARSE,
        "parts": Parts(moe=grouped_moe),
        "precision": "bfloat16",
    },
    "biased": {"config": SPARSE, "biased": True, "accumulation": 2},
    "by_hand": {"parts": PARTS, "optimizer": "ours"},
    "bfloat16": {"precision": "bfloat16"},
    "sample": {
        "tokenizer": True,
        "sample_every": 3,
        "sample_prompts": ("The",),
        "sample_tokens": 8,
    },
    "sample_bfloat16": {
        "precision": "bfloat16",
        "steps": 2,
        "warmup_steps": 0,
        "tokenizer": True,
        "sample_every": 1,
        "sample_prompts": ("The",),
        "sample_tokens": 8,
    },
    "seeds": {"seeds": True},
    "meta": {"seeds": True, "meta": True},
    "summed": {"wrong": "summed"},
    "not_averaged": {"wrong": "not_averaged"},
    "same_share": {"wrong": "same_share"},
    "mean_of_means": {"wrong": "mean_of_means"},
    "local_clip": {"wrong": "local_clip"},
    "idle_moved": {"config": SPARSE, "wrong": "idle_moved"},
}


class Uneven:
    """A loader that hides the first targets of each sequence: up to all of them."""

    def __init__(self, loader: Loader):
        self._loader = loader
        self.state_dict, self.load_state_dict = loader.state_dict, loader.load_state_dict

    def __iter__(self):
        for ids_BT, targets_BT in self._loader:
            places_T = torch.arange(ids_BT.shape[1])
            hidden_BT = places_T < ids_BT[:, :1] % (len(places_T) + 1)
            yield ids_BT, targets_BT.masked_fill(hidden_BT, IGNORED)


def corpus() -> np.ndarray:
    """A pattern to learn: from most tokens the next one follows."""
    ids = [1]
    for noise in np.random.default_rng(0).random(1200):
        ids.append(0 if noise < 0.1 else (ids[-1] * 7 + 3) % DENSE.vocab_size)
    return np.array(ids, dtype=np.uint16)


def new_model(config: Qwen2Config, parts=None, seed: int = 0) -> Qwen2:
    torch.manual_seed(seed)
    return Qwen2(config, parts)


def run(folder: Path, processes: Alone, name: str, actor=None) -> Path:
    """One run; whoever is alone goes through the same function."""
    case = dict(CASES[name])
    config, parts = case.pop("config", DENSE), case.pop("parts", None)
    wrong, meta = case.pop("wrong", ""), case.pop("meta", False)
    biased = case.pop("biased", False)
    seed = processes.rank if case.pop("seeds", False) else 0
    tokenizer = None
    if case.pop("tokenizer", False):
        tokenizer = Qwen2Tokenizer.from_pretrained(TINY)
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    shared = processes.world_size * case.get("accumulation", 1)
    settings = dataclasses.replace(SETTINGS, batch_size=SEQUENCES // shared, **case)
    if processes.world_size == 1:
        settings = dataclasses.replace(settings, batch_size=SEQUENCES, accumulation=1)
    sizes = (corpus(), settings.sequence_length)
    rank = 0 if wrong == "same_share" else processes.rank
    loader = Loader(*sizes, settings.batch_size, 0, rank, processes.world_size)
    with torch.device("meta" if meta and rank else "cpu"):
        model = new_model(config, parts, seed)
    if biased:
        balance_by_bias(model, rate=0.02)
    with mistake(wrong, processes):
        return loop.train(
            model,
            actor(Uneven(loader)) if actor else Uneven(loader),
            settings,
            folder,
            held_out=list(islice(Loader(*sizes, 4, seed=9), 2)),
            tokenizer=tokenizer,
            processes=processes,
            bar=False,
        )


def mistake(name: str, processes: Alone):
    """Mistakes of real training programs, for a run."""
    kind, size = type(processes), processes.world_size
    counted = "qwen2lite.train.gradients.targets_in_all"
    if name == "summed":
        fewer = lambda batches, processes: loop.targets_in_all(batches, processes) / size  # noqa: E731
        return mock.patch(counted, fewer)
    if name == "not_averaged":
        never = lambda self, objective, last: objective.no_sync()  # noqa: E731
        return mock.patch.object(kind, "exchange", never)
    if name == "mean_of_means":  # each process divides by its own targets
        mine = lambda batches, processes: loop.targets_in_all(batches) * size  # noqa: E731
        return mock.patch(counted, mine)
    if name == "local_clip":
        return mock.patch.object(loop, "clip_gradients", clip_own)
    if name == "idle_moved":
        return mock.patch.object(kind, "settle", lambda self: None)
    return nullcontext()


def clip_own(parameters, max_norm: float) -> torch.Tensor:
    """Clips this process's shares by their own norm."""
    grads = [p.grad.to_local() for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
    torch._foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


def stopped_after_four(done: Path, folder: Path) -> Path:
    """A folder as if the run in `done` had been stopped after its fourth step's checkpoint."""
    name = "step-00000004"
    shutil.copytree(done / "checkpoints" / name, folder / "checkpoints" / name)
    return folder


def resume(folder: Path, processes: Alone, done: Path) -> None:
    with processes.first():
        if processes.rank == 0:
            stopped_after_four(done, folder)
    run(folder, processes, "plain")


def in_turn(folder: Path, processes: Alone, done: Path) -> None:
    """Process 0 takes longer than a sum may; the others must find what it wrote."""
    dist.distributed_c10d._set_pg_timeout(timedelta(seconds=0.1))
    with processes.first():
        if processes.rank == 0:
            time.sleep(0.3)
        (folder / f"{processes.rank}-found-{len(list(folder.iterdir()))}").touch()
    dist.distributed_c10d._set_pg_timeout(timedelta(minutes=30))


def full_disk(folder: Path, processes: Alone, done: Path) -> None:
    """The second process can't write its share of the checkpoint of step 8."""
    write = shards.dcp.HuggingFaceStorageWriter.write_data

    def refuse(self, plan, planner):
        if processes.rank == 1 and "00000008" in str(self.path):
            raise OSError("No space left on device")
        return write(self, plan, planner)

    with mock.patch.object(shards.dcp.HuggingFaceStorageWriter, "write_data", refuse):
        try:
            run(folder, processes, "plain")
        except OSError as error:
            (folder / f"error-{processes.rank}.txt").write_text(str(error), encoding="utf-8")


def different_folders(folder: Path, processes: Alone, done: Path) -> None:
    """The second process doesn't see the first one's checkpoints."""
    if processes.rank == 0:
        stopped_after_four(done, folder)
    try:
        run(folder if processes.rank == 0 else folder / "mine", processes, "plain")
    except ValueError as error:
        (folder / f"error-{processes.rank}.txt").write_text(str(error), encoding="utf-8")


def killed(folder: Path, processes: Alone, done: Path) -> None:
    """The second process dies in its sixth step, as it does when a machine is out of memory."""

    def until_six(batches):
        for step, batch in enumerate(batches, start=1):
            if step == 6 and processes.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    class Actor(Uneven):
        def __iter__(self):
            return until_six(super().__iter__())

    run(folder, processes, "plain", actor=lambda uneven: Actor(uneven._loader))


def memory(folder: Path, processes: Alone, done: Path) -> None:
    """Writes measured and planned bytes, beyond weights and optimizer, of a few shapes."""
    parallel = "fsdp" if isinstance(processes, shards.Shards) else "ddp"
    found = {}
    for tied, precision, again in ((True, "float32", False), (False, "bfloat16", False),
                                   (True, "bfloat16", True)):  # fmt: skip
        config = dataclasses.replace(LARGER, tie_word_embeddings=tied)
        paper = Plan(config=config, gpus=2, sequence_length=256, batch_size=2, parallel=parallel,
                     precision=precision, activation_checkpointing=again)  # fmt: skip
        measured = peak_bytes(paper, processes)
        if parallel == "ddp":
            measured += paper.gradients // 2  # the buckets are older than the step
        found[f"{tied} {precision} {again}"] = (
            measured,
            paper.total - paper.weights - paper.optimizer,
        )
    (folder / f"{processes.rank}.json").write_text(json.dumps(found), encoding="utf-8")


def peak_bytes(paper: Plan, processes: Alone, chunk: int = CHUNK_NUMBERS["cuda"]) -> int:
    """The most that is allocated at a time within a step of two batches, by PyTorch's profiler.

    The least of three steps: where a process waits for another, on a machine with other work, it
    holds what it has to send for longer, which is no part of a plan.
    """
    torch.manual_seed(0)
    model = Qwen2(paper.config)
    objective, dtype = NextToken(model), getattr(torch, paper.precision)
    if paper.activation_checkpointing:
        recompute_layers(objective)
    objective = processes.wrap(objective, dtype)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    shape = (paper.batch_size, paper.sequence_length)
    ids_BT = torch.randint(0, paper.config.vocab_size, shape)

    def step() -> None:
        accumulate(objective, [(ids_BT, ids_BT.roll(-1, 1))] * 2, dtype, processes)
        optimizer.step()
        optimizer.zero_grad()

    with mock.patch.dict(CHUNK_NUMBERS, cpu=chunk):
        for _ in range(3):  # DDP sorts its buckets anew after the first
            step()
        return min(peak_within(step) for _ in range(3))


def peak_within(step: Callable[[], None]) -> int:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return max(accumulate_sums(sizes))


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    atexit.register(folder.joinpath("ended-by-python").touch)
    roles = {"alone": Alone, "ddp": Copies, "fsdp": shards.Shards}
    first = names[0].partition("-")[0].replace("alone", "ddp")
    with join(dataclasses.replace(SETTINGS, parallel=first)) as processes:
        for name in names:
            parallel, _, what = name.partition("-")
            role = roles[parallel](processes.device)
            what, _, done = what.partition(":")
            own = folder / f"{name.replace(':', '-of-')}-{role.world_size}"
            own.mkdir(exist_ok=True)
            if what not in CASES:
                globals()[what](own, role, folder / done)
            elif processes.rank == 0 or parallel != "alone":
                run(own, role, what)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
    end()
