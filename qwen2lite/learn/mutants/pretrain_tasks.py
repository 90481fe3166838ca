"""Wrong ways to stop and go on, to save, and to measure, from the exercise 43_pretrain."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from qwen2lite.learn.disk import Disk
from qwen2lite.train.loader import Loader

State = dict[str, Any]


def packages_snapshot(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> State:
    """All that a run needs to go on as if nothing had happened.

    This one is right. The mutants are this one with something wrong.
    """
    return {
        "model": {name: tensor.clone() for name, tensor in model.state_dict().items()},
        "optimizer": _cloned(optimizer.state_dict()),
        "loader": loader.state_dict(),
        "random": torch.get_rng_state(),
    }


def _cloned(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.clone()
    if isinstance(state, dict):
        return {key: _cloned(value) for key, value in state.items()}
    return [_cloned(value) for value in state] if isinstance(state, list) else state


def without_moments(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> State:
    """AdamW's running means are left out. It begins anew with zeros, and its first steps are as long
    as the learning rate for every weight: the loss jumps after each stop (OneVision-Encoder #65).
    They are in optimizer.state_dict()."""
    state = packages_snapshot(model, optimizer, loader)
    return state | {"optimizer": state["optimizer"] | {"state": {}}}


def without_place(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> State:
    """The loader's place is left out, so it reads again what was read. The loss looks better than
    ever, until something new comes (entrenar #294, after 62,000 steps). It is in
    loader.state_dict()."""
    state = packages_snapshot(model, optimizer, loader)
    return state | {"loader": state["loader"] | {"windows_read": 0}}


def without_chance(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> State:
    """The state of the random generator is left out: dropout, and whatever else is drawn, is another
    one after a stop. It is torch.get_rng_state()."""
    chance = torch.Generator().manual_seed(0).get_state()
    return packages_snapshot(model, optimizer, loader) | {"random": chance}


def only_references(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> State:
    """state_dict() gives the tensors themselves, which training goes on changing: the snapshot shows
    the weights of today (pytorch #34765, pytorch tutorials #188). Copy them:
    copy.deepcopy(model.state_dict())."""
    return packages_snapshot(model, optimizer, loader) | {"model": model.state_dict()}


def means_only_referred_to(
    model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader
) -> State:
    """The optimizer's state_dict() holds its tensors themselves, and the next step changes them:
    copy them too, copy.deepcopy(optimizer.state_dict())."""
    state = optimizer.state_dict()
    return packages_snapshot(model, optimizer, loader) | {"optimizer": state}


def nothing_copied(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> State:
    """state_dict() gives the tensors themselves, which training goes on changing: weights and means
    in the snapshot are those of today. Copy both: copy.deepcopy(model.state_dict()), and the
    optimizer's."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    return packages_snapshot(model, optimizer, loader) | state


def in_half_the_bytes(model: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> State:
    """The weights are rounded to bfloat16, as for a model that is handed out. What was in the other
    16 bits is gone, and hundreds of small updates with it: a checkpoint to go on from is float32."""
    state = packages_snapshot(model, optimizer, loader)
    narrow = {name: tensor.bfloat16() for name, tensor in state["model"].items()}
    return state | {"model": narrow}


def writes_in_place(disk: Disk, name: str, content: str) -> None:
    """The file is written over the old one. Whoever is stopped meanwhile has neither: write another
    file first, and rename it (pytorch-lightning #688)."""
    disk.write(name, content)
    disk.sync(name)


def deletes_first(disk: Disk, name: str, content: str) -> None:
    """The old file is deleted before the new one has its name. In between there is none: a rename
    replaces the old file by itself, in one go."""
    part = name + ".part"
    disk.write(part, content)
    disk.sync(part)
    if name in disk.names():
        disk.delete(name)
    disk.rename(part, name)


def never_synced(disk: Disk, name: str, content: str) -> None:
    """Nothing is synced. The new name is on the disk and its content still in memory, and after a
    power cut the file is empty (NodeDB #78, zeek #1817): sync the part before it is renamed."""
    part = name + ".part"
    disk.write(part, content)
    disk.rename(part, name)


def synced_too_late(disk: Disk, name: str, content: str) -> None:
    """It is synced after the rename, so for a moment the name leads to a content that is not on the
    disk, and the old one is gone: sync the part, then rename it."""
    part = name + ".part"
    disk.write(part, content)
    disk.rename(part, name)
    disk.sync(name)


def copied_over(disk: Disk, name: str, content: str) -> None:
    """The part is whole, and then it is copied over the old file, which is writing in place again.
    It happens where the part lies on another disk, such as /tmp (pytorch #2883): rename it, in the
    same folder."""
    part = name + ".part"
    disk.write(part, content)
    disk.sync(part)
    disk.write(name, disk.read(part))
    disk.sync(name)
    disk.delete(part)


def _probabilities(
    train: Sequence[int], text: Sequence[int], vocab_size: int, added: float = 1
) -> list[float]:
    """Of each token of the text but the first, after the one before it."""
    pairs, first = Counter(pairwise(train)), Counter(train[:-1])
    return [
        (pairs[pair] + added) / (first[pair[0]] + added * vocab_size) for pair in pairwise(text)
    ]


def _perplexity(probabilities: Sequence[float]) -> float:
    return math.exp(-sum(map(math.log, probabilities)) / len(probabilities))


def nothing_added(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """Nothing is added to the counts. A pair that was never seen then has probability 0, and a
    single one makes the perplexity infinite: add 1 to each count, and V to the sum."""
    try:
        return _perplexity(_probabilities(train, text, vocab_size, added=0))
    except (ValueError, ZeroDivisionError):
        return math.inf


def vocabulary_not_added(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """1 is added to each count, and nothing to the sum they are divided by, so the probabilities add
    up to more than 1: V counts grew by 1, so add V."""
    pairs, first = Counter(pairwise(train)), Counter(train[:-1])
    return _perplexity([(pairs[p] + 1) / max(first[p[0]], 1) for p in pairwise(text)])


def mean_of_perplexities(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """This is the mean of 1/p, so one token of probability 1/1000 weighs as much as a thousand sure
    ones: take the mean of -ln p first, then exp (in ParlAI #623 it made 156 of 66)."""
    probabilities = _probabilities(train, text, vocab_size)
    return sum(1 / p for p in probabilities) / len(probabilities)


def one_over_the_mean(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """The probabilities are averaged, and then turned round. A text's probability is the product of
    them: take the mean of their logarithms."""
    probabilities = _probabilities(train, text, vocab_size)
    return len(probabilities) / sum(probabilities)


def no_exp(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """This is the mean of -ln p, the loss. The perplexity is e to that."""
    return math.log(_perplexity(_probabilities(train, text, vocab_size)))


def base_two_and_e(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """The logarithm is to base 2 and the power to base e. Either base will do, but the same one."""
    return _perplexity(_probabilities(train, text, vocab_size)) ** (1 / math.log(2))


def counted_in_the_text(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """The pairs are counted in the text that is measured: that is reading the answers first. Count
    in the training text."""
    return _perplexity(_probabilities(text, text, vocab_size))


def divided_by_the_second(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """The count of a pair is divided by how often its second token comes. It is to be divided by
    how often the first one is followed by anything."""
    pairs, second = Counter(pairwise(train)), Counter(train[1:])
    return _perplexity([(pairs[p] + 1) / (second[p[1]] + vocab_size) for p in pairwise(text)])


def last_one_counted(train: Sequence[int], text: Sequence[int], vocab_size: int) -> float:
    """The last token of the text counts as followed by something, and nothing follows it: count
    `train[:-1]`."""
    pairs, first = Counter(pairwise(train)), Counter(train)
    return _perplexity([(pairs[p] + 1) / (first[p[0]] + vocab_size) for p in pairwise(text)])


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "snapshot": (
        without_moments,
        without_place,
        without_chance,
        only_references,
        means_only_referred_to,
        nothing_copied,
        in_half_the_bytes,
    ),
    "mended_save": (
        writes_in_place,
        deletes_first,
        never_synced,
        synced_too_late,
        copied_over,
    ),
    "bigram_perplexity": (
        nothing_added,
        vocabulary_not_added,
        mean_of_perplexities,
        one_over_the_mean,
        no_exp,
        base_two_and_e,
        counted_in_the_text,
        divided_by_the_second,
        last_one_counted,
    ),
}
"""The wrong versions of each task."""
