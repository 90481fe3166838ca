"""A run that was stopped and resumed is, to the last bit, the run that was not."""

import json
import multiprocessing
import random
import time

import pytest
import torch

from qwen2lite import Qwen2
from qwen2lite.model.balance import balance_by_bias
from qwen2lite.train import checkpoint, metrics
from qwen2lite.train.by_hand import PARTS
from qwen2lite.train.checkpoint import latest
from qwen2lite.train.loader import Loader
from qwen2lite.train.loop import train
from qwen2lite.train.loss import NextToken


@pytest.fixture(autouse=True)
def _shape_suffixes_are_true():
    """Not watched here: the same code is in test_loop.py, and many steps are made."""


class Stop(Exception):
    """Somebody pulls the plug."""


class Noisy(NextToken):
    """An objective that draws random numbers, and at some call ends the run."""

    def __init__(self, model, stop_at=None):
        super().__init__(model)
        self.calls, self.stop_at = 0, stop_at

    def forward(self, ids_BT, targets_BT):
        self.calls += self.training
        if self.calls == self.stop_at:
            raise Stop
        noise = 1 + 0.1 * torch.rand(()) if self.training else 1
        return super().forward(ids_BT, targets_BT) * noise


def lines(folder):
    """Each line of the file, without what depends on the machine's speed."""
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    assert text.pop() == ""
    return [{k: v for k, v in json.loads(t).items() if k != "tokens_per_second"} for t in text]


def same_run(one, other):
    """Folders of two runs: every line, every number of the last checkpoint, the model."""
    assert lines(one) == lines(other)
    name = latest(one / "checkpoints").name
    for file in ("model.safetensors", "optimizer.safetensors", "state.json"):
        first, second = ((path / "checkpoints" / name / file).read_bytes() for path in (one, other))
        assert first == second, file
    assert (one / "model" / "model.safetensors").read_bytes() == (
        other / "model" / "model.safetensors"
    ).read_bytes()


CASES = {
    "plain": {},
    "accumulation": {"accumulation": 3},
    "ours": {"optimizer": "ours"},
    "cooldown": {"schedule": "cooldown", "cooldown_steps": 5},
    "two cores": {"cores": 2},
    "bfloat16": {"precision": "bfloat16"},
    "rare lines": {"log_every": 5},
    "evaluated": {"evaluate_every": 3},
}


@pytest.fixture
def run(small, reader, plan, some_batches):
    """Trains in a folder, from a model and a loader that are made anew each time."""

    def go(folder, settings, stop_at=None, seed=0, wrap=lambda loader: loader, **changes):
        model = small(seed=seed, **changes)
        if settings.cores == 1:
            torch.manual_seed(5)
            objective = Noisy(model, stop_at)
        else:
            objective = None if stop_at is None else Stopping(model, stop_at)
        if changes:
            balance_by_bias(model, rate=0.1)
        held_out = some_batches(2, seed=9) if settings.evaluate_every else ()
        loader = wrap(reader(settings))
        train(model, loader, settings, folder, objective=objective, held_out=held_out, bar=False)

    return go


class Stopping(NextToken):
    """Ends the run when all cores together have been here so often."""

    def __init__(self, model, stop_at):
        super().__init__(model)
        self.calls, self.stop_at = [], stop_at

    def forward(self, ids_BT, targets_BT):
        self.calls.append(None)
        if len(self.calls) == self.stop_at:
            raise Stop
        return super().forward(ids_BT, targets_BT)


def stopped_twice(run, folder, settings, calls=1, **more):
    """Stops in step 7 (the last checkpoint is of step 4) and in step 10, and then ends.

    The resumed ones begin with other weights, which a checkpoint must put right.
    """
    with pytest.raises(Stop):
        run(folder, settings, stop_at=6 * calls + 1, **more)
    assert latest(folder / "checkpoints").name == "step-00000004"
    with pytest.raises(Stop):
        run(folder, settings, stop_at=5 * calls + 1, seed=1, **more)
    assert latest(folder / "checkpoints").name == "step-00000008"
    run(folder, settings, seed=2, **more)


@pytest.mark.parametrize("case", CASES)
def test_bit_for_bit(case, run, plan, tmp_path):
    settings = plan(**{"evaluate_every": 0, **CASES[case]})
    run(tmp_path / "whole", settings)
    stopped_twice(run, tmp_path / "stopped", settings, settings.accumulation * settings.cores)
    same_run(tmp_path / "whole", tmp_path / "stopped")
    steps = [line["step"] for line in lines(tmp_path / "whole") if "loss" in line]
    assert steps == ([4, 5, 8, 10, 12] if case == "rare lines" else list(range(1, 13)))


