r"""The processes of a run, as the training loop sees them: one alone, or copies on many GPUs.

The loop is the same for all. Each process reads its own share of a step's sequences, makes the
gradient of it, and asks here for the mean over all. Then every process has the same gradient and
makes the same step, so that nothing else need ever be exchanged.

The mean is over all *targets* of the step, not over the processes' means: a process whose sequences
have few targets counts for less. With $n_r$ targets and a mean loss $\ell_r$ on process r of W,

$\ell = \frac{1}{N} \sum_r n_r \ell_r$ with $N = \sum_r n_r$.

PyTorch averages gradients over the processes, which divides by W. So process r multiplies its loss by
$W n_r / N$ before backward().
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from qwen2lite.train import checkpoint
from qwen2lite.train.idle import IdleExperts


class Alone:
    """The only process of a run.

    Args:
        device: where it computes.
    """

    rank = 0
    """This process among `world_size`, from 0. Process 0 writes files and shows progress."""
    world_size = 1
    """Processes that share each step."""

    def __init__(self, device: torch.device):
        self.device = device

    def wrap(self, objective: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Puts an objective on its device, and gives it back such that gradients are averaged.

        Args:
            objective: holds the model.
            dtype: of the matrix products.
        """
        return objective.to(self.device)

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of this tensor over all processes, in place."""
        return x

    def exchange(self, objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """The context of one batch's forward and backward pass; after the last the means are made.

        Args:
            objective: from `wrap`.
            last: whether it is the step's last batch.
        """
        return nullcontext()

    def settle(self) -> None:
        """Ends the backward passes of a step."""

    def whole(self, number: torch.Tensor) -> torch.Tensor:
        """A number that was computed from the model's weights or gradients, wherever they are."""
        return number

    def speaking(self, model: nn.Module) -> AbstractContextManager[Any]:
        """The context in which the model itself may be called, not through the objective."""
        return nullcontext()

    def gather(self, model: Any) -> Any:
        """What `export` writes on process 0; all processes call it."""
        return model

    def first(self) -> AbstractContextManager[Any]:
        """Process 0 goes through the block, then the others: what it writes they find."""
        return nullcontext()

    def wait(self) -> None:
        """Until all processes are here."""

    def agree(self, number: int, what: str) -> None:
        """Raises ValueError where the processes don't have the same number.

        Args:
            number: of this process.
            what: the number's name, for the message.
        """

    def save(self, folder: Path, step: int, *rest: Any) -> None:
        """Makes a checkpoint; see `checkpoint.save` for the arguments."""
        checkpoint.save(folder, step, *rest)

    def load(self, path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Reads a checkpoint, whichever number of processes wrote it; see `checkpoint.load`."""
        if (path / "model.safetensors").exists():
            checkpoint.load(path, model, optimizer)
        else:
            from qwen2lite.train import shards  # loads PyTorch's distributed checkpoints: 1 s

            shards.load(path, model, optimizer)


class Copies(Alone):
    """One of several processes that each hold the whole model (DDP).

    While backward() is still busy with the early layers, the gradients of the late ones are already
    on their way.
    """

    def __init__(self, device: torch.device):
        super().__init__(device)
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self._idle: IdleExperts | None = None

    def wrap(self, objective: nn.Module, dtype: torch.dtype) -> nn.Module:
        """Gives all processes the weights of process 0."""
        objective.to(self.device)
        self._idle = IdleExperts(objective)
        where = [self.device] if self.device.type == "cuda" else None
        # The buckets that are sent become the gradients themselves.
        return DistributedDataParallel(objective, device_ids=where, gradient_as_bucket_view=True)

    def total(self, x: torch.Tensor) -> torch.Tensor:
        """Waits for all processes."""
        dist.all_reduce(x)
        return x

    def exchange(self, objective: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """Before the last batch gradients are only added up here."""
        return nullcontext() if last else objective.no_sync()  # type: ignore[operator]

    def settle(self) -> None:
        """Experts that no process used get no step."""
        if self._idle is not None:
            self._idle.settle(self.total)

    @contextmanager
    def first(self) -> Iterator[None]:
        """The others wait for process 0: a day, as a corpus may take longer than a sum is given."""
        patient = dist.new_group(backend="gloo", timeout=timedelta(days=1))
        if self.rank > 0:
            dist.barrier(patient)
        yield
        if self.rank == 0:
            dist.barrier(patient)

    def wait(self) -> None:
        """Until all processes are here."""
        self.total(torch.zeros(1))

    def agree(self, number: int, what: str) -> None:
        """Asks all processes; each of them raises."""
        numbers = torch.zeros(self.world_size, dtype=torch.long)
        numbers[self.rank] = number
        seen = self.total(numbers).tolist()
        if len(set(seen)) > 1:
            raise ValueError(
                f"{what} is {seen[self.rank]} on process {self.rank} and, from the first process to "
                f"the last, {seen}; all must read the same folder, on a disk that they share"
            )

    def save(self, folder: Path, step: int, *rest: Any) -> None:
        """Process 0 writes; the copies are equal."""
        if self.rank == 0:
            checkpoint.save(folder, step, *rest)
        self.wait()
