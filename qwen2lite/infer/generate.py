"""Generation: read the prompt once, then one token at a time until a stop token or the limit."""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from qwen2lite.infer.cpu import fastest_products
from qwen2lite.infer.sample import Sampler, Sampling
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer


@torch.inference_mode()
def generate_ids(
    model: Qwen2,
    prompt_ids: Sequence[int],
    max_new_tokens: int = 512,
    sampler: Sampler | None = None,
    eos_ids: Collection[int] = (),
) -> Iterator[int]:
    """Yields token ids that continue a prompt, each as soon as it is chosen.

    Prefill reads the whole prompt in one pass and scores only its last position; each decode step
    reads one token and leans on the cache for the rest.

    Args:
        model: a loaded model.
        prompt_ids: the text so far, at least one token.
        max_new_tokens: stop after this many, or earlier where the context is full.
        sampler: chooses from logits_BV and the ids so far, on the model's device; None is greedy.
        eos_ids: stop tokens; the one that ends the text is not yielded.

    Raises:
        ValueError: see `room`.
    """
    sampler = sampler or Sampling().sampler()
    cache = model.new_cache(room(model, prompt_ids, max_new_tokens))
    history_BS = torch.tensor([list(prompt_ids)], device=model.device)
    unread_BT = history_BS
    while history_BS.shape[1] < cache.max_length:
        with fastest_products(model.device, model.dtype, rows=unread_BT.shape[1]):
            logits_BV = model(unread_BT, cache, last_only=True)[:, -1]
        unread_BT = sampler(logits_BV, history_BS)[:, None]
        token = int(unread_BT)
        if token in eos_ids:
            return
        yield token
        history_BS = torch.cat((history_BS, unread_BT), dim=1)


def room(model: Qwen2, prompt_ids: Sequence[int], max_new_tokens: int) -> int:
    """Tokens of the prompt and its continuation, no more than the model's context holds.

    Raises:
        ValueError: an empty prompt, one that fills the context, ids outside the vocabulary, or fewer
            than no tokens to write.
    """
    length, limit = len(prompt_ids), model.config.context_length
    if not length:
        raise ValueError("the prompt is empty: give at least one token to continue")
    if max_new_tokens < 0:
        raise ValueError(f"max_new_tokens must be 0 or more, got {max_new_tokens}")
    model.check_ids(torch.as_tensor(prompt_ids, device="cpu")[None])  # a GPU would break off
    if length >= limit:
        raise ValueError(
            f"the prompt has {length} tokens and the model's context holds {limit}; "
            "shorten the prompt so that there is room for an answer"
        )
    return min(length + max_new_tokens, limit)


def generate(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    prompt: str | Sequence[int],
    max_new_tokens: int = 512,
    sampling: Sampling | None = None,
    eos_ids: Collection[int] | None = None,
    write_ids: Callable[..., Iterator[int]] = generate_ids,
) -> Iterator[str]:
    """Yields the continuation of a prompt as pieces of text, none of which cuts a character.

    Args:
        model: a loaded model.
        tokenizer: the model's.
        prompt: text, or ids where you have them, such as those of `encode_chat`.
        max_new_tokens: stop after this many tokens.
        sampling: how to choose; None is greedy.
        eos_ids: stop tokens; None takes the tokenizer's.
        write_ids: gives the ids, as `generate_ids` does.

    Raises:
        ValueError: as in `generate_ids`.
    """
    prompt_ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    stops = tokenizer.eos_ids if eos_ids is None else eos_ids
    sampler = (sampling or Sampling()).sampler()
    decoder = tokenizer.stream()
    for token in write_ids(model, prompt_ids, max_new_tokens, sampler, stops):
        if piece := decoder.push(token):
            yield piece
    if rest := decoder.finish():
        yield rest
