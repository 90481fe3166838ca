"""Online preferences: a policy answers, its best and its worst answer are a pair to learn from.

So it learns from its own mistakes, those it still makes. Qwen2 lets a reward model choose the two
(arXiv 2407.10671, section 4.3); how many answers it chooses from is unpublished.
"""

from collections.abc import Sequence

from qwen2lite.align.dpo import LearntPair
from qwen2lite.align.rollout import Reward, written_answers
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.chat import Message
from qwen2lite.text.tokenizer import Qwen2Tokenizer


def online_pairs(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    prompts: Sequence[Sequence[Message]],
    reward: Reward,
    samples: int = 8,
    temperature: float = 1.0,
    max_new_tokens: int = 64,
    seed: int = 0,
) -> list[LearntPair]:
    """Lets a policy answer each prompt several times; its best and its worst answer are a pair.

    A prompt whose answers have all the same reward gives none. With the pairs and a reference
    `dpo_step` makes one episode. Its loss may stay near ln 2 while answers get better: the rejected
    answer too is one that the policy finds likely now. Where the policy is its own reference, all
    margins are 0, and beta only scales a gradient, which clipping and AdamW undo.

    Args:
        model: the policy.
        tokenizer: the model's, with the tokens of a chat.
        prompts: conversations that wait for an answer.
        reward: is given each prompt with an answer as its last message.
        samples: answers a prompt, 2 or more.
        temperature: above 0; see `Sampling`.
        max_new_tokens: an answer that isn't done by then has no `<|im_end|>` to learn.
        seed: of the samples.

    Raises:
        ValueError: fewer samples, no temperature; see `written_answers` for the rest.
    """
    if samples < 2 or not temperature > 0:
        raise ValueError(
            "a best and a worst answer need 2 samples and a temperature above 0, or more; got "
            f"{samples} samples and a temperature of {temperature}"
        )
    draw = (samples, temperature, 1.0, max_new_tokens, seed)
    answers = written_answers(model, tokenizer, prompts, *draw)
    scores = reward([answer.talk for answer in answers])
    pairs = []
    for first in range(0, len(answers), samples):
        ranked = sorted(range(first, first + samples), key=lambda number: float(scores[number]))
        worst, best = ranked[0], ranked[-1]
        if scores[best] > scores[worst]:
            pairs.append((answers[best].learnt, answers[worst].learnt))
    return pairs
