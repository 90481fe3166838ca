"""Answers of the policy itself, drawn by chance: what online training learns from."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Answer:
    """An answer as it was written, token by token."""

    talk: Sequence[Message]
    """The conversation that it ends."""
    learnt: Learnt
    """The ids from the prompt's first to the answer's last, and after each what is learnt: the answer
    and, where there is one, its `<|im_end|>`."""
    ended: bool
    """Whether it ended by itself; one that was cut off has no `<|im_end|>` to learn."""


def written_answers(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    prompts: Sequence[Sequence[Message]],
    samples: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_new_tokens: int = 64,
    seed: int = 0,
) -> list[Answer]:
    """Lets a policy answer each prompt several times; all answers of a prompt stand together.

    Args:
        model: the policy.
        tokenizer: the model's, with the tokens of a chat.
        prompts: conversations that wait for an answer.
        samples: answers a prompt.
        temperature: see `Sampling`.
        top_p: see `Sampling`.
        max_new_tokens: an answer that isn't done by then, or when the context is full, is cut off.
        seed: of the samples.

    Raises:
        ValueError: no prompt; see `Sampling`, `generate_batch` and `encode_chat` for the rest.
    """
    asked = [prompt for prompt in prompts for _ in range(samples)]
    starts = [encode_chat(tokenizer, prompt) for prompt in asked]
    seeds, (_, end) = random.Random(seed), turn_tokens(tokenizer)
    draws = [
        Sampling(temperature=temperature, top_p=top_p, seed=seeds.getrandbits(60)) for _ in asked
    ]
    samplers = [draw.sampler() for draw in draws]
    written = generate_batch(model, starts, max_new_tokens, samplers.__getitem__, {end}, rows=_ROWS)
    answers = []
    for prompt, start, ids in zip(asked, starts, written, strict=True):
        ended = len(ids) < min(max_new_tokens, model.config.context_length - len(start))
        said = [*ids, end] if ended else ids
        talk = [*prompt, {"role": "assistant", "content": tokenizer.decode(ids)}]
        targets = [IGNORED] * (len(start) - 1) + said + [IGNORED]
        answers.append(Answer(talk, (start + said, targets), ended))
    return answers
