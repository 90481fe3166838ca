r"""Checkpoints of training: written aside, then renamed, so that a whole one is always there.

    checkpoints/
        step-00000200/
            model.safetensors       the weights, and buffers that belong to the model
            optimizer.safetensors   AdamW's running means: NAME/exp_avg, NAME/exp_avg_sq, NAME/step
            state.json              the step, the loader's place, random states, and what was trained
        .step-00000400.part/        half written: nobody reads it, the next save removes it

A rename happens at once or not at all, but only what has reached the disk survives a power cut: so
each file is synced before the folder is renamed, and the folder's parent after it.
"""

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

_NAME = re.compile(r"step-(\d{8,})")
DAMAGED = "is damaged; delete that folder, and training goes on from the one before it"


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Writes a checkpoint, then removes old ones.

    Args:
        folder: holds the checkpoints of one run.
        step: updates made.
        model: whose weights.
        optimizer: of those weights.
        state: whatever else is to come back, of kinds that JSON has.
        keep: the newest so many stay, 1 or more.

    Returns:
        The new checkpoint's folder.

    Raises:
        OSError: the disk is full or not writable. Earlier checkpoints are as they were.
        ValueError: a checkpoint of this step is there already.
    """
    with aside(folder, step, keep) as part:
        _write_tensors(part / "model.safetensors", tensors(model))
        _write_tensors(part / "optimizer.safetensors", moments(model, optimizer))
        write_state(part, step, state)
    return _named(folder, step)


@contextmanager
def aside(folder: Path, step: int, keep: int = 2) -> Iterator[Path]:
    """Gives `part_of(folder, step)` to write into. After the block it is a checkpoint, and old ones go.

    Arguments and errors are those of `save`.
    """
    final, part = _named(folder, step), part_of(folder, step)
    if final.exists():
        raise ValueError(
            f"{final} is there already; nothing is overwritten: delete it, or resume it"
        )
    try:
        _remove_parts(folder)
        part.mkdir(parents=True)
        yield part
        for file in part.iterdir():
            _sync(file)
        _sync(part)
        part.replace(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OSError(
            f"the checkpoint of step {step} can't be written to {folder} ({error}); make room and "
            f"resume: {_last_good(folder)}"
        ) from None
    for old in _whole(folder)[:-keep]:
        # Half removed it would look whole, so it loses its name first.
        old.replace(folder / f".{old.name}.part")
    _remove_parts(folder)


def part_of(folder: Path, step: int) -> Path:
    """Where a checkpoint is while it is being written."""
    return folder / f".{_named(folder, step).name}.part"


def write_state(part: Path, step: int, state: dict[str, Any]) -> None:
    """Writes what `read_state` reads."""
    (part / "state.json").write_text(json.dumps({"step": step, **state}), encoding="utf-8")


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint, or None where there is none."""
    whole = _whole(folder)
    return whole[-1] if whole else None


def read_state(checkpoint: Path, needed: Collection[str] = ()) -> dict[str, Any]:
    """What was given to `save` as `state`, and "step".

    Args:
        checkpoint: a folder from `save` or `latest`.
        needed: names that must be in it.

    Raises:
        ValueError: damaged.
    """
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        return {name: state[name] for name in needed} | state | {"step": int(state["step"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{checkpoint / 'state.json'} {DAMAGED} ({error})") from None


def load(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts a checkpoint's numbers into a model and its optimizer.

    Args:
        checkpoint: a folder from `save` or `latest`.
        model: of the same shape.
        optimizer: of that model; either AdamW reads what the other wrote.

    Raises:
        ValueError: damaged, or of another model.
    """
    weights, mine = _read_tensors(checkpoint / "model.safetensors"), tensors(model)
    shapes = {name: list(tensor.shape) for name, tensor in weights.items()}
    refuse_another_model(checkpoint, shapes, mine)
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(weights[name])
    load_moments(_read_tensors(checkpoint / "optimizer.safetensors"), model, optimizer)


def refuse_another_model(
    checkpoint: Path, shapes: dict[str, list[int]], mine: dict[str, torch.Tensor]
) -> None:
    """Raises ValueError where a checkpoint's shapes aren't those of this model's tensors."""
    wanted = {name: list(tensor.shape) for name, tensor in mine.items()}
    if shapes != wanted:
        odd = next(n for n in {**wanted, **shapes} if shapes.get(n) != wanted.get(n))
        raise ValueError(
            f"{checkpoint} is of another model: {odd} is {shapes.get(odd, 'not there')} in it and "
            f"{wanted.get(odd, 'not there')} here; use the config it was trained with"
        )


def refuse_changes(
    saved: dict[str, Any], now: dict[str, Any], what: str, free: Collection[str] = ()
) -> None:
    """Raises ValueError where two dictionaries differ, naming the first field that does.

    Args:
        saved: from a checkpoint.
        now: of this run.
        what: the dictionary's name, for the message.
        free: fields that may differ.
    """
    now = json.loads(json.dumps(now))  # a tuple comes back from JSON as a list
    for name in {**saved, **now}:
        if name not in free and saved.get(name) != now.get(name):
            raise ValueError(
                f"can't resume with another {what}: {name} was {saved.get(name)!r} and is "
                f"{now.get(name)!r}; set it back, or train into a new folder"
            )


def random_states() -> dict[str, str]:
    """The states of PyTorch's random generators, as hexadecimal digits."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return {name: state.numpy().tobytes().hex() for name, state in states.items()}


def restore_random_states(states: dict[str, str]) -> None:
    """Puts back what `random_states` gave, where the device is there."""
    tensors = {
        n: torch.frombuffer(bytearray.fromhex(s), dtype=torch.uint8) for n, s in states.items()
    }
    torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])


def _named(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08}"


def _whole(folder: Path) -> list[Path]:
    """Finished checkpoints, oldest first: only those bear the name."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _last_good(folder: Path) -> str:
    path = latest(folder)
    return f"{path.name} is whole" if path else "no earlier checkpoint is there"


def _remove_parts(folder: Path) -> None:
    for part in folder.glob(".step-*.part"):
        shutil.rmtree(part)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows syncs no folders, and doesn't need to
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} {DAMAGED} ({error})") from None


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """What the model's state_dict holds, each tensor once though it may be tied."""
    once = {name for name, _ in [*model.named_parameters(), *model.named_buffers()]}
    return {name: tensor for name, tensor in model.state_dict().items() if name in once}


def moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's means, each under its parameter's name, a slash and its own."""
    named = {name: optimizer.state.get(p, {}) for name, p in model.named_parameters()}
    return {f"{name}/{key}": t for name, state in named.items() for key, t in state.items()}


def load_moments(
    moments: dict[str, torch.Tensor], model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Through load_state_dict, which puts each tensor where this optimizer wants it.

    There parameters are numbered in the order of the groups.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    ordered = [names[p] for group in optimizer.param_groups for p in group["params"]]
    states: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in moments.items():
        name, _, kind = key.rpartition("/")
        # Cloned: as it was read it is the file itself, which Windows then wouldn't remove.
        states.setdefault(ordered.index(name), {})[kind] = tensor.clone()
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
