r"""The reward model: reads a whole conversation and says in one number how good its answer is.

People can't say how good an answer is, but which of two is better. So no number is ever given as a
target: only that one reward is to be larger than the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.align.pairs import Pair
from qwen2lite.align.sft import Learnt, fine_tune
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import Qwen2, Qwen2Config
from qwen2lite.text.chat import Message, encode_chat, turn_tokens
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.loader import document_mask, document_numbers
from qwen2lite.train.loss import IGNORED
from qwen2lite.train.settings import TrainSettings
from qwen2lite.train.tokens import END_OF_TEXT

REJECTED, CHOSEN = 0, 1
"""As targets: here a reward is read, of the worse answer or of the better one."""
_TEXTS = 64
"""Conversations that are read at once."""


@dataclass(frozen=True, kw_only=True)
class RewardConfig(Qwen2Config):
    """A `Qwen2Config` whose config.json names the class with which transformers reads a reward."""

    def to_dict(self) -> dict[str, Any]:
        """Arguments and result are those of `Qwen2Config`.

        The class reads its number at the last token that isn't padding, so it has to know which is.
        """
        values = super().to_dict()
        [kind] = values["architectures"]
        ends = self.eos_token_id
        return values | {
            "architectures": [kind.replace("CausalLM", "SequenceClassification")],
            "id2label": {"0": "reward"},
            "label2id": {"reward": 0},
            "pad_token_id": ends[0] if isinstance(ends, list) else ends,
        }


class RewardModel(Qwen2):
    r"""A Qwen2 whose output layer gives way to a single row: `model(ids_BT)[..., 0]` is rewards_BT.

    It gives a number at every position, and the one that counts is at the end, where the whole
    text has been read. The row begins as zeros, so that a new model finds all texts equally good
    and its loss is $\ln 2$; it needs no seed. The layers get no gradient in the first step, as what
    they do changes nothing yet, and learn from the second on.

    `train` and `export` write it as they write a Qwen2, and `RewardModel.from_pretrained` reads it; so
    does `Qwen2ForSequenceClassification` of transformers.

    Args:
        config: the shape; that of the model whose layers it takes over.
        parts: what to build it from.

    Source: arXiv 2203.02155, section 3.5: the model after SFT, without its output layer. Qwen(1)'s
    has the size of the model and reads "at a specific end token" (arXiv 2309.16609, section 3.2);
    which token that is, and what Qwen2's looks like, is unpublished.
    """

    def __init__(self, config: Qwen2Config, parts: Parts | None = None):
        super().__init__(RewardConfig(**vars(config)), parts)
        if not config.tie_word_embeddings:
            del self.lm_head
        self.reward = nn.Linear(config.hidden_size, 1, bias=False)
        nn.init.zeros_(self.reward.weight)

    @classmethod
    def from_model(cls, model: Qwen2) -> "RewardModel":
        """Begins with a copy of a model's layers; the model itself stays as it is."""
        new = cls(model.config, model.parts).to(model.device, model.dtype)
        new.model.load_state_dict(model.model.state_dict())
        return new

    @property
    def output_weight_VD(self) -> torch.Tensor:
        """The row that turns a vector into a reward: a vocabulary of one."""
        return self.reward.weight

    def read(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """One reward a text, rewards_B, read at its last token; with a gradient where that is wanted.

        Args:
            texts: token ids of each, which may differ in length.

        Raises:
            ValueError: no text, or one without a token; see `Qwen2.forward` for the rest.
        """
        lengths_B = torch.tensor([len(text) for text in texts])
        if not texts or not lengths_B.all():
            raise ValueError(
                f"a reward is read at the last token of each text; got {len(texts)} texts of "
                f"{lengths_B.tolist()} tokens"
            )
        # Filled up on the right, where causal attention never looks from the left.
        rows = [torch.tensor(text) for text in texts]
        ids_BT = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        rewards_BT = self(ids_BT)[..., 0]
        return rewards_BT[torch.arange(len(texts)), lengths_B - 1]


def to_the_end(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation, of which the last is the `<|im_end|>` of its last message.

    There the model has read everything, and knows that no more comes.

    Raises:
        ValueError: see `encode_chat`.
    """
    _, end = turn_tokens(tokenizer)
    ids = encode_chat(tokenizer, messages, add_generation_prompt=False)
    return ids[: len(ids) - ids[::-1].index(end)]


@torch.no_grad()
def rewards(
    model: RewardModel, tokenizer: Qwen2Tokenizer, conversations: Sequence[Sequence[Message]]
) -> torch.Tensor:
    """What each conversation is worth, rewards_B: only differences within one question mean anything.

    Raises:
        ValueError: no conversation; see `encode_chat` for the rest.
    """
    texts = [to_the_end(tokenizer, messages) for messages in conversations]
    starts = range(0, max(len(texts), 1), _TEXTS)
    return torch.cat([model.read(texts[start : start + _TEXTS]) for start in starts])


def accuracy(model: RewardModel, tokenizer: Qwen2Tokenizer, pairs: Sequence[Pair]) -> float:
    """The share of pairs whose better answer has the larger reward. An equal one isn't larger.

    Raises:
        ValueError: no pair; see `rewards` for the rest.
    """
    sides = [[pair.conversations[side] for pair in pairs] for side in (0, 1)]
    chosen_B, rejected_B = (rewards(model, tokenizer, side) for side in sides)
    return float((chosen_B > rejected_B).float().mean())


def pairwise_loss(chosen_B: torch.Tensor, rejected_B: torch.Tensor) -> torch.Tensor:
    r"""The mean of $-\ln\sigma(r_\text{chosen} - r_\text{rejected})$, in float32.

    By the model of Bradley and Terry, σ of the difference is the probability that the first is
    preferred; the loss is the surprise that it was. Adding a number to all rewards changes nothing.

    Args:
        chosen_B: rewards of the better answers, one a pair.
        rejected_B: those of the worse ones, in the same order. For no pair the loss is 0.

    Raises:
        ValueError: not as many of one as of the other.

    Source: arXiv 2203.02155, section 3.5, eq. 1; the probability: arXiv 1706.03741, section 2.2.3.
    """
    if chosen_B.shape != rejected_B.shape:
        raise ValueError(
            f"every chosen reward needs its rejected one; got {list(chosen_B.shape)} and "
            f"{list(rejected_B.shape)}"
        )
    # The logarithm of a sigmoid would be that of 0 where a wrong difference is large.
    return -F.logsigmoid((chosen_B - rejected_B).float()).sum() / max(len(chosen_B), 1)


class Preference(nn.Module):
    """The objective of a reward model as a module, as `train` takes it.

    Args:
        model: what is trained.
        eos: the id after each conversation; none looks into another.
    """

    def __init__(self, model: RewardModel, eos: int):
        super().__init__()
        self.model, self.eos = model, eos

    def forward(self, ids_BT: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
        """Returns the mean loss of a batch.

        Args:
            ids_BT: rows of whole pairs, as `pair_targets` encodes them.
            targets_BT: `CHOSEN` and `REJECTED` where a reward is read, in turn.
        """
        mask = document_mask(document_numbers(ids_BT, self.eos))
        rewards_BT = self.model(ids_BT, mask=mask)[..., 0]
        return pairwise_loss(rewards_BT[targets_BT == CHOSEN], rewards_BT[targets_BT == REJECTED])


def pair_targets(tokenizer: Qwen2Tokenizer, pair: Pair) -> Learnt:
    """Encodes both conversations of a pair, `<|endoftext|>` between them, and marks their ends.

    One after another in a row they stay together, whatever rows and batches are made of.

    Raises:
        ValueError: see `encode_chat`.
    """
    better, worse = (to_the_end(tokenizer, messages) for messages in pair.conversations)
    ids = [*better, tokenizer.special_tokens[END_OF_TEXT], *worse]
    targets = [IGNORED] * len(ids)
    targets[len(better) - 1], targets[-1] = CHOSEN, REJECTED
    return ids, targets


def train_reward(
    model: RewardModel,
    tokenizer: Qwen2Tokenizer,
    learnt: Sequence[Learnt],
    settings: TrainSettings,
    folder: str | Path,
    bar: bool = True,
) -> Path:
    """Teaches a model which answers are better, and goes on where an earlier run in the same folder
    stopped.

    Args:
        model: in float32; trained in place.
        tokenizer: the model's, with the tokens of a chat.
        learnt: pairs, as `pair_targets` gives them; each is read once an epoch.
        settings: how to train.
        folder: of this run; see `train`.
        bar: show progress.

    Returns:
        The folder of the trained model, which `RewardModel.from_pretrained` reads.

    Raises:
        ValueError, OSError: see `fine_tune`.
    """
    return fine_tune(model, tokenizer, learnt, settings, folder, bar, Preference)
