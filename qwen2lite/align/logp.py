r"""How likely a model finds an answer: $\ln p$ of its tokens, each after what stands before it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from qwen2lite.align.sft import Learnt
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.train.loss import CHUNK_NUMBERS, IGNORED


def token_logp(model: Qwen2, ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    r"""The $\ln p$ of each target, given what stands before it.

    Only positions with a target are scored, some at a time, and once more on the way back: the scores
    of 4,096 tokens, kept, would be 2.5 GB with Qwen2's vocabulary.

    Args:
        model: scores the tokens.
        ids_BT: token ids.
        targets_BT: after each the token that is asked for, or `IGNORED`.

    Returns:
        logp_BT, at least in float32; 0 where nothing is asked.
    """
    x_BTD = model.model(ids_BT)
    asked_BT = targets_BT != IGNORED
    x_XD, targets_X = x_BTD[asked_BT], targets_BT[asked_BT]
    size = max(1, CHUNK_NUMBERS.get(x_XD.device.type, 2**24) // len(model.output_weight_VD))

    def score(x_XD: torch.Tensor, targets_X: torch.Tensor) -> torch.Tensor:
        scores_XV = model.score(x_XD[None])[0]
        exact = torch.promote_types(scores_XV.dtype, torch.float32)
        return -F.cross_entropy(scores_XV.to(exact), targets_X, reduction="none")

    pieces = zip(x_XD.split(size), targets_X.split(size), strict=True)
    logp_X = torch.cat([checkpoint(score, *piece, use_reentrant=False) for piece in pieces])
    return logp_X.new_zeros(ids_BT.shape).masked_scatter(asked_BT, logp_X)


def answer_logp(model: Qwen2, ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    r"""The sum of $\ln p$ of all targets of a row: of a whole answer, given what stands before it.

    Not the mean: the probability of an answer is a product. So a longer one mostly has a lower sum.

    Args:
        model: scores the tokens.
        ids_BT: token ids.
        targets_BT: after each the token that is asked for, or `IGNORED`.

    Returns:
        logp_B, at least in float32; 0 where nothing is asked.
    """
    return token_logp(model, ids_BT, targets_BT).sum(1)


def in_rows(rows: Sequence[Learnt]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of unlike length as ids_BT and targets_BT, filled up on the right, where causal attention
    never looks from the left."""
    ids, targets = ([torch.tensor(side) for side in sides] for sides in zip(*rows, strict=True))
    return pad_sequence(ids, True), pad_sequence(targets, True, IGNORED)


def padded(model: Qwen2, rows: Sequence[Learnt]) -> tuple[torch.Tensor, torch.Tensor]:
    """`in_rows` for a model, on its device.

    Raises:
        ValueError: ids outside the vocabulary.
    """
    ids_BT, targets_BT = in_rows(rows)
    model.check_ids(ids_BT)
    return ids_BT.to(model.device), targets_BT.to(model.device)
