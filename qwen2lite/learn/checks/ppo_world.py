"""A policy that can be looked at whole: a table with a row of logits for each token that stands before.

So its expected score is a sum over all that it may say, and no estimate. Token 0 ends an answer.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qwen2lite.train.loss import IGNORED

END = 0
Score = Callable[[Sequence[int]], float]


def table_logp(policy_VV: Tensor, ids_BT: Tensor, targets_BT: Tensor) -> Tensor:
    """The ln p of each target, given the id before it; 0 where there is none."""
    # What log_softmax gives; that one begins threads even for a table as small as this.
    logp_VV = policy_VV - policy_VV.logsumexp(-1, keepdim=True)
    return logp_VV[ids_BT, targets_BT.clamp(min=0)] * (targets_BT != IGNORED)


def drawn_answers(
    policy_VV: Tensor, start: int, count: int, limit: int, chance: torch.Generator
) -> list[list[int]]:
    """Answers to a prompt that ends with `start`, without their ends; cut off after `limit` tokens."""
    answers, p_VV = [], policy_VV.softmax(-1)
    for _ in range(count):
        said: list[int] = []
        while len(said) < limit:
            token = int(p_VV[said[-1] if said else start].multinomial(1, generator=chance))
            if token == END:
                break
            said.append(token)
        answers.append(said)
    return answers


def scored(said: Sequence[int], limit: int, score: Score) -> float:
    """The score of an answer; -1 for one that was cut off, whatever it says."""
    return score(said) if len(said) < limit else -1.0


def expected_score(policy_VV: Tensor, start: int, limit: int, score: Score) -> float:
    """The score of all that a policy may answer, each by its probability."""
    p_VV = policy_VV.double().softmax(-1).tolist()

    def of_all_that_begin(said: list[int], p: float) -> float:
        if len(said) == limit:
            return p * scored(said, limit, score)
        row = p_VV[said[-1] if said else start]
        longer = (of_all_that_begin([*said, n], p * row[n]) for n in range(1, len(row)))
        return p * row[END] * scored(said, limit, score) + sum(longer)

    return of_all_that_begin([], 1.0)
