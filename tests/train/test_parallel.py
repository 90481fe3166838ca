"""Many processes make the run of one, and nothing is lost when one of them dies."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from qwen2lite import Qwen2
from qwen2lite.train import checkpoint, loop, parallel
from qwen2lite.train.metrics import read_metrics
from qwen2lite.train.parallel import join
from qwen2lite.train.processes import Alone
from tests.train.many_processes import (
    CASES,
    DENSE,
    SETTINGS,
    Uneven,
    new_model,
    run,
    stopped_after_four,
)

ROOT = Path(__file__).parents[2]
RIGHT = ("plain", "all", "sparse", "sparse_all", "biased", "by_hand", "bfloat16", "sample", "seeds")
WRONG = {
    "ddp": ("summed", "not_averaged", "same_share", "mean_of_means", "idle_moved"),
    "fsdp": ("summed", "local_clip"),
}
ON_TWO = [
    *[f"alone-{name}" for name in (*RIGHT, "recompute", "grouped")],
    *[f"{parallel}-{name}" for parallel in WRONG for name in (*RIGHT, *WRONG[parallel])],
    "ddp-resume:ddp-plain-2",
    "fsdp-resume:fsdp-plain-2",
    "fsdp-resume:ddp-plain-2",
    "ddp-resume:fsdp-plain-2",
    "ddp-different_folders:ddp-plain-2",
    "fsdp-meta",
    "fsdp-grouped",
    "fsdp-grouped_bfloat16",
    "fsdp-sample_bfloat16",
    "fsdp-full_disk",
    "fsdp-in_turn",
    "ddp-memory",
    "fsdp-memory",
]
ON_FOUR = ["ddp-all", "fsdp-all", "fsdp-sparse_all", "fsdp-resume:fsdp-plain-2"]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="not checked: torchrun on Windows")


def torchrun(
    number: int, folder: Path, *cases: str, patience: float = 0.1
) -> subprocess.CompletedProcess:
    """After so many seconds of patience with a process that has died, torchrun ends the others."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command.append(f"--monitor-interval={patience}")
    worker = str(ROOT / "tests" / "train" / "many_processes.py")
    return subprocess.run(
        [*command, f"--nproc-per-node={number}", worker, str(folder), *cases],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The folder with the runs of two processes and, going on from some of them, of four."""
    folder = tmp_path_factory.mktemp("runs")
    for number, cases in ((2, ON_TWO), (4, ON_FOUR)):
        done = torchrun(number, folder, *cases)
        assert not done.returncode, done.stderr[:6000]
    return folder


def numbers(folder: Path, after: int = 0) -> list[float]:
    """Losses, norms of the gradient and held-out losses."""
    names = ("loss", "gradient_norm", "held_out_loss")
    lines = [line for line in read_metrics(folder / "metrics.jsonl") if line["step"] > after]
    return [line[name] for line in lines for name in names if name in line]


def difference(folder: Path, other: Path, after: int = 0) -> float:
    """The largest, relative, of any number of two runs."""
    pairs = list(zip(numbers(folder, after), numbers(other, after), strict=True))
    assert len(pairs) >= 12
    return max(abs(a - b) / abs(b) for a, b in pairs)


@pytest.mark.parametrize("name", [name for name in RIGHT if name != "bfloat16"])
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_make_the_losses_of_one(parallel, name, runs):
    assert difference(runs / f"{parallel}-{name}-2", runs / f"alone-{name}-1") <= 1e-5


def test_only_process_0_needs_the_weights(runs):
    assert difference(runs / "fsdp-meta-2", runs / "alone-plain-1") <= 1e-5


@pytest.mark.parametrize("case", ["ddp-all", "fsdp-all", "fsdp-sparse_all"])
def test_four_processes_make_the_losses_of_one(case, runs):
    assert difference(runs / f"{case}-4", runs / f"alone-{case.partition('-')[2]}-1") <= 1e-5


def test_stacked_experts_are_sharded_too(runs):
    assert difference(runs / "fsdp-grouped-2", runs / "alone-grouped-1") <= 1e-5


@pytest.mark.parametrize("case", ["ddp-bfloat16", "fsdp-bfloat16", "fsdp-grouped_bfloat16"])
def test_bfloat16_is_near(case, runs):
    """FSDP sends layers rounded, so norms are rounded where autocast leaves them."""
    exact = "grouped" if "grouped" in case else "plain"
    assert 0 < difference(runs / f"{case}-2", runs / f"alone-{exact}-1") <= 0.02


@pytest.mark.parametrize(("parallel", "name"), [(p, n) for p in WRONG for n in WRONG[p]])
def test_mistakes_show(parallel, name, runs):
    right = "sparse" if "config" in CASES[name] else "plain"
    assert difference(runs / f"{parallel}-{name}-2", runs / f"alone-{right}-1") > 1e-4


def test_targets_were_uneven_and_experts_idle(runs):
    """Else the tests above would pass without either being right."""
    moments = load_file(runs / "alone-sparse-1" / "checkpoints/step-00000010/optimizer.safetensors")
    steps = [int(t) for name, t in moments.items() if "experts" in name and name.endswith("/step")]
    assert min(steps) < max(steps) == SETTINGS.steps


def test_the_first_process_alone_writes_texts_and_models(runs):
    one = runs / "alone-sample-1"
    said = [line["sample"] for line in read_metrics(one / "metrics.jsonl") if "sample" in line]
    for folder in (runs / "ddp-sample-2", runs / "fsdp-sample-2"):
        lines = read_metrics(folder / "metrics.jsonl")
        assert [line["sample"] for line in lines if "sample" in line] == said
        assert len(lines) == len(read_metrics(one / "metrics.jsonl"))
        assert {p.name for p in folder.iterdir()} == {"checkpoints", "metrics.jsonl", "model"}
        ours, theirs = (
            Qwen2.from_pretrained(f / "model", dtype=torch.float32, device="cpu")
            for f in (folder, one)
        )
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_shares_in_bfloat16_write_texts_too(runs):
    lines = read_metrics(runs / "fsdp-sample_bfloat16-2" / "metrics.jsonl")
    assert [line["step"] for line in lines if "sample" in line] == [1, 2]


def test_each_process_holds_a_share(runs):
    files = list((runs / "fsdp-plain-2/checkpoints/step-00000010").glob("*.safetensors"))
    whole = runs / "ddp-plain-2/checkpoints/step-00000010"
    size = sum((whole / f"{name}.safetensors").stat().st_size for name in ("model", "optimizer"))
    assert len(files) == 2
    for file in files:
        assert file.stat().st_size == pytest.approx(size / 2, rel=0.25)  # headers included


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_as_many_processes_resume_to_the_last_bit(parallel, runs):
    before, after = (
        runs / f"{parallel}-plain-2",
        runs / f"{parallel}-resume-of-{parallel}-plain-2-2",
    )
    assert numbers(after) == numbers(before, after=4)
    ours, theirs = (load_file(f / "model" / "model.safetensors") for f in (after, before))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "resumed", ["fsdp-resume-of-fsdp-plain-2-4", "fsdp-resume-of-ddp-plain-2-2",
                "ddp-resume-of-fsdp-plain-2-2"],
)  # fmt: skip
def test_others_resume_with_the_same_losses(resumed, runs):
    assert difference(runs / resumed, runs / "fsdp-plain-2", after=4) <= 1e-5


def test_one_process_resumes_what_many_began(runs, tmp_path):
    stopped_after_four(runs / "fsdp-plain-2", tmp_path)
    run(tmp_path, Alone(torch.device("cpu")), "plain")
    assert difference(tmp_path, runs / "fsdp-plain-2", after=4) <= 1e-5


def test_another_number_of_sequences_is_refused(runs, tmp_path, reader):
    stopped_after_four(runs / "ddp-plain-2", tmp_path)
    settings = dataclasses.replace(SETTINGS, batch_size=4)
    with pytest.raises(ValueError, match="sequences_per_step was 8 and is 4"):
        loop.train(new_model(DENSE), reader(settings), settings, tmp_path, bar=False)


def test_a_missing_share_is_noticed(runs, tmp_path):
    stopped_after_four(runs / "fsdp-plain-2", tmp_path)
    next(tmp_path.rglob("shard-00002*")).unlink()
    with pytest.raises(ValueError, match=r"damaged.*there is no shard-00002"):
        run(tmp_path, Alone(torch.device("cpu")), "plain")


def test_a_full_disk_leaves_the_checkpoint_before(runs):
    folder = runs / "fsdp-full_disk-2"
    for rank in (0, 1):
        assert "process 1: No space left" in (folder / f"error-{rank}.txt").read_text("utf-8")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000004"]


def test_folders_that_are_not_shared_are_noticed(runs):
    folder = runs / "ddp-different_folders-of-ddp-plain-2-2"
    for rank, step in ((0, 4), (1, 0)):
        message = (folder / f"error-{rank}.txt").read_text("utf-8")
        assert f"is {step} on process {rank}" in message and "[4, 0]" in message


def test_process_0_goes_first(runs):
    names = sorted(path.name for path in (runs / "fsdp-in_turn-2").iterdir())
    assert names == ["0-found-0", "1-found-1"]


def test_processes_leave_without_pythons_way_out(runs):
    """In which a thread that is late with a tensor aborts the process now and then."""
    assert not (runs / "ended-by-python").exists()


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("Timed out waiting 1800000ms for send operation to complete", "run, which is silent;"),
        ("Connection closed by peer [127.0.0.1]:30108", "run, which has ended;"),
    ],
)
def test_a_process_that_is_silent_has_not_ended(reason, says, monkeypatch):
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    for name in ("init_process_group", "get_rank", "get_world_size"):
        monkeypatch.setattr(dist, name, lambda: 1)
    ddp = dataclasses.replace(SETTINGS, parallel="ddp")
    with pytest.raises(ConnectionError, match=f"process 1 waits in vain for .*{says}"), join(ddp):
        raise RuntimeError(f"[gloo/transport/tcp/pair.cc:553] {reason}")


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_the_first_gpu_is_left_alone_by_the_second_process(name, monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    # It puts a number on the current GPU, which is the first one until another is chosen.
    monkeypatch.setattr(parallel, "pick_device", lambda name: pytest.fail("it was used") if not chosen
                        else torch.device("cuda"))  # fmt: skip
    assert parallel._own_device(name, 1) == torch.device("cuda", 1) and chosen == [1]
    with pytest.raises(ValueError, match="process 2 of this machine has no GPU, there are 2"):
        parallel._own_device(name, 2)
    monkeypatch.setattr(parallel, "pick_device", torch.device)
    assert parallel._own_device("cpu", 2) == torch.device("cpu"), "which all processes share"


def test_a_killed_process_ends_the_run_and_the_checkpoint_loads(runs, tmp_path):
    ended = torchrun(2, tmp_path, "fsdp-killed", patience=2)  # so that the other can say something
    folder = tmp_path / "fsdp-killed-2"
    assert ended.returncode
    assert "another process of this run, which has ended" in ended.stderr
    newest = checkpoint.latest(folder / "checkpoints")
    assert newest is not None and newest.name == "step-00000004"
    run(folder, Alone(torch.device("cpu")), "plain")
    assert difference(folder, runs / "fsdp-plain-2") <= 1e-5


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_memory_is_what_was_planned(parallel, runs):
    """Within 12 %: at this size a layer more or less on its way from another process counts."""
    for found in (runs / f"{parallel}-memory-2").iterdir():
        for case, (measured, planned) in json.loads(found.read_text("utf-8")).items():
            print(f"{parallel} {case}: {planned / measured:.3f} of {measured:,} bytes")
            assert planned == pytest.approx(measured, rel=0.12)


def test_recomputing_changes_no_bit(runs):
    assert numbers(runs / "alone-recompute-1") == numbers(runs / "alone-plain-1")


def test_what_torchrun_started_must_suit_the_settings(monkeypatch, tmp_path, reader):
    ddp = dataclasses.replace(SETTINGS, parallel="ddp")
    with pytest.raises(ValueError, match="start them with `torchrun"), join(ddp):
        pass
    with pytest.raises(ValueError, match="was given no processes"):
        loop.train(new_model(DENSE), Uneven(reader(ddp)), ddp, tmp_path, bar=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="set parallel to 'ddp' or 'fsdp'"), join(SETTINGS):
        pass
    with pytest.raises(ValueError, match="parallel must be one of none, ddp, fsdp"):
        dataclasses.replace(SETTINGS, parallel="tensor")
    monkeypatch.delenv("WORLD_SIZE")
    with join(SETTINGS) as processes:
        assert (processes.rank, processes.world_size) == (0, 1)
