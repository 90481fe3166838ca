r"""Proximal policy optimisation (PPO): a policy answers; what was better than expected gets likelier.

Four models: the policy, the reference it mustn't leave far behind, the reward model, and the value
model, which says before each token what it expects. Qwen(1) was aligned so; Qwen2 with DPO.

Source: arXiv 2309.16609, section 3.2.2; the algorithm, arXiv 1707.06347 and 2203.02155.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from qwen2lite.align.logp import padded, token_logp
from qwen2lite.align.ppo_loss import advantages, policy_loss, token_rewards, value_loss
from qwen2lite.align.reward import RewardModel
from qwen2lite.align.rollout import Answer, Reward, written_answers
from qwen2lite.align.update import update
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.chat import Message
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.loss import IGNORED


@dataclass(frozen=True)
class PPOSettings:
    """How to learn. What Qwen(1) published stands first; nothing is said of the rest.

    Args:
        samples: answers a prompt.
        top_p: of the samples. What is learnt from is the whole distribution's probability.
        kl: what a nat of distance to the reference costs, in units of the reward.
        value_clip: see `value_loss`.
        value_only: steps in which only the value model learns; at first it expects 0 of everything.
        max_new_tokens: an answer that isn't done by then is cut off.
        unfinished: the score of such an answer, whatever it says: nobody has seen how it ends.
        clip: see `policy_loss`.
        decay: λ, see `advantages`.
        passes: how often the answers of a step are learnt from.
        batch_size: answers an update.
        max_gradient_norm: longer gradients are shortened to this, of each model by itself.
        seed: of the samples and the order.

    Raises:
        ValueError: a setting out of range.

    Source: arXiv 2309.16609, section 3.2.2.
    """

    samples: int = 2
    top_p: float = 0.9
    kl: float = 0.04
    value_clip: float = 0.15
    value_only: int = 50
    max_new_tokens: int = 64
    unfinished: float = -1.0
    clip: float = 0.2
    decay: float = 0.95
    passes: int = 2
    batch_size: int = 32
    max_gradient_norm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        least = dict.fromkeys(("samples", "max_new_tokens", "passes", "batch_size"), 1)
        for name, low in (least | {"kl": 0, "value_only": 0}).items():
            if not getattr(self, name) >= low:
                raise ValueError(f"{name} must be {low} or more, got {getattr(self, name)}")
        for name in ("value_clip", "clip", "max_gradient_norm"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be from 0 to 1, got {self.decay}")


@dataclass(frozen=True)
class Measured:
    """What a step saw of the answers as they were written, and what it did."""

    score: float
    """The mean, as the reward gives it."""
    kl: float
    """Nats by which an answer is likelier than under the reference, on average. It may fall below 0,
    which no divergence does: the answers are few, and top-p never draws the policy's tail."""
    tokens: float
    """Of an answer, with its end."""
    unfinished: float
    """Share of the answers."""
    expected: float
    """Share of the variance of what came that the value model foresaw; 0 is what one number could."""
    clipped: float
    """Share of tokens that gave no gradient in the last pass."""


@dataclass(frozen=True)
class _Written:
    """Answers, and what was thought of them when they were written."""

    ids_BT: torch.Tensor
    targets_BT: torch.Tensor
    logp_BT: torch.Tensor
    values_BT: torch.Tensor
    advantages_BT: torch.Tensor
    returns_BT: torch.Tensor

    @property
    def said_BT(self) -> torch.Tensor:
        """Where there is a token of an answer."""
        return self.targets_BT != IGNORED

    def some(self, rows: torch.Tensor) -> "_Written":
        """The answers of these rows."""
        return _Written(**{name: tensor[rows] for name, tensor in vars(self).items()})