def test_experts_that_are_balanced_by_a_bias(run, plan, tmp_path):
    experts = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 10}
    settings = plan(evaluate_every=3)
    run(tmp_path / "whole", settings, **experts)
    stopped_twice(run, tmp_path / "stopped", settings, **experts)
    same_run(tmp_path / "whole", tmp_path / "stopped")


class FromTheBeginning:
    """A loader that says where it was, and after resuming repeats what was read already."""

    def __init__(self, loader):
        self._loader, self.state_dict = loader, loader.state_dict

    def __iter__(self):
        return iter(self._loader)

    def load_state_dict(self, state):
        pass


class SkipsOne(FromTheBeginning):
    def load_state_dict(self, state):
        self._loader.load_state_dict(state)
        next(self._loader)


@pytest.mark.parametrize("bug", [FromTheBeginning, SkipsOne])
def test_a_loader_that_resumes_elsewhere_is_caught(bug, run, plan, tmp_path):
    settings = plan(evaluate_every=0)
    run(tmp_path / "whole", settings, wrap=bug)
    stopped_twice(run, tmp_path / "stopped", settings, wrap=bug)
    with pytest.raises(AssertionError):
        same_run(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("forgotten", ["random states", "moments", "lines"])
def test_what_is_forgotten_is_caught(forgotten, run, plan, tmp_path, monkeypatch):
    settings = plan(evaluate_every=0)
    run(tmp_path / "whole", settings)
    nothing = lambda *_: None  # noqa: E731
    if forgotten == "random states":
        monkeypatch.setattr(checkpoint, "restore_random_states", nothing)
    if forgotten == "moments":
        monkeypatch.setattr(checkpoint, "load_moments", nothing)
    if forgotten == "lines":
        monkeypatch.setattr(metrics, "_open_after", lambda path, _: path.open("a"))
    stopped_twice(run, tmp_path / "stopped", settings)
    with pytest.raises(AssertionError):
        same_run(tmp_path / "whole", tmp_path / "stopped")


def test_the_same_objects_may_go_on_in_a_notebook(small, reader, plan, tmp_path):
    """Ctrl-C comes between backward() and the step: gradients are left behind."""
    settings = plan()
    train(small(), reader(settings), settings, tmp_path / "whole", bar=False)
    model, loader = small(), reader(settings)

    def interrupted(groups):
        optimizer = torch.optim.AdamW(groups, fused=True, betas=(0.9, 0.95))
        steps = iter(range(6))

        def hook(optimizer, *_):
            if next(steps, None) is None:
                raise KeyboardInterrupt

        optimizer.register_step_pre_hook(hook)
        return optimizer

    with pytest.raises(KeyboardInterrupt):
        train(model, loader, settings, tmp_path / "it", make_optimizer=interrupted, bar=False)
    assert any(parameter.grad is not None for parameter in model.parameters())
    train(model, loader, settings, tmp_path / "it", bar=False)
    same_run(tmp_path / "whole", tmp_path / "it")


class Unhurried(Noisy):
    """However fast the machine, five steps take longer than it takes to pull the plug."""

    def forward(self, ids_BT, targets_BT):
        time.sleep(0.005)
        return super().forward(ids_BT, targets_BT)


def trained_until_killed(folder, config, settings, ids):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Qwen2(config, PARTS)
    loader = Loader(ids, settings.sequence_length, settings.batch_size, settings.seed)
    train(model, loader, settings, folder, objective=Unhurried(model), bar=False)


def test_after_kills_it_is_the_same_run(small, reader, plan, tmp_path):
    settings = plan(steps=60, checkpoint_every=5, keep_checkpoints=2, log_every=3)
    arguments = (small().config, settings, reader(settings)._ids)
    quick = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if quick else "spawn")
    if quick:
        context.set_forkserver_preload(["pytest", "torch._dynamo", "qwen2lite.train.loop"])

    def start(folder):
        process = context.Process(target=trained_until_killed, args=(folder, *arguments))
        process.start()
        return process

    start(tmp_path / "whole").join()
    chance, kills, folder = random.Random(0), 0, tmp_path / "killed"
    for _ in range(20):
        process, before = start(folder), latest(folder / "checkpoints")
        while process.is_alive() and latest(folder / "checkpoints") == before:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.05))
        process.kill()
        process.join()
        kills += process.exitcode != 0
        if process.exitcode == 0:
            break
    assert kills >= 3, "it was killed in the middle"
    same_run(tmp_path / "whole", folder)
