"""Choosing the next token: from a score for each to one of them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Sampler = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes logits_BV and the ids so far, ids_BT; gives the next ids_B."""


@dataclass(frozen=True)
class Sampling:
    """How to choose, in the order in which it is done.

    The defaults are greedy: always the most likely token. Published settings for chat with the
    small models are `CHAT_SAMPLING`.

    Args:
        repetition_penalty: above 1, tokens that have occurred lose: positive scores are divided by
            it and negative ones multiplied.
        temperature: divides the scores; 0 is greedy, above 1 is bolder.
        top_k: keep only the k most likely tokens; 0 keeps all.
        top_p: keep the fewest most likely tokens whose probabilities sum to at least p.
        seed: makes a run repeatable on the same machine and release; None is different each time.

    Raises:
        ValueError: a setting out of range.

    Source: arXiv 1909.05858, section 4.1 (penalty); arXiv 1904.09751 (top-p); arXiv 1805.04833
    (top-k).
    """

    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not self.repetition_penalty > 0:
            raise ValueError(f"repetition_penalty must be above 0, got {self.repetition_penalty}")
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be 0 (greedy) or above, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or above, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.seed is not None and not -(2**63) <= self.seed < 2**64:
            raise ValueError(f"seed must be a number of 64 bits, got {self.seed}")

    def sampler(self) -> Sampler:
        """A function that chooses by these settings and keeps its own random state."""
        generator = torch.Generator()
        if self.seed is None:
            generator.seed()
        else:
            generator.manual_seed(self.seed)
        return lambda logits_BV, ids_BT: sample(logits_BV, ids_BT, self, generator)


CHAT_SAMPLING = Sampling(repetition_penalty=1.1, temperature=0.7, top_k=20, top_p=0.8)
"""The published generation_config of Qwen2-0.5B-Instruct and Qwen2-1.5B-Instruct."""


def sample(
    logits_BV: torch.Tensor,
    ids_BT: torch.Tensor,
    settings: Sampling,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draws the next token of each sequence.

    Args:
        logits_BV: scores of the next token.
        ids_BT: the sequence so far, for the repetition penalty.
        settings: see `Sampling`.
        generator: on the CPU; None takes torch's own.

    Returns:
        ids_B, on the device of the logits.
    """
    scores_BV = logits_BV.float()
    if settings.repetition_penalty != 1:
        scores_BV = penalise_repetition(scores_BV, ids_BT, settings.repetition_penalty)
    if settings.temperature == 0:
        return scores_BV.argmax(-1)
    # From here on the candidates, the likeliest first: 20 are much faster to handle than 150,000.
    count = min(settings.top_k or scores_BV.shape[-1], scores_BV.shape[-1])
    scores, candidates = (scores_BV / settings.temperature).topk(count, dim=-1)
    if settings.top_p < 1:
        scores = keep_top_p(scores, settings.top_p)
    drawn = draw_one(scores.softmax(-1), generator)
    return candidates.gather(1, drawn)[:, 0]


def draw_one(probabilities: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """One place of each row, each as often as its probability says: what `torch.multinomial` does.

    Every place waits for a random time, the shorter the likelier it is, and the first one is taken.
    The random numbers come from the CPU, so that a seed draws the same anywhere, and the choice is made
    where the probabilities are, so that nobody waits for a GPU.

    Args:
        probabilities: [B, candidates].
        generator: on the CPU; None takes torch's own.

    Returns:
        places, [B, 1].
    """
    times = torch.empty(probabilities.shape).exponential_(generator=generator)
    return (probabilities / times.to(probabilities.device, non_blocking=True)).argmax(-1, True)


def penalise_repetition(
    scores_BV: torch.Tensor, ids_BT: torch.Tensor, penalty: float
) -> torch.Tensor:
    """Lowers the scores of tokens that have occurred, once however often they did."""
    seen = scores_BV.gather(1, ids_BT)
    lowered = torch.where(seen > 0, seen / penalty, seen * penalty)
    return scores_BV.scatter(1, ids_BT, lowered)


def keep_top_p(scores: torch.Tensor, p: float) -> torch.Tensor:
    """Sets all scores outside the nucleus to minus infinity: the fewest that together reach p.

    Args:
        scores: the highest first, [B, candidates].
        p: above 0 and at most 1.
    """
    probabilities = scores.softmax(-1)
    reached_before = probabilities.cumsum(-1) - probabilities
    return scores.masked_fill(reached_before >= p, float("-inf"))
