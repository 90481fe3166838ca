r"""Direct preference optimisation (DPO): of two answers the better one is to become the likelier.

No reward model is trained, for the policy is one: $\beta \ln \pi(y \mid x) / \pi_{ref}(y \mid x)$, how
much likelier it finds an answer than the reference does, takes the place of a reward.

The loop is its own. `train.loop.train` averages over tokens, this loss over pairs; and beside ids and
targets there is no place for what the reference says of them.

Qwen2 was trained so on pairs that were there before, then on answers of its own (online DPO). Its
beta, learning rate, batch and number of samples are unpublished, and so is which model the reference
is while the policy goes on from episode to episode.

Source: arXiv 2305.18290; Qwen2's use of it: arXiv 2407.10671, section 4.3.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice

import torch
import torch.nn.functional as F

from qwen2lite.align.logp import answer_logp, padded
from qwen2lite.align.sft import Learnt
from qwen2lite.align.update import update
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.train.schedule import Schedule

LearntPair = tuple[Learnt, Learnt]
"""Two conversations, each as `answer_targets` encodes it: with the chosen answer, and the rejected."""
_ROWS = 64
"""Conversations that are read at once where nothing is learnt."""


def margins(logp: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    r"""By how many nats the chosen answer has gained more than the rejected one; 0 at first.

    $\ln \frac{\pi(y^+)}{\pi_{ref}(y^+)} - \ln \frac{\pi(y^-)}{\pi_{ref}(y^-)}$. It doesn't say that
    either has become likelier: often both become rarer. Beta is left out, so that runs compare.

    Args:
        logp: what the policy gives the answers, in two rows: chosen and rejected.
        reference: what the reference gives them.

    Returns:
        One number a pair.
    """
    chosen, rejected = logp - reference
    return chosen - rejected


def dpo_loss(margin: torch.Tensor, beta: float) -> torch.Tensor:
    r"""The mean of $-\ln \sigma(\beta \cdot \text{margin})$ over pairs; $\ln 2$ where margins are 0.

    Its slope, $-\beta\,\sigma(-\beta \cdot \text{margin})$, dies out once a margin is some multiple
    of 1/β. Nothing else keeps the policy near the reference: a small beta lets it go far.

    Args:
        margin: from `margins`.
        beta: above 0, per nat.

    Raises:
        ValueError: another beta, or no pair.

    Source: arXiv 2305.18290, eq. 7.
    """
    if not beta > 0:
        raise ValueError(f"beta must be above 0, got {beta}; 0.1 is a usual value")
    if not margin.numel():
        raise ValueError("there is no pair to learn from; give at least one")
    return -F.logsigmoid(beta * margin).mean()


@dataclass(frozen=True)
class Measured:
    """What a policy makes of some pairs, on average; all but loss and accuracy in nats."""

    loss: float
    margin: float
    accuracy: float
    """Share of the pairs with a margin above 0."""
    chosen: float
    """How much likelier the chosen answer has become; below 0 it has become rarer."""
    rejected: float
    """The same of the rejected answer."""


def measure(logp: torch.Tensor, reference: torch.Tensor, beta: float) -> Measured:
    """Arguments are those of `margins` and `dpo_loss`."""
    margin, gains = margins(logp, reference), (logp - reference).mean(1).tolist()
    accuracy = (margin > 0).double().mean()
    return Measured(float(dpo_loss(margin, beta)), float(margin.mean()), float(accuracy), *gains)


@torch.no_grad()
def pair_logps(model: Qwen2, pairs: Sequence[LearntPair]) -> torch.Tensor:
    """What a model gives the answers of some pairs, in two rows: chosen and rejected.

    Of the reference this is all that training needs. Kept, it lets one model be in memory, not two.

    Raises:
        ValueError: no pair, or ids outside the vocabulary.
    """
    starts = range(0, max(len(pairs), 1), _ROWS)
    return torch.cat([_logps(model, pairs[start : start + _ROWS]) for start in starts], dim=1)


def _logps(model: Qwen2, pairs: Sequence[LearntPair]) -> torch.Tensor:
    if not pairs:
        raise ValueError("there is no pair to read; give at least one")
    rows = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    return answer_logp(model, *padded(model, rows)).view(2, -1)


def dpo_step(
    model: Qwen2,
    pairs: Sequence[LearntPair],
    reference: torch.Tensor,
    optimizer: torch.optim.Optimizer,
    beta: float = 0.1,
    max_gradient_norm: float = 1.0,
) -> Measured:
    """Moves the policy once, and returns what it made of the pairs before.

    Args:
        model: the policy, in float32; moved in place.
        pairs: of this step.
        reference: from `pair_logps`, for these pairs.
        optimizer: the policy's, such as `AdamW` or one of `merge`.
        beta: see `dpo_loss`.
        max_gradient_norm: longer gradients are shortened to this.

    Raises:
        ValueError: no pair, another beta, or a loss or gradient that is no number.
    """
    logp = _logps(model, pairs)
    measured = measure(logp.detach(), reference, beta)
    update(optimizer, dpo_loss(margins(logp, reference), beta), max_gradient_norm)
    return measured


def train_dpo(
    model: Qwen2,
    pairs: Sequence[LearntPair],
    optimizer: torch.optim.Optimizer,
    steps: int,
    rates: Schedule,
    beta: float = 0.1,
    batch_size: int = 16,
    seed: int = 0,
) -> Iterator[Measured]:
    """Trains on pairs that are there before; gives after each step what `dpo_step` returns.

    The model as it is at first is the reference.

    Args:
        model: the policy, in float32; trained in place.
        pairs: each is read once an epoch.
        optimizer: the policy's.
        steps: updates in all.
        rates: the learning rate of each step, from 0; `TrainSettings.learning_rates` makes one.
        beta: see `dpo_loss`.
        batch_size: pairs a step.
        seed: of the order.

    Raises:
        ValueError: see `pair_logps` and `dpo_step`.
    """
    reference, chance = pair_logps(model, pairs), torch.Generator().manual_seed(seed)
    orders = (torch.randperm(len(pairs), generator=chance).tolist() for _ in count())
    order = chain.from_iterable(orders)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rates(step)
        numbers = list(islice(order, batch_size))
        batch = [pairs[number] for number in numbers]
        yield dpo_step(model, batch, reference[:, numbers], optimizer, beta)
