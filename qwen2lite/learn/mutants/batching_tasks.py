"""Wrong answers to the tasks of the exercise 35_batching."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.padding import batch_mask, left_pad
from qwen2lite.learn.mutants.batching import pads_on_the_right
from qwen2lite.model.qwen2 import Qwen2

Prompts = Sequence[Sequence[int]]
Stops = Collection[int]


def _steps(
    model: Qwen2,
    prompts: Prompts,
    count: int,
    first: Callable[..., Tensor | None] = batch_mask,
    later: Callable[..., Tensor | None] = batch_mask,
    pad: Callable[..., tuple[Tensor, Tensor]] = left_pad,
) -> Iterator[list[int]]:
    """The likeliest token of each row, step by step."""
    unread_BT, padding_B = pad(prompts)
    longest = unread_BT.shape[1]
    cache = model.new_cache(longest + count, len(prompts))
    mask = first(padding_B, longest, longest)
    for _ in range(count):
        unread_BT = model(unread_BT, cache, mask, last_only=True)[:, -1:].argmax(-1)
        yield unread_BT[:, 0].tolist()
        mask = later(padding_B, 1, cache.length + 1)


def _until_the_stops(steps: Iterator[list[int]], rows: int, stops: Stops) -> list[list[int]]:
    texts: list[list[int]] = [[] for _ in range(rows)]
    writing = set(range(rows))
    for tokens in steps:
        writing -= {row for row in writing if tokens[row] in stops}
        for row in writing:
            texts[row].append(tokens[row])
        if not writing:
            break
    return texts


def _no_mask(*sizes: Any) -> None:
    return None


def ends_with_the_first(model: Qwen2, prompts: Prompts, count: int, stops: Stops) -> Any:
    """The first row that comes to a stop token ends all the others. Each row has an end of its own."""
    texts: list[list[int]] = [[] for _ in prompts]
    for tokens in _steps(model, prompts, count):
        if any(token in stops for token in tokens):
            break
        for text, token in zip(texts, tokens, strict=True):
            text.append(token)
    return texts


def waits_for_one_moment(model: Qwen2, prompts: Prompts, count: int, stops: Stops) -> Any:
    """It ends when all rows choose a stop token in the same step, which hardly ever happens: until
    then rows write on behind their end. Remember which rows are done."""
    texts: list[list[int]] = [[] for _ in prompts]
    for tokens in _steps(model, prompts, count):
        if all(token in stops for token in tokens):
            break
        for text, token in zip(texts, tokens, strict=True):
            text.append(token)
    return texts


def keeps_the_stop(model: Qwen2, prompts: Prompts, count: int, stops: Stops) -> Any:
    """The stop token is kept. It ends a text and is no part of it."""
    texts: list[list[int]] = [[] for _ in prompts]
    for tokens in _steps(model, prompts, count):
        for text, token in zip(texts, tokens, strict=True):
            if not text or text[-1] not in stops:
                text.append(token)
        if all(text[-1] in stops for text in texts):
            break
    return texts


def never_stops_early(model: Qwen2, prompts: Prompts, count: int, stops: Stops) -> Any:
    """The texts are right, but the model runs on after the last of them has ended: leave the loop
    when no row is writing."""
    return _until_the_stops(iter(list(_steps(model, prompts, count))), len(prompts), stops)


def one_after_the_other(model: Qwen2, prompts: Prompts, count: int, stops: Stops) -> Any:
    """The texts are right, but they are written one after the other, and each step fetches all
    weights for a single row."""
    return [list(generate_ids(model, prompt, count, eos_ids=stops)) for prompt in prompts]


def looks_at_the_padding(model: Qwen2, prompts: Prompts, count: int, stops: Stops) -> Any:
    """The model isn't given a mask, so it is causal, and the padding is read as text
    (TransformerLens #1005)."""
    steps = _steps(model, prompts, count, first=_no_mask, later=_no_mask)
    return _until_the_stops(steps, len(prompts), stops)


def masks_the_prompt_only(model: Qwen2, prompts: Prompts, count: int, stops: Stops) -> Any:
    """The prompt is read with a mask, and the new tokens without: from the second one on a row sees
    the padding. It stays in the cache, so every step needs a mask."""
    steps = _steps(model, prompts, count, later=_no_mask)
    return _until_the_stops(steps, len(prompts), stops)


def padded_on_the_right(model: Qwen2, prompts: Prompts, count: int, stops: Stops) -> Any:
    """The padding stands on the right, and the last column of a short row is scored, which is
    padding."""
    steps = _steps(model, prompts, count, _no_mask, _no_mask, pads_on_the_right)
    return _until_the_stops(steps, len(prompts), stops)


def one_generator_for_all(shares_BV: Tensor, seeds: Sequence[int], steps: int) -> list[list[int]]:
    """All rows draw from one generator, so what a row gets depends on its neighbours: vLLM lost the
    seeds of a batch so (vllm #51226). Each row needs a generator of its own."""
    generator = torch.Generator().manual_seed(seeds[0])
    drawn: list[list[int]] = [[] for _ in seeds]
    for _ in range(steps):
        for text, shares_V in zip(drawn, shares_BV, strict=True):
            text.append(int(torch.multinomial(shares_V, 1, generator=generator)))
    return drawn


def one_seed_for_all(shares_BV: Tensor, seeds: Sequence[int], steps: int) -> list[list[int]]:
    """Each row has a generator, and all of them begin with the first row's seed."""
    return _each_alone(shares_BV, [seeds[0]] * len(seeds), steps)


def seeded_at_each_step(shares_BV: Tensor, seeds: Sequence[int], steps: int) -> list[list[int]]:
    """The generator is made anew at each step, so the same random number comes every time. Make it
    once, before the loop."""
    drawn = _each_alone(shares_BV, seeds, 1)
    return [text * steps for text in drawn]


def seed_counted_up(shares_BV: Tensor, seeds: Sequence[int], steps: int) -> list[list[int]]:
    """The generator is made anew at each step, with the seed and the number of the step. Then seed 7
    draws at once what seed 5 draws two steps later. Make it once, before the loop."""
    columns = [_each_alone(shares_BV, [seed + step for seed in seeds], 1) for step in range(steps)]
    return [[text[0] for text in row] for row in zip(*columns, strict=True)]


def shared_by_equal_seeds(shares_BV: Tensor, seeds: Sequence[int], steps: int) -> list[list[int]]:
    """Rows of the same seed share a generator, as in a dict by seeds, and take its numbers in turns.
    Make one for each row."""
    drawn: list[list[int]] = [[] for _ in seeds]
    for seed in set(seeds):
        rows = [row for row, other in enumerate(seeds) if other == seed]
        found = one_generator_for_all(shares_BV[rows], [seed] * len(rows), steps)
        for row, text in zip(rows, found, strict=True):
            drawn[row] = text
    return drawn


def always_the_likeliest(shares_BV: Tensor, seeds: Sequence[int], steps: int) -> list[list[int]]:
    """Nothing is drawn: the likeliest token comes every time."""
    return [[int(shares_V.argmax())] * steps for shares_V in shares_BV]


def _each_alone(shares_BV: Tensor, seeds: Sequence[int], steps: int) -> list[list[int]]:
    rows = zip(shares_BV[:, None], seeds, strict=True)
    return [one_generator_for_all(shares, [seed], steps)[0] for shares, seed in rows]


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "write_batch": (
        ends_with_the_first,
        waits_for_one_moment,
        keeps_the_stop,
        never_stops_early,
        one_after_the_other,
        looks_at_the_padding,
        masks_the_prompt_only,
        padded_on_the_right,
    ),
    "mended_draws": (
        one_generator_for_all,
        one_seed_for_all,
        shared_by_equal_seeds,
        seeded_at_each_step,
        seed_counted_up,
        always_the_likeliest,
    ),
}
"""The wrong versions of each task."""
