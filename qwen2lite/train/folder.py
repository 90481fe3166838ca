"""The folder of a run: its checkpoints, what may not change between them, and the model at the end."""

import dataclasses
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file

from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train import checkpoint
from qwen2lite.train.gradients import Batch
from qwen2lite.train.settings import TrainSettings
from qwen2lite.weights.export import export

FREE = {
    "device", "compile", "cores", "optimizer", "evaluate_every", "evaluation_batches", "log_every",
    "checkpoint_every", "keep_checkpoints", "sample_every", "sample_prompts", "sample_tokens",
    "tensorboard",
}  # fmt: skip
"""Settings that don't change what is learnt: a resumed run may have other values."""


class Loader(Protocol):
    """What is saved of a loader: its place."""

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
    """

    def __init__(
        self,
        path: Path,
        model: Qwen2,
        optimizer: torch.optim.Optimizer,
        loader: Loader,
        settings: TrainSettings,
        tokenizer: Qwen2Tokenizer | None = None,
    ):
        self.path, self.model, self.optimizer, self.loader = path, model, optimizer, loader
        self.settings, self.tokenizer = settings, tokenizer
        self.checkpoints = path / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def resume(self, may_change: Collection[str] = ()) -> int:
        """Loads the newest checkpoint, if there is one, and returns how many steps it has made.

        Raises:
            ValueError: it was made with another vocabulary, config, corpus or settings.
        """
        newest = checkpoint.latest(self.checkpoints)
        if newest is None:
            return 0
        state, now = checkpoint.read_state(newest), self._identity()
        for what in ("vocabulary", "config", "settings"):
            checkpoint.refuse_changes(state[what], now[what], what, FREE | set(may_change))
        self.loader.load_state_dict(state["loader"])
        checkpoint.load(newest, self.model, self.optimizer)
        checkpoint.restore_random_states(state["random"])
        return state["step"]

    def save(self, step: int) -> Path:
        """Makes a checkpoint after `step` updates."""
        state = {
            **self._identity(),
            "loader": self.loader.state_dict(),
            "random": checkpoint.random_states(),
        }
        keep = self.settings.keep_checkpoints
        return checkpoint.save(self.checkpoints, step, self.model, self.optimizer, state, keep)

    def _identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that was stopped."""
        vocabulary = self.tokenizer.vocabulary.fingerprint if self.tokenizer else None
        return {
            "vocabulary": {"fingerprint": vocabulary},
            "config": self.model.config.to_dict(),
            "settings": dataclasses.asdict(self.settings),
        }

    def keep_batch(self, step: int, batches: Sequence[Batch]) -> Path:
        """Writes the batches of a step to a file, for a look at what went wrong with them."""
        path = self.path / f"batch-{step:08}.safetensors"
        tensors = {}
        for number, (ids_BT, targets_BT) in enumerate(batches):
            tensors[f"ids.{number}"] = ids_BT.cpu().contiguous()
            tensors[f"targets.{number}"] = targets_BT.cpu().contiguous()
        save_file(tensors, path)
        return path

    def export(self) -> Path:
        """Writes the model as a Hugging Face folder, in place of one from an earlier end."""
        folder = self.path / "model"
        new = folder.with_name("model.new")
        shutil.rmtree(new, ignore_errors=True)
        export(self.model, new, self.tokenizer)
        if folder.exists():
            shutil.rmtree(folder)
        return new.replace(folder)
