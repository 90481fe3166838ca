r"""The gradient of one step: averaged over batches and processes, and shared by the cores of a CPU."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from qwen2lite.train.loss import IGNORED
from qwen2lite.train.processes import Alone

Batch = tuple[torch.Tensor, torch.Tensor]
"""ids_BT and targets_BT."""


def targets_in(batch: Batch) -> int:
    """How many positions have a target."""
    return int((batch[1] != IGNORED).sum())


def targets_in_all(batches: Sequence[Batch], processes: Alone | None = None) -> int:
    """How many positions of several batches have a target, on all processes together.

    Raises:
        ValueError: none has, so there is nothing to take a mean of.
    """
    total = sum(targets_in(batch) for batch in batches)
    if processes is not None:
        total = int(processes.total(torch.tensor(total)))
    if not total:
        raise ValueError(
            f"no position in {len(batches)} batches has a target, all are {IGNORED}; look at how "
            "they were masked"
        )
    return total


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which matrix products are of that dtype; float32 changes nothing."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def accumulate(
    objective: nn.Module,
    batches: Sequence[Batch],
    dtype: torch.dtype = torch.float32,
    processes: Alone | None = None,
) -> torch.Tensor:
    """Adds the gradient of the mean loss over all batches to the `grad` of each parameter.

    The mean is over all targets of the step, so a batch counts by how many it has. With equal
    batches that is one over their number: left out, the gradient would be as many times too long.

    Args:
        objective: gives the mean loss of a batch, and 0 for one without targets.
        batches: of one step, on the objective's device.
        dtype: of the matrix products; other than float32, autocast picks which operations those are.
        processes: whose batches belong to the step too; None is this process alone.

    Returns:
        The step's mean loss, over all processes.

    Raises:
        ValueError: no batch has a target.
    """
    processes = processes or Alone(batches[0][0].device)
    total, losses = targets_in_all(batches, processes), []
    for number, batch in enumerate(batches, start=1):
        with processes.exchange(objective, last=number == len(batches)):
            with autocast(batch[0].device, dtype):
                share = targets_in(batch) / total * processes.world_size
                loss = objective(*batch) * share
            loss.backward()
        losses.append(loss.detach())
    processes.settle()
    return processes.total(torch.stack(losses).sum()) / processes.world_size


class Cores:
    """Does what `accumulate` does, with a share of every batch on each core of a CPU.

    PyTorch by itself splits every operation over the cores and then waits for all of them. A small
    model has thousands of small operations a step, and each wait lasts as long as the core that has
    something else to do. Split by sequences, the cores wait once a batch. The price is one gradient
    of the whole model for each.

    Args:
        workers: how many cores.
    """

    def __init__(self, workers: int):
        self.workers = workers
        self._threads = ThreadPoolExecutor(
            workers, initializer=torch.set_num_threads, initargs=(1,)
        )

    def accumulate(self, objective: nn.Module, batches: Sequence[Batch]) -> torch.Tensor:
        """See the function of this name. The shares are always added in the same order."""
        total = targets_in_all(batches)
        parameters = [p for p in objective.parameters() if p.requires_grad]

        def share(piece: Batch) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
            loss = objective(*piece) * (targets_in(piece) / total)
            return loss.detach(), torch.autograd.grad(loss, parameters, allow_unused=True)

        losses = []
        for ids_BT, targets_BT in batches:
            pieces = zip(ids_BT.chunk(self.workers), targets_BT.chunk(self.workers), strict=True)
            for loss, gradient in self._threads.map(share, pieces):
                losses.append(loss)
                _add(parameters, gradient)
        return torch.stack(losses).sum()


def _add(parameters: Sequence[nn.Parameter], gradient: Sequence[torch.Tensor | None]) -> None:
    sums, terms = [], []
    for parameter, term in zip(parameters, gradient, strict=True):
        if term is None:  # an expert that no token was sent to
            continue
        if parameter.grad is None:
            # Not the term itself: autograd gives two weights that are added one and the same.
            parameter.grad = torch.zeros_like(parameter)
        sums.append(parameter.grad)
        terms.append(term)
    if sums:
        torch._foreach_add_(sums, terms)
