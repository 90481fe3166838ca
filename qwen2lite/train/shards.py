r"""Fully sharded training (FSDP2): each process keeps a share of every weight.

With W processes, weights, gradients and AdamW's two means take 1/W of their bytes on each. A layer is
gathered from all processes just before it computes, and let go after; its gradient is averaged and
cut into shares at once. What one process computes is what it would compute alone.

A checkpoint holds one file a process, with its shares; `DTensor` knows which part of a weight they
are. Read back by another number of processes, or by one alone, each takes the parts that it needs:

    step-00000200/
        shard-00001-model-00001-of-00001.safetensors    shares of process 0, named as in checkpoint.py
        shard-00002-model-00001-of-00001.safetensors    …
        state.json                                      with the names of all shards

Source: arXiv 2304.11277, section 3; the shares: arXiv 1910.02054, section 5.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import DecoderLayer
from qwen2lite.train import checkpoint
from qwen2lite.train.idle import IdleExperts
from qwen2lite.train.processes import Copies


@dataclass(frozen=True)
class Gathered:
    """A model's config and whole weights, which is what `export` asks for."""

    config: Qwen2Config
    tensors: dict[str, torch.Tensor]

    def named_parameters(self) -> Any:
        """Names and tensors, on the CPU."""
        return self.tensors.items()


class Shards(Copies):
    """One of several processes that each hold a share of every weight."""

    _root: FSDPModule
    """The objective: embedding, final norm and output layer are its own, and gathered together."""

    def wrap(self, objective: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Cuts the model into shares, a layer at a time, so that no GPU ever holds all of it.

        All processes get the weights of process 0. The others may have built their model on the
        "meta" device, where it takes no memory.
        """
        mesh = dist.init_device_mesh(self.device.type, (self.world_size,))
        self._idle = IdleExperts(objective)
        # A layer travels in the products' format; gradients are averaged in float32.
        low = None if dtype == torch.float32 else dtype
        policy = MixedPrecisionPolicy(low, torch.float32, cast_forward_inputs=False)
        sent: set[nn.Module] = set()
        for layer in [part for part in objective.modules() if isinstance(part, DecoderLayer)]:
            self._send(layer, sent)
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        self._send(objective, sent)
        self._root = fully_shard(objective, mesh=mesh)
        return objective

    def _send(self, module: nn.Module, sent: set[nn.Module]) -> None:
        """Makes a module's numbers on all processes those of process 0."""
        for part in [part for part in module.modules() if part not in sent]:
            own = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
            if any(tensor.is_meta for tensor in own):
                part.to_empty(device=self.device, recurse=False)
            else:
                part._apply(lambda tensor: tensor.to(self.device), recurse=False)
            for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)):
                dist.broadcast(tensor.detach(), 0)
            sent.add(part)

    def exchange(self, objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Averages after every batch: whole gradients, kept until the last, wouldn't fit."""
        return nullcontext()

    def whole(self, number: torch.Tensor) -> torch.Tensor:
        """Adds the parts that the processes have of it."""
        return number.full_tensor() if isinstance(number, DTensor) else number

    @contextmanager
    def speaking(self, model: nn.Module) -> Iterator[None]:
        """Gathers what is the root's own; the layers gather themselves when they are called."""
        self._root.unshard()
        yield
        self._root.reshard()

    def gather(self, model: Any) -> Any:
        """Brings one weight after the other to the CPU of process 0; the others keep none."""
        self._root.reshard()
        tensors = {}
        for name, parameter in model.named_parameters():
            tensor = parameter.detach().full_tensor()
            if self.rank == 0:
                tensors[name] = tensor.cpu()
        return Gathered(model.config, tensors)

    def save(
        self,
        folder: Path,
        step: int,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: dict[str, Any],
        keep: int = 2,
    ) -> None:
        """Each process writes its shares; when all have, process 0 gives the folder its name."""
        self._root.reshard()
        tensors = {**checkpoint.tensors(model), **checkpoint.moments(model, optimizer)}
        part = checkpoint.part_of(folder, step)
        with checkpoint.aside(folder, step, keep) if self.rank == 0 else nullcontext():
            self.wait()  # for the folder
            writer = dcp.HuggingFaceStorageWriter(str(part), save_distributed=True)
            try:
                dcp.save(tensors, storage_writer=writer)
            except dcp.CheckpointException as error:
                reasons = [f"process {n}: {cause}" for n, (cause, _) in error.failures.items()]
                raise OSError("; ".join(reasons)) from None
            if self.rank == 0:
                files = sorted(file.name for file in part.iterdir())
                checkpoint.write_state(part, step, {**state, "files": files})
        self.wait()

    def load(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Takes this process's shares from whatever files the checkpoint has."""
        load(path, model, optimizer)


def load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Puts a checkpoint, of shares or whole, into a model of shares or a whole one.

    Arguments and errors are those of `checkpoint.load`. All processes of a run call it together.
    """
    reader = dcp.HuggingFaceStorageReader(str(path))
    try:
        saved: dict[str, Any] = reader.read_metadata().state_dict_metadata
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} {checkpoint.DAMAGED} ({error})") from None
    for file in checkpoint.read_state(path).get("files", ()):
        if not (path / file).exists():
            raise ValueError(f"{path} {checkpoint.DAMAGED} (there is no {file})")
    weights, means = checkpoint.tensors(model), {}
    shapes = {name: list(facts.size) for name, facts in saved.items() if "/" not in name}
    checkpoint.refuse_another_model(path, shapes, weights)
    for name in [name for name in saved if name not in shapes]:
        weight, size = weights[name.rpartition("/")[0]], saved[name].size
        means[name] = torch.zeros_like(weight) if size == weight.shape else torch.zeros(size)
    with warnings.catch_warnings():
        # One process alone may read shares: that is meant, and no oversight.
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load({**weights, **means}, storage_reader=reader)
    checkpoint.load_moments(means, model, optimizer)
