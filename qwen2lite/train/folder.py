"""The folder of a run: its checkpoints, what may not change between them, and the model at the end."""

import dataclasses
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train import checkpoint
from qwen2lite.train.gradients import Batch
from qwen2lite.train.processes import Alone
from qwen2lite.train.settings import TrainSettings, check_keys
from qwen2lite.weights.export import export

FREE = {
    "device", "compile", "cores", "optimizer", "evaluate_every", "evaluation_batches", "log_every",
    "checkpoint_every", "keep_checkpoints", "sample_every", "sample_prompts", "sample_tokens",
    "tensorboard", "parallel", "activation_checkpointing", "batch_size", "accumulation",
}  # fmt: skip
"""Settings that don't change what is learnt: a resumed run may have other values. Of batches only the
sequences of a step count, so half as many a process on twice as many processes is the same run."""


def check_may_change(names: Collection[str]) -> None:
    """Raises ValueError for the first name that no setting has, and says which is nearest."""
    known = [f.name for kind in (TrainSettings, Qwen2Config) for f in dataclasses.fields(kind)]
    check_keys(names, [*known, "sequences_per_step"], "may_change")


class Place(Protocol):
    """What is saved of a loader: its place among the batches."""

    def state_dict(self) -> dict[str, Any]:
        """Of kinds that JSON has."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes there."""


class RunFolder:
    """Saves and resumes a run.

    Args:
        path: the folder; made if need be.
        model: in training.
        optimizer: the model's.
        loader: of the batches.
        settings: of the run.
        tokenizer: whose vocabulary the batches are in, if known.
        processes: this process's role; None is alone. All call the methods, and the first writes.
    """

    def __init__(
        self,
        path: Path,
        model: Qwen2,
        optimizer: torch.optim.Optimizer,
        loader: Place,
        settings: TrainSettings,
        tokenizer: Qwen2Tokenizer | None = None,
        processes: Alone | None = None,
    ):
        self.path, self.model, self.optimizer, self.loader = path, model, optimizer, loader
        self.settings, self.tokenizer = settings, tokenizer
        self.processes = processes or Alone(model.device)
        self.checkpoints = path / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def resume(self, may_change: Collection[str] = ()) -> int:
        """Loads the newest checkpoint, if there is one, and returns how many steps it has made.

        Raises:
            ValueError: it was made with another vocabulary, config, corpus or settings, or is damaged.
        """
        newest, now = checkpoint.latest(self.checkpoints), self._identity()
        needed = (*now, "loader", "random")
        state: dict[str, Any] = checkpoint.read_state(newest, needed) if newest else {"step": 0}
        self.processes.agree(state["step"], f"the newest step in {self.checkpoints}")
        if newest is None:
            return 0
        for what in now:
            one = what.removesuffix("s")  # "another setting"
            checkpoint.refuse_changes(state[what], now[what], one, FREE | set(may_change))
        self.loader.load_state_dict(state["loader"])
        self.processes.load(newest, self.model, self.optimizer)
        checkpoint.restore_random_states(state["random"])
        return state["step"]

    def save(self, step: int) -> None:
        """Makes a checkpoint after `step` updates."""
        state = {
            **self._identity(),
            "loader": self.loader.state_dict(),
            "random": checkpoint.random_states(),
        }
        keep = self.settings.keep_checkpoints
        self.processes.save(self.checkpoints, step, self.model, self.optimizer, state, keep)

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was stopped."""
        vocabulary = self.tokenizer.vocabulary.fingerprint if self.tokenizer else None
        batches = self.settings.accumulation * self.processes.world_size
        sequences = {"sequences_per_step": self.settings.batch_size * batches}
        return {
            "vocabulary": {"fingerprint": vocabulary},
            "config": self.model.config.to_dict(),
            "settings": dataclasses.asdict(self.settings) | sequences,
        }

    def keep_batch(self, step: int, batches: Sequence[Batch]) -> Path:
        """Writes the batches of a step to a file, for a look at what went wrong with them."""
        process = f"-of-process-{self.processes.rank}" if self.processes.world_size > 1 else ""
        path = self.path / f"batch-{step:08}{process}.safetensors"
        tensors = {}
        for number, (ids_BT, targets_BT) in enumerate(batches):
            # Copied: a single row's ids and targets are the same memory, which no file may hold.
            tensors[f"ids.{number}"] = ids_BT.cpu().contiguous().clone()
            tensors[f"targets.{number}"] = targets_BT.cpu().contiguous().clone()
        save_file(tensors, path)
        return path

    def what_broke(self, step: int, loss: float, norm: float, batches: Sequence[Batch]) -> str:
        """Keeps the batches of a step that gave no number, and says where they are and what to do."""
        newest = checkpoint.latest(self.checkpoints)
        before = f"{newest} is from before it" if newest else "there is no checkpoint yet"
        return (
            f"step {step} broke: its loss is {loss} and the norm of its gradient {norm}. The weights "
            f"were not moved, its batch is in {self.keep_batch(step, batches)}, and {before}. Look "
            "at the batch, or resume with a lower learning_rate among the settings that may change"
        )

    def export(self) -> Path:
        """Writes the model as a Hugging Face folder, in place of one from an earlier end."""
        folder = self.path / "model"
        whole = self.processes.gather(self.model)
        if self.processes.rank == 0:
            new = folder.with_name("model.new")
            shutil.rmtree(new, ignore_errors=True)
            export(whole, new, self.tokenizer)
            if folder.exists():
                shutil.rmtree(folder)
            new.replace(folder)
        self.processes.wait()
        return folder
