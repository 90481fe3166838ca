"""The contracts of lesson 44 accept every right answer and tell wrong ones in a clear sentence."""

import itertools
import math

import pytest
import torch

from qwen2lite.train.plan import plan
from tests.learn.verdict import verdict


def windows_in_a_loop(windows_read, rank, world_size, batch_size):
    mine = []
    for place in range(batch_size):
        mine.append(windows_read + rank * batch_size + place)
    return mine


def windows_dealt_like_cards(windows_read, rank, world_size, batch_size):
    return [windows_read + rank + place * world_size for place in range(batch_size)]


def windows_as_a_range(windows_read, rank, world_size, batch_size):
    first = windows_read + rank * batch_size
    return range(first, first + batch_size)


def mean_by_loop(gradients, targets):
    total = torch.zeros_like(gradients[0])
    for gradient, count in zip(gradients, targets, strict=True):
        total = total + gradient * count
    return total / sum(targets)


def mean_by_matrix(gradients, targets):
    counts = torch.tensor(targets, dtype=gradients[0].dtype)
    return torch.stack(gradients).T @ (counts / counts.sum())


def mean_as_ddp_makes_it(gradients, targets):
    processes = len(gradients)
    scaled = [g * (processes * n / sum(targets)) for g, n in zip(gradients, targets, strict=True)]
    return sum(scaled) / processes


def clip_by_squares(shares, max_norm):
    norm = sum(share.square().sum() for share in shares).sqrt()
    return [share * torch.clamp(max_norm / (norm + 1e-6), max=1.0) for share in shares]


def clip_by_the_whole(shares, max_norm):
    norm = float(torch.cat([share.flatten() for share in shares]).norm())
    return [share * max_norm / norm if norm > max_norm else share for share in shares]


def clip_by_norms(shares, max_norm):
    norm = math.hypot(*(float(torch.linalg.vector_norm(share)) for share in shares))
    return tuple(share * min(1.0, max_norm / norm) for share in shares)


def fits(model, gpus, memory, again):
    parallel = "none" if gpus == 1 else "fsdp"
    settings = {"memory": memory, "activation_checkpointing": again, "parallel": parallel}
    return plan(model, gpus=gpus, **settings).fits


def fewest_by_counting(model, memory, activation_checkpointing):
    gpus = 1
    while not fits(model, gpus, memory, activation_checkpointing):
        gpus += 1
    return gpus


def fewest_by_halving(model, memory, activation_checkpointing):
    low, high = 0, 4096
    while high - low > 1:
        middle = (low + high) // 2
        enough = fits(model, middle, memory, activation_checkpointing)
        low, high = (low, middle) if enough else (middle, high)
    return high


def fewest_of_all(model, memory, activation_checkpointing):
    return next(n for n in itertools.count(1) if fits(model, n, memory, activation_checkpointing))


RIGHT = [
    ("bytes_per_gpu", lambda p, gpus, sharded: 16 * p / (gpus if sharded else 1)),
    ("bytes_per_gpu", lambda p, gpus, sharded: 16 * -(-p // gpus) if sharded else 16 * p),
    ("bytes_per_gpu", lambda p, gpus, sharded: sum(n * p // gpus**sharded for n in (4, 4, 8))),
    ("windows_of", windows_in_a_loop),
    ("windows_of", windows_dealt_like_cards),
    ("windows_of", windows_as_a_range),
    ("mean_gradient", mean_by_loop),
    ("mean_gradient", mean_by_matrix),
    ("mean_gradient", mean_as_ddp_makes_it),
    ("mended_clip", clip_by_squares),
    ("mended_clip", clip_by_the_whole),
    ("mended_clip", clip_by_norms),
    ("fewest_gpus", fewest_by_counting),
    ("fewest_gpus", fewest_by_halving),
    ("fewest_gpus", fewest_of_all),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def adds_in_place(gradients, targets):
    total = gradients[0]
    total *= targets[0]
    for gradient, count in zip(gradients[1:], targets[1:], strict=True):
        total += gradient * count
    return total / sum(targets)


def clips_in_place(shares, max_norm):
    clipped = clip_by_squares(shares, max_norm)
    for share, short in zip(shares, clipped, strict=True):
        share.copy_(short)
    return shares


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("bytes_per_gpu", lambda p, gpus, sharded: "16 GB", "'16 GB'; a number was wanted"),
        ("bytes_per_gpu", lambda p, gpus, sharded: 16 * p * gpus, "is 64,000; 4,000 were wanted"),
        ("windows_of", lambda read, rank, w, b: read + rank * b, "a list of whole numbers"),
        ("windows_of", lambda read, rank, w, b: [0.5] * b, "a list of whole numbers"),
        ("windows_of", lambda read, rank, w, b: [read] * b, "together 0 to 5 were wanted"),
        (
            "windows_of",
            lambda read, rank, w, b: list(range(read, read + w * b)) if not rank else [],
            "each once",
        ),
        ("mean_gradient", adds_in_place, "changed the gradients"),
        ("mean_gradient", lambda g, n: float(mean_by_loop(g, n)[0]), "a tensor float32 [2]"),
        ("mean_gradient", lambda g, n: g[0], "the mean is [2, 0], and yours is [1, -1]"),
        ("mended_clip", clips_in_place, "changed the shares"),
        ("mended_clip", lambda shares, norm: shares[:1], "a list of as many shares"),
        ("mended_clip", lambda shares, norm: list(shares), "the norms 0.6, 0.8; yours have 3, 4"),
        ("fewest_gpus", lambda model, memory, again: 0, "returned 0; a whole number"),
        ("fewest_gpus", lambda model, memory, again: 3.0, "returned 3.0; a whole number"),
        ("fewest_gpus", lambda model, memory, again: 2, "1 GPU of 80 GB would do too"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong
