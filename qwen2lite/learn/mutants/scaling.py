"""Wrong ways to share a training step among GPUs, from the exercise 44_scaling."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.train.plan import plan


def moments_forgotten(parameters: int, gpus: int, sharded: bool) -> int:
    """Only weights and gradients are counted, 8 bytes a parameter. AdamW keeps two means of each
    gradient, of itself and of its square: 4 + 4 + 8 = 16 bytes."""
    return 8 * -(-parameters // (gpus if sharded else 1))


def one_moment(parameters: int, gpus: int, sharded: bool) -> int:
    """12 bytes a parameter: one of AdamW's two means is forgotten, or weights and gradients are counted
    in bfloat16. Only the matrix products are; all four are float32, 4 bytes each: 16."""
    return 12 * -(-parameters // (gpus if sharded else 1))


def copies_divided_too(parameters: int, gpus: int, sharded: bool) -> int:
    """It is divided by the number of GPUs in any case. With DDP each holds the whole model, and more
    of them make a run faster, never smaller: only shards are divided."""
    return 16 * -(-parameters // gpus)


def weights_left_whole(parameters: int, gpus: int, sharded: bool) -> int:
    """The weights are left whole, and only gradients and means are shared. That is ZeRO's second
    stage; FSDP cuts the weights too, and gathers a layer when it computes."""
    return 4 * parameters + 12 * -(-parameters // (gpus if sharded else 1))


def every_rank_the_same(
    windows_read: int, rank: int, world_size: int, batch_size: int
) -> list[int]:
    """The rank isn't used, so all processes read the same windows. The loss looks as it should, and W
    GPUs do the work of one (coqui-ai/Trainer #144, MagicDance #55): rank r skips the r · B windows
    of those before it."""
    return list(range(windows_read, windows_read + batch_size))


def one_window_further(windows_read: int, rank: int, world_size: int, batch_size: int) -> list[int]:
    """Each rank begins one window after the one before it, so they overlap, and windows at the end of
    the step are read by none: the rank before takes B windows, not one."""
    return list(range(windows_read + rank, windows_read + rank + batch_size))


def counted_from_one(windows_read: int, rank: int, world_size: int, batch_size: int) -> list[int]:
    """Ranks are counted from 1, so the first B windows of each step are never read, and the last rank
    takes those of the next step: rank 0 begins at windows_read."""
    first = windows_read + (rank + 1) * batch_size
    return list(range(first, first + batch_size))


def forgets_the_place(windows_read: int, rank: int, world_size: int, batch_size: int) -> list[int]:
    """The place in the row isn't used, so every step reads the first windows again: begin at
    windows_read."""
    return list(range(rank * batch_size, (rank + 1) * batch_size))


def shares_the_batch(windows_read: int, rank: int, world_size: int, batch_size: int) -> list[int]:
    """The batch is divided among the ranks. B is what *each* of them reads at once, as in DDP and in
    our settings, so a step reads W · B windows."""
    size = max(1, batch_size // world_size)
    first = windows_read + rank * size
    return list(range(first, first + size))


def mean_of_means(gradients: Sequence[Tensor], targets: Sequence[int]) -> Tensor:
    """All processes count alike, whatever they read: a mean of means. A target among few then weighs
    more than one among many (transformers #34242): weight each gradient by its targets."""
    return torch.stack(list(gradients)).mean(0)


def summed(gradients: Sequence[Tensor], targets: Sequence[int]) -> Tensor:
    """The gradients are added up and not averaged, so the step's gradient is W times too long, and
    every run with another number of GPUs is another run (sparseml #135): divide."""
    return torch.stack(list(gradients)).sum(0)


def averaged_twice(gradients: Sequence[Tensor], targets: Sequence[int]) -> Tensor:
    """It is divided by all targets, and by the number of processes again: W times too short. The shares
    n / N add up to one already, so it is one or the other (verl-SpeCo #29)."""
    return _weighted(gradients, targets) / len(gradients)


def weighted_and_summed(gradients: Sequence[Tensor], targets: Sequence[int]) -> Tensor:
    """Each gradient is multiplied by W n / N, as before a backward pass with DDP, which then divides
    by W. Here nobody does: the shares are n / N."""
    return _weighted(gradients, targets) * len(gradients)


def times_its_targets(gradients: Sequence[Tensor], targets: Sequence[int]) -> Tensor:
    """Each gradient is multiplied by its targets, and the sum isn't divided by all of them. That is the
    gradient of the summed loss: divide by N."""
    return _weighted(gradients, targets) * sum(targets)


def _weighted(gradients: Sequence[Tensor], targets: Sequence[int]) -> Tensor:
    shares = [count / sum(targets) for count in targets]
    return torch.stack([g * share for g, share in zip(gradients, shares, strict=True)]).sum(0)


def each_its_own(shares: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """Each process clips by the norm of its own share. The shares shrink by different factors, so the
    gradient points elsewhere, and is up to √W times as long as max_norm (pytorch #72548, torchtitan
    #766): add up the squares of all, then take one root."""
    clipped = []
    for share in shares:
        norm = share.square().sum().sqrt()
        clipped.append(share * min(1.0, max_norm / (float(norm) + 1e-6)))
    return clipped


def sum_of_norms(shares: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """The norms of the shares are added up. Lengths of parts don't add, their squares do, as in a right
    triangle: 3 and 4 make 5."""
    norm = sum(float(share.square().sum().sqrt()) for share in shares)
    return [share * min(1.0, max_norm / (norm + 1e-6)) for share in shares]


def mean_of_squares(shares: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """The sums of squares are averaged over the processes, as all_reduce can do. The norm is then √W
    times too small: the shares are different parts of one gradient, so add."""
    norm = math.sqrt(sum(float(share.square().sum()) for share in shares) / len(shares))
    return [share * min(1.0, max_norm / (norm + 1e-6)) for share in shares]


def stretched(shares: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """A gradient that is shorter than max_norm is stretched to it. Clipping only shortens: the factor
    is at most 1."""
    norm = math.sqrt(sum(float(share.square().sum()) for share in shares))
    return [share * (max_norm / (norm + 1e-6)) for share in shares]


def to_the_last_byte(model: str, memory: float, activation_checkpointing: bool) -> int:
    """The plan may fill a GPU to the last byte. CUDA itself, the buffers of communication and what is
    lost between blocks need room too: ask the plan whether it `.fits`."""
    gpus = 1
    while _plan(model, gpus, memory, activation_checkpointing).total > memory:
        gpus += 1
    return gpus


def in_doublings(model: str, memory: float, activation_checkpointing: bool) -> int:
    """The number is doubled until it fits, so numbers between are never tried: count up by one."""
    gpus = 1
    while not _plan(model, gpus, memory, activation_checkpointing).fits:
        gpus *= 2
    return gpus


def always_recomputed(model: str, memory: float, activation_checkpointing: bool) -> int:
    """Layers are computed twice whether one asks for it or not: hand activation_checkpointing on to
    the plan."""
    return _fewest(model, memory, True)


def never_recomputed(model: str, memory: float, activation_checkpointing: bool) -> int:
    """Activations are kept whatever one asks for: hand activation_checkpointing on to the plan."""
    return _fewest(model, memory, False)


def on_80_gigabytes(model: str, memory: float, activation_checkpointing: bool) -> int:
    """The memory that is asked about isn't used, and the plan assumes 80 GB: hand it on."""
    return _fewest(model, 80e9, activation_checkpointing)


def _fewest(model: str, memory: float, again: bool) -> int:
    return next(gpus for gpus in range(1, 9999) if _plan(model, gpus, memory, again).fits)


def _plan(model: str, gpus: int, memory: float, again: bool) -> Any:
    parallel = "none" if gpus == 1 else "fsdp"
    how: dict[str, Any] = {"parallel": parallel, "activation_checkpointing": again}
    return plan(model, gpus=gpus, memory=memory, **how)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "bytes_per_gpu": (moments_forgotten, one_moment, copies_divided_too, weights_left_whole),
    "windows_of": (
        every_rank_the_same,
        one_window_further,
        counted_from_one,
        forgets_the_place,
        shares_the_batch,
    ),
    "mean_gradient": (
        mean_of_means,
        summed,
        averaged_twice,
        weighted_and_summed,
        times_its_targets,
    ),
    "mended_clip": (each_its_own, sum_of_norms, mean_of_squares, stretched),
    "fewest_gpus": (
        to_the_last_byte,
        in_doublings,
        always_recomputed,
        never_recomputed,
        on_80_gigabytes,
    ),
}
"""The wrong versions of each task."""
