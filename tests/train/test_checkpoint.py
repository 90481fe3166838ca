"""A checkpoint is there whole or not at all: after a kill, on a full disk, at every operation."""

import errno
import json
import multiprocessing
import random
import shutil
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from torch import nn

from qwen2lite.train import checkpoint
from qwen2lite.train.checkpoint import latest, load, read_state, save
from qwen2lite.train.optim import AdamW

KILLS = 25


def filled(number, size=7):
    """A model and its optimizer in which every number is the same."""
    model = nn.Linear(size, 2 * size)
    optimizer = AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.data.fill_(number)
        state = {"exp_avg": number, "exp_avg_sq": number, "step": 0.0}
        optimizer.state[parameter] = {
            name: torch.full_like(parameter if value else torch.zeros(()), value)
            for name, value in state.items()
        }
        optimizer.state[parameter]["step"].fill_(number)
    return model, optimizer


def all_are_whole(folder, size=7):
    """Loads each checkpoint, in which all numbers must be its step; returns the newest one's."""
    step = 0
    for path in checkpoint._whole(folder):
        step = read_state(path)["step"]
        model, optimizer = filled(-1.0, size)
        load(path, model, optimizer)
        states = [tensor for p in model.parameters() for tensor in optimizer.state[p].values()]
        numbers = {n for t in [*model.parameters(), *states] for n in t.detach().flatten().tolist()}
        assert numbers == {step}
    assert latest(folder) == (path if step else None)
    return step


def in_place(folder, step, model, optimizer, state, keep=2):
    """What most training scripts do: the folder has its name before it has its content."""
    path = folder / f"step-{step:08}"
    path.mkdir(parents=True)
    (path / "state.json").write_text(json.dumps({"step": step, **state}), encoding="utf-8")
    checkpoint._write_tensors(path / "model.safetensors", checkpoint.tensors(model))
    moments = checkpoint.moments(model, optimizer)
    checkpoint._write_tensors(path / "optimizer.safetensors", moments)
    for old in checkpoint._whole(folder)[:-keep]:
        shutil.rmtree(old)


def old_ones_first(folder, step, model, optimizer, state, keep=2):
    """Makes room before there is a new one."""
    for old in checkpoint._whole(folder):
        shutil.rmtree(old)
    save(folder, step, model, optimizer, state, keep)


def save_until_killed(folder, how, size):
    torch.set_num_threads(1)
    for step in count(all_are_whole(folder, size) + 1):
        how(folder, step, *filled(float(step), size), {"x": "x" * 1000})


def kill_again_and_again(folder, how, kills, size=200):
    """Starts a process that saves without end, and kills it at a random moment."""
    chance, steps = random.Random(0), [0]
    folder.mkdir()
    # A process that forks is much quicker than one that imports torch anew; Windows has none.
    quick = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if quick else "spawn")
    if quick:
        # PyTorch imports _dynamo with the first optimizer: a second for each process.
        context.set_forkserver_preload(["pytest", "torch._dynamo", "qwen2lite.train.loop"])
    for _ in range(kills):
        process = context.Process(target=save_until_killed, args=(folder, how, size))
        process.start()
        before = latest(folder)
        while process.is_alive() and latest(folder) == before:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode not in (0, 1), "it was killed, and didn't end by itself"
        steps.append(all_are_whole(folder, size))
        assert steps[-1] > steps[-2]
        assert 1 <= len(checkpoint._whole(folder)) <= 3, "two, and one that was to be removed next"


def test_after_a_kill_all_are_whole(tmp_path):
    kill_again_and_again(tmp_path / "run", save, KILLS)


def test_a_kill_shows_that_saving_in_place_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="is damaged"):
        kill_again_and_again(tmp_path / "run", in_place, 4 * KILLS)


class Died(BaseException):
    """The process ends here: nothing catches it, as nothing catches a kill."""


