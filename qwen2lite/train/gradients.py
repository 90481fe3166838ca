r"""The gradient of one step: averaged over its batches, and shared by the cores of a CPU."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from qwen2lite.train.loss import IGNORED

Batch = tuple[torch.Tensor, torch.Tensor]
"""ids_BT and targets_BT."""


def targets_in(batches: Sequence[Batch]) -> int:
    """How many positions have a target."""
    return sum(int((targets_BT != IGNORED).sum()) for _, targets_BT in batches)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """The context in which matrix products are of that dtype; float32 changes nothing."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def accumulate(
    objective: nn.Module, batches: Sequence[Batch], dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Adds the gradient of the mean loss over all batches to the `grad` of each parameter.

    The mean is over all targets of the step, so a batch counts by how many it has. With equal
    batches that is one over their number: left out, the gradient would be as many times too long.

    Args:
        objective: gives the mean loss of a batch.
        batches: of one step, on the objective's device.
        dtype: of the matrix products; other than float32, autocast picks which operations those are.

    Returns:
        The step's mean loss.
    """
    total = targets_in(batches)
    losses = []
    for batch in batches:
        with autocast(batch[0].device, dtype):
            loss = objective(*batch) * (targets_in([batch]) / total)
        loss.backward()
        losses.append(loss.detach())
    return torch.stack(losses).sum()


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
        total = targets_in(batches)
        parameters = [p for p in objective.parameters() if p.requires_grad]

        def share(piece: Batch) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
            loss = objective(*piece) * (targets_in([piece]) / total)
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
            parameter.grad = term
        else:
            sums.append(parameter.grad)
            terms.append(term)
    if sums:
        torch._foreach_add_(sums, terms)
