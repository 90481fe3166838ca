"""Online preferences: a policy answers, its best and its worst answer are a pair to learn from.

So it learns from its own mistakes, those it still makes. Qwen2 lets a reward model choose the two
(arXiv 2407.10671, section 4.3); how many answers it chooses from is unpublished.
"""

import random
from collections.abc import Callable, Sequence

from qwen2lite.align.dpo import LearntPair
from qwen2lite.align.sft import Learnt
from qwen2lite.infer.batch import generate_batch
from qwen2lite.infer.sample import Sampling
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.chat import Message, encode_chat, turn_tokens
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.loss import IGNORED

Reward = Callable[[Sequence[Sequence[Message]]], Sequence[float]]
"""Says of each of several whole conversations how good its answer is."""
_ROWS = 64
"""Answers that are written at once."""


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
        ValueError: fewer samples, no temperature; see `generate_batch` and `encode_chat`.
    """
    if samples < 2 or not temperature > 0:
        raise ValueError(
            "a best and a worst answer need 2 samples and a temperature above 0, or more; got "
            f"{samples} samples and a temperature of {temperature}"
        )
    asked = [prompt for prompt in prompts for _ in range(samples)]
    starts = [encode_chat(tokenizer, prompt) for prompt in asked]
    seeds, (_, end) = random.Random(seed), turn_tokens(tokenizer)
    draws = [Sampling(temperature=temperature, seed=seeds.getrandbits(60)) for _ in asked]
    samplers = [draw.sampler() for draw in draws]
    written = generate_batch(model, starts, max_new_tokens, samplers.__getitem__, {end}, rows=_ROWS)
    answers = [{"role": "assistant", "content": tokenizer.decode(ids)} for ids in written]
    scores = reward([[*prompt, said] for prompt, said in zip(asked, answers, strict=True)])
    pairs = []
    for first in range(0, len(asked), samples):
        ranked = sorted(range(first, first + samples), key=lambda number: float(scores[number]))
        worst, best = ranked[0], ranked[-1]
        if scores[best] > scores[worst]:
            chosen, rejected = (
                _learnt(starts[number], written[number], end, max_new_tokens)
                for number in (best, worst)
            )
            pairs.append((chosen, rejected))
    return pairs


def _learnt(start: list[int], written: list[int], end: int, most: int) -> Learnt:
    """An answer as it was written, token by token, and the end of its turn if there was one."""
    said = [*written, end] if len(written) < most else written
    return start + said, [IGNORED] * (len(start) - 1) + said + [IGNORED]