def die_at(number, monkeypatch, error):
    """Lets the operation with this number fail, from 1; what writes has written half by then."""
    operations = count(1)

    def dying(function, half=None):
        def instead(*args, **kwargs):
            if next(operations) == number:
                if half:
                    half(*args[:2])
                raise error
            return function(*args, **kwargs)

        return instead

    def half_a_file(tensors, path):
        path.write_bytes(b"\x40\0\0\0\0\0\0\0{")

    def half_a_text(path, text):
        path.write_bytes(text.encode()[: len(text) // 2])

    def half_a_removal(path, *_):
        next(path.glob("*.safetensors"), path / "state.json").unlink()

    for owner, name, half in [
        (checkpoint, "save_file", half_a_file),
        (checkpoint.os, "fsync", None),
        (checkpoint.shutil, "rmtree", half_a_removal),
        (Path, "write_text", half_a_text),
        (Path, "mkdir", None),
        (Path, "replace", None),
    ]:
        monkeypatch.setattr(owner, name, dying(getattr(owner, name), half))
    return operations


def survives_everything(how, folder, error):
    """Fails at the first operation of the third save, then at the second, and so on to the last."""
    for number in count(1):
        shutil.rmtree(folder, ignore_errors=True)
        for step in (1, 2):
            how(folder, step, *filled(float(step)), {}, keep=1)
        with pytest.MonkeyPatch.context() as patch:
            operations = die_at(number, patch, error)
            try:
                how(folder, 3, *filled(3.0), {}, keep=1)
            except type(error) as caught:
                failed = caught
            else:
                return next(operations) - 1
        last = all_are_whole(folder)
        assert last in (2, 3), f"operation {number}"
        if last == 2 and not isinstance(failed, Died):
            assert "can't be written to" in str(failed) and "step-00000002 is whole" in str(failed)
        how(folder, 4, *filled(4.0), {}, keep=1)
        assert all_are_whole(folder) == 4
        assert [path.name for path in folder.iterdir()] == ["step-00000004"]


@pytest.mark.parametrize("error", [Died(), OSError(errno.ENOSPC, "No space left on device")])
def test_it_may_end_at_any_operation(error, tmp_path):
    assert survives_everything(save, tmp_path / "run", error) > 10


@pytest.mark.parametrize("bug", [in_place, old_ones_first])
def test_a_save_with_a_bug_does_not_survive(bug, tmp_path):
    with pytest.raises((AssertionError, ValueError)):
        survives_everything(bug, tmp_path / "run", Died())


def test_names_come_after_what_they_name_is_on_the_disk(tmp_path, monkeypatch):
    done = []
    sync, replace = checkpoint._sync, Path.replace
    monkeypatch.setattr(checkpoint, "_sync", lambda path: (sync(path), done.append(path.name)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (done.append("named"), replace(a, b))[1])
    save(tmp_path, 1, *filled(1.0), {})
    files = {"model.safetensors", "optimizer.safetensors", "state.json"}
    assert set(done[:3]) == files
    assert done[3:] == [".step-00000001.part", "named", tmp_path.name]


@pytest.mark.parametrize("room", [0, 100, 600, 1200])
def test_a_full_disk_leaves_the_earlier_ones(room, tmp_path):
    resource = pytest.importorskip("resource", reason="Windows limits no file's size")
    save(tmp_path, 1, *filled(1.0), {})
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            save(tmp_path, 2, *filled(2.0), {"x": "x" * 2000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the checkpoint of step 2 can't be written to" in str(caught.value)
    assert "make room and resume: step-00000001 is whole" in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    save(tmp_path, 2, *filled(2.0), {})
    assert all_are_whole(tmp_path) == 2


def test_a_full_disk_from_the_beginning(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="make room and resume: no earlier checkpoint is there"):
        save(tmp_path / "file", 1, *filled(1.0), {})


@pytest.mark.parametrize("keep", [1, 3])
def test_the_last_few_stay(keep, tmp_path):
    for step in (1, 2, 3, 9, 10, 99_999_999, 100_000_000):
        save(tmp_path, step, *filled(1.0), {}, keep)
    names = ["step-00000010", "step-99999999", "step-100000000"]
    assert {path.name for path in tmp_path.iterdir()} == set(names[-keep:])
    assert latest(tmp_path) == tmp_path / "step-100000000"


def test_what_is_not_a_checkpoint_is_left_alone(tmp_path):
    assert latest(tmp_path) is None and latest(tmp_path / "nowhere") is None
    for name in ("step-12", "step-00000099.bak", "my-step-00000099", ".step-00000099.part"):
        (tmp_path / name).mkdir()
    assert latest(tmp_path) is None
    save(tmp_path, 1, *filled(1.0), {}, keep=1)
    left = {"step-12", "step-00000099.bak", "my-step-00000099", "step-00000001"}
    assert {path.name for path in tmp_path.iterdir()} == left, "only what was half written goes"


def test_nothing_is_overwritten(tmp_path):
    save(tmp_path, 1, *filled(1.0), {})
    with pytest.raises(ValueError, match="step-00000001 is there already; nothing is overwritten"):
        save(tmp_path, 1, *filled(2.0), {})
    assert all_are_whole(tmp_path) == 1
