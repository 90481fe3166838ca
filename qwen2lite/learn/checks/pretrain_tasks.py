"""What the exercise 43_pretrain asks beside the step: to go on after a stop, to save, to measure."""

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn

from qwen2lite.learn.contract import Mistake, call, describe, require_number, told_by
from qwen2lite.learn.disk import Disk, PowerCut
from qwen2lite.learn.mutants.pretrain_tasks import MUTANTS
from qwen2lite.train.loader import Loader

Part = Callable[..., Any]


class _Run:
    """A small run whose every loss depends on weights, means, place and chance."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Embedding(11, 6), nn.Dropout(0.3), nn.Linear(6, 11))
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1)
        self.loader = Loader(np.random.default_rng(0).integers(11, size=200), 5, 2)

    def losses(self, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            ids_BT, targets_BT = next(self.loader)
            loss = nn.functional.cross_entropy(self.model(ids_BT).mT, targets_BT)
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            found.append(loss.item())
        return found

    def put(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.loader.load_state_dict(state["loader"])
        torch.set_rng_state(state["random"])


def check_snapshot(snapshot: Part) -> Iterator[str]:
    """Three steps, a snapshot, three more; then the same three again from the snapshot."""

    def losses(part: Part) -> tuple[list[float], list[float]]:
        """Of a run that wasn't stopped and of one that was, after the snapshot."""
        with torch.random.fork_rng(devices=[]):
            run = _Run()
            run.losses(3)
            state = call(part, run.model, run.optimizer, run.loader, name="snapshot")
            _require_keys(state)
            unstopped, again = run.losses(3), _Run()
            try:
                again.put(state)
            except Exception as error:
                raise Mistake(
                    f"What snapshot returned can't be loaded: {error}.",
                    "Each entry goes to the load_state_dict of its thing, and random to "
                    "torch.set_rng_state.",
                ) from error
            return unstopped, again.losses(3)

    unstopped, resumed = losses(snapshot)
    yield "weights, optimizer, loader and chance, and each can be loaded"
    if unstopped != resumed:
        why = next((told_by(m) for m in MUTANTS["snapshot"] if losses(m)[1] == resumed), "")
        place = next(i for i in range(3) if unstopped[i] != resumed[i])
        raise Mistake(
            f"Unstopped, the losses go on with {_numbers(unstopped)}; from the snapshot with "
            f"{_numbers(resumed)}. They part in step {place + 1}.",
            why,
        )
    yield "three steps from the snapshot: the losses of the run that went on, to the last bit"


def _require_keys(state: Any) -> None:
    wanted = {"model", "optimizer", "loader", "random"}
    if not isinstance(state, dict) or set(state) != wanted:
        got = ", ".join(map(str, state)) if isinstance(state, dict) else describe(state)
        raise Mistake(
            f"snapshot returned {got or 'an empty dict'}; a dict with "
            f"{', '.join(sorted(wanted))} was wanted."
        )


def _numbers(values: list[float]) -> str:
    return ", ".join(f"{value:.6f}" for value in values)


OLD, NEW = "the weights of step 100", "the weights of step 200"


def check_mended_save(mended_save: Part) -> Iterator[str]:
    """The power goes off before, in, and after each operation: the old file is there, or the new."""

    def left(part: Part, power: int | None, files: dict[str, str]) -> str | None:
        """What is found under the name when the power is back; None is no file."""
        disk = Disk(files, power)
        with suppress(PowerCut):
            part(disk, "model", NEW)
        return disk.after_a_power_cut().get("model")

    files = {"model": OLD}
    whole = Disk(files)
    # With `call` for what it says of errors and endless loops; it returns None, rightly.
    call(lambda disk: (mended_save(disk, "model", NEW), "done")[1], whole, name="mended_save")
    if whole.read("model") != NEW:
        raise Mistake(f"After saving, the file holds {whole.read('model')!r}; wanted {NEW!r}.")
    if extra := [name for name in whole.names() if name != "model"]:
        raise Mistake(f"Beside the file there is {', '.join(extra)} when all is done.")
    yield "undisturbed: the new content, and no other file"

    found = [left(mended_save, power, files) for power in range(12)]
    broken = [power for power, content in enumerate(found) if content not in (OLD, NEW)]
    if broken:
        mutants = MUTANTS["mended_save"]
        same = (m for m in mutants if [left(m, power, files) for power in range(12)] == found)
        what = "is gone" if found[broken[0]] is None else f"holds {found[broken[0]]!r}"
        raise Mistake(
            f"The power goes off in operation {broken[0] + 1}, and afterwards the file {what}.",
            next((told_by(mutant) for mutant in same), ""),
        )
    yield "wherever the power goes off, the old content or the new, whole"

    if left(mended_save, None, {}) != NEW:
        raise Mistake("Where there was no file before, the new one isn't safe after saving.")
    if left(mended_save, None, files | {"model.part": "half of it"}) != NEW:
        raise Mistake("A part left over from an earlier crash keeps the new file from being saved.")
    yield "also the first time, and after an earlier crash"


def check_bigram_perplexity(bigram_perplexity: Part) -> Iterator[str]:
    """Pairs by hand, some never seen, and a longer text by loops."""
    train = [1, 2, 1, 2, 1, 3]
    # Followed by something: 1 three times (2, 2, 3), 2 twice (1, 1); with 1 added each time.
    for text, want, what in (
        ([1, 2], 7 / 3, "after 1 came 2 twice of three times: (2 + 1) / (3 + 4)"),
        ([2, 1], 2, "after 2 came 1 both times: (2 + 1) / (2 + 4)"),
        ([1, 0], 7, "after 1 never came 0: (0 + 1) / (3 + 4)"),
        ([0, 2], 4, "nothing ever came after 0: (0 + 1) / (0 + 4)"),
        ([3, 2], 4, "the 3 is the last one, followed by nothing: (0 + 1) / (0 + 4)"),
        ([1, 2, 1, 0], (7 / 3 * 2 * 7) ** (1 / 3), "1 2 1 0: the third root of 7/3 · 2 · 7"),
    ):
        got = call(bigram_perplexity, list(train), list(text), 4)
        require_number(got, "bigram_perplexity")
        if not math.isclose(got, want, rel_tol=1e-6):
            raise Mistake(
                f"Counted in 1 2 1 2 1 3 with V = 4, the perplexity of "
                f"{' '.join(map(str, text))} is {want:.4f}, and yours is {got:.4f}.",
                _why(bigram_perplexity),
            )
        yield what


def _why(part: Part) -> str:
    """The known mistake that gives the same for a text in which all of them differ."""
    told = [0, 1, 1, 2, 0, 1, 3, 1, 2, 2, 0], [1, 2, 0, 3, 1, 1, 2, 2, 1], 5
    got = call(part, *told, name="bigram_perplexity")
    for mutant in MUTANTS["bigram_perplexity"]:
        if math.isclose(got, mutant(*told), rel_tol=1e-6):
            return told_by(mutant)
    return ""