class PPO:
    """The models at work; `step` by `step` the policy gets better by the reward.

    A reward counts less its running mean. The advantages of a step are shifted and scaled to mean 0
    and variance 1, so the learning rate means the same whatever the reward's unit. The price: where
    all answers are equally good, the value model's error and the payment for distance are scaled up
    as well. Published implementations do the same.

    Args:
        policy: in float32; moved in place.
        value: says what it expects, where a reward model says what it found; moved in place. Qwen(1)
            doesn't say what it begins as; `RewardModel.from_model` of the policy is one way.
        reference: mostly the policy as it was at first, a copy; stays as it is.
        tokenizer: the models', with the tokens of a chat.
        reward: is given each prompt with an answer as its last message.
        policy_optimizer: Qwen(1)'s learning rate is 1e-6.
        value_optimizer: Qwen(1)'s learning rate is 5e-6.
        settings: how to learn.
    """

    def __init__(
        self,
        policy: Qwen2,
        value: RewardModel,
        reference: Qwen2,
        tokenizer: Qwen2Tokenizer,
        reward: Reward,
        policy_optimizer: torch.optim.Optimizer,
        value_optimizer: torch.optim.Optimizer,
        settings: PPOSettings | None = None,
    ):
        self.policy, self.value, self.reference = policy, value, reference
        self.tokenizer, self.reward = tokenizer, reward
        self.policy_optimizer, self.value_optimizer = policy_optimizer, value_optimizer
        self.settings = settings or PPOSettings()
        self.steps = 0
        self._score_sum, self._score_count = 0.0, 0

    def step(self, prompts: Sequence[Sequence[Message]]) -> Measured:
        """Lets the policy answer, and learns from the answers.

        Args:
            prompts: conversations that wait for an answer.

        Raises:
            ValueError: no prompt, not one reward an answer, or a loss that is no number; see
                `written_answers` for the rest.
        """
        told = self.settings
        draw = (told.samples, 1.0, told.top_p, told.max_new_tokens, told.seed + self.steps)
        answers = written_answers(self.policy, self.tokenizer, prompts, *draw)
        score_B = self._scores(answers)
        written, gain_BT = self._judge(answers, score_B)
        clipped = 0.0
        chance = torch.Generator().manual_seed(draw[-1])
        for _ in range(told.passes):
            order = torch.randperm(len(answers), generator=chance).split(told.batch_size)
            clipped = sum(self._learn(written.some(rows)) for rows in order) / len(order)
        self.steps += 1
        came, foreseen = (x[written.said_BT] for x in (written.returns_BT, written.values_BT))
        variance = float(came.var(correction=0))
        return Measured(
            score=float(score_B.mean()),
            kl=float(gain_BT.sum(1).mean()),
            tokens=float(written.said_BT.sum(1).float().mean()),
            unfinished=sum(not answer.ended for answer in answers) / len(answers),
            expected=1 - float((came - foreseen).var(correction=0)) / variance if variance else 0.0,
            clipped=clipped,
        )

    def _scores(self, answers: Sequence[Answer]) -> torch.Tensor:
        scores = [float(score) for score in self.reward([answer.talk for answer in answers])]
        if len(scores) != len(answers) or not all(map(math.isfinite, scores)):
            raise ValueError(
                f"the reward has to give one finite number for each of {len(answers)} "
                f"conversations; got {scores[:8]}"
            )
        for number, answer in enumerate(answers):
            if not answer.ended:
                scores[number] = self.settings.unfinished
        return torch.tensor(scores)

    @torch.no_grad()
    def _judge(
        self, answers: Sequence[Answer], score_B: torch.Tensor
    ) -> tuple[_Written, torch.Tensor]:
        """What the models think of new answers, and ln π − ln π_ref of each token."""
        ids_BT, targets_BT = padded(self.policy, [answer.learnt for answer in answers])
        said_BT = targets_BT != IGNORED
        logp_BT = token_logp(self.policy, ids_BT, targets_BT)
        gain_BT = logp_BT - token_logp(self.reference, ids_BT, targets_BT)
        values_BT = self.value(ids_BT)[..., 0].where(said_BT, 0)
        self._score_sum += float(score_B.sum())
        self._score_count += len(score_B)
        score_B = (score_B - self._score_sum / self._score_count).to(gain_BT.device)
        rewards_BT = token_rewards(score_B, gain_BT, said_BT, self.settings.kl)
        ahead_BT = advantages(rewards_BT, values_BT, said_BT, self.settings.decay)
        returns_BT = ahead_BT + values_BT
        ahead = ahead_BT[said_BT]
        # Under the root: of differences below 1e-4, such as those of rounding, nothing is made.
        ahead_BT = (ahead_BT - ahead.mean()) / (ahead.var(correction=0) + 1e-8).sqrt()
        return _Written(ids_BT, targets_BT, logp_BT, values_BT, ahead_BT, returns_BT), gain_BT

    def _learn(self, written: _Written) -> float:
        """Moves the value model, and the policy once it is its turn. Returns the clipped share."""
        told, said_BT = self.settings, written.said_BT
        values_BT = self.value(written.ids_BT)[..., 0]
        now, foreseen, came = (
            x[said_BT] for x in (values_BT, written.values_BT, written.returns_BT)
        )
        loss = value_loss(now, foreseen, came, told.value_clip)
        update(self.value_optimizer, loss, told.max_gradient_norm)
        if self.steps < told.value_only:
            return 0.0
        logp_BT = token_logp(self.policy, written.ids_BT, written.targets_BT)
        logp, before, ahead = (
            x[said_BT] for x in (logp_BT, written.logp_BT, written.advantages_BT)
        )
        loss = policy_loss(logp, before, ahead, told.clip)
        update(self.policy_optimizer, loss, told.max_gradient_norm)
        ratio = (logp - before).exp().detach()
        gone = torch.where(ahead > 0, ratio > 1 + told.clip, ratio < 1 - told.clip)
        return float(gone.float().mean())
