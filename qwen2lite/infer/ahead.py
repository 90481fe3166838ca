r"""On a GPU, the next step is sent off before the host has seen this step's token.

`generate_ids` waits for each token and then prepares the next step, and meanwhile the GPU rests. But
the GPU has no need to wait: the token that it chose lies in its memory, where the next step reads it.
The price is a step too many when a text ends by a stop token. Draws don't wait either: only random
numbers come from the host (`infer.sample.draw_one`).
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, pairwise
from typing import Any

import torch

from qwen2lite.infer.generate import generate_ids, room
from qwen2lite.infer.sample import Sampler, Sampling
from qwen2lite.model.qwen2 import Qwen2


@torch.inference_mode()
def generate_ahead(
    model: Qwen2,
    prompt_ids: Sequence[int],
    max_new_tokens: int = 512,
    sampler: Sampler | None = None,
    eos_ids: Collection[int] = (),
) -> Iterator[int]:
    """Yields what `generate_ids` yields. Arguments and errors are the same."""
    steps: Iterator[Any] = _steps(
        model, prompt_ids, max_new_tokens, sampler or Sampling().sampler()
    )
    # Of each pair, the second step has been sent when the first one's token is waited for.
    for arrived, _ in pairwise(chain(steps, (None,))):
        (token,) = arrived()
        if token in eos_ids:
            return
        yield token


def _steps(
    model: Qwen2, prompt_ids: Sequence[int], max_new_tokens: int, sampler: Sampler
) -> Iterator[Callable[[], list[int]]]:
    """Sends a step each time it is asked, and gives a function that waits for the step's token."""
    length = room(model, prompt_ids, max_new_tokens)
    cache = model.new_cache(length)
    history_BS = torch.tensor([list(prompt_ids)], device=model.device)
    unread_BT = history_BS
    while history_BS.shape[1] < length:
        logits_BV = model(unread_BT, cache, last_only=True)[:, -1]
        unread_BT = sampler(logits_BV, history_BS)[:, None]
        history_BS = torch.cat((history_BS, unread_BT), dim=1)
        yield sent(unread_BT[0])


def fastest_writer(model: Qwen2) -> Callable[..., Iterator[int]]:
    """`generate_ahead` for a model on a GPU; `generate_ids` on a CPU, which has nobody to send to."""
    return generate_ahead if works_beside(model.device) else generate_ids


def works_beside(device: torch.device) -> bool:
    """Whether a device works on what it was sent while the host goes on."""
    return device.type == "cuda"


def sent(tokens_B: torch.Tensor) -> Callable[[], list[int]]:
    """Sends numbers to the host's memory. The result waits for them, and for nothing sent later."""
    if not tokens_B.is_cuda:
        return tokens_B.tolist
    there = torch.empty(tokens_B.shape, dtype=tokens_B.dtype, pin_memory=True)
    there.copy_(tokens_B, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()

    def wait() -> list[int]:
        arrived.synchronize()
        return there.tolist()

    return wait
