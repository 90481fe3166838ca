"""What the exercise 35_batching asks beside padding and mask: a loop for many rows, and a bug."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import torch

from qwen2lite.infer.generate import generate_ids
from qwen2lite.learn.cases import PROBE, draw_weights
from qwen2lite.learn.contract import Mistake, call, describe, told_by, usual_reason
from qwen2lite.learn.mutants.batching_tasks import MUTANTS, seed_counted_up, shared_by_equal_seeds
from qwen2lite.model.qwen2 import Qwen2

Part = Callable[..., Any]
Prompts = Sequence[Sequence[int]]

PROMPTS = ([7, 49, 43], [5, 55], [46, 27, 24, 35])
COUNT = 8


def check_write_batch(write_batch: Part) -> Iterator[str]:
    """The tokens of each prompt alone, from as many calls of the model as the longest text needs."""
    model = Qwen2(PROBE)
    draw_weights(model.eval())
    ends = stop_tokens(model)
    for prompts, stops, fact in (
        (PROMPTS[:1], (), "a single prompt"),
        (PROMPTS, (), "three prompts, each as if it were alone"),
        (PROMPTS, ends[:1], "a row that ends leaves the others alone"),
        (PROMPTS, ends, "when all have ended, so does the loop"),
    ):
        _require_texts(write_batch, model, prompts, stops)
        yield fact


def stop_tokens(model: Qwen2) -> tuple[int, ...]:
    """A stop token for each row: one token of row 2 comes before it, three of row 0, six of row 1."""
    texts = [list(generate_ids(model, prompt, COUNT)) for prompt in PROMPTS]
    return texts[2][1], texts[0][3], texts[1][6]


def _require_texts(
    write_batch: Part, model: Qwen2, prompts: Prompts, stops: Collection[int]
) -> None:
    want = [list(generate_ids(model, prompt, COUNT, eos_ids=stops)) for prompt in prompts]
    got, calls = _asked(write_batch, model, prompts, stops)
    if not isinstance(got, list):
        raise Mistake(f"write_batch returned {describe(got)}; a list of lists of ids was wanted.")

    def why() -> str:
        wrong = MUTANTS["write_batch"]
        known = (m for m in wrong if _asked(m, model, prompts, stops) == (got, calls))
        return next(map(told_by, known), "")

    if got != want:
        raise Mistake(
            f"After {list(prompts)} with the stop tokens {sorted(stops)} come {want}, "
            f"and yours are {got}.",
            why(),
        )
    needed = max(min(len(text) + 1, COUNT) for text in want)
    if calls != needed:
        raise Mistake(f"The model was called {calls} times, and {needed} would do.", why())


def _asked(part: Part, model: Qwen2, prompts: Prompts, stops: Collection[int]) -> tuple[Any, int]:
    """The ids that come back, and how often the model was called."""
    calls: list[int] = []
    counter = model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        with torch.inference_mode():
            got = call(part, model, prompts, COUNT, stops, name="write_batch")
    finally:
        counter.remove()
    return _as_lists(got), len(calls)


def _as_lists(got: Any) -> Any:
    try:
        return [[int(token) for token in text] for text in got]
    except (TypeError, ValueError):
        return got


def check_mended_draws(mended_draws: Part) -> Iterator[str]:
    """A row draws the same whoever stands beside it, also its twin, by its seed and by its shares."""
    even, odd = [0.25] * 4, [0.0, 0.8, 0.2, 0.0]
    together, why = _drawn(mended_draws, [even, odd, even], [5, 6, 7], 20)
    for row, shares in enumerate((even, odd, even)):
        alone, _ = _drawn(mended_draws, [shares], [5 + row], 20)
        if together[row] != alone[0]:
            raise Mistake(
                f"Row {row} draws {together[row][:8]} … among three, and {alone[0][:8]} … alone.",
                why or "Is there a generator for each row, and does it begin with the row's seed?",
            )
    yield "a row draws the same, whoever stands beside it"

    if len(set(together[0])) == 1:
        raise Mistake(f"Four tokens are equally likely, and {together[0]} were drawn.", why)
    _require_others(together[0], together[2], why)
    yield "other seeds, other tokens"

    twins, _ = _drawn(mended_draws, [even, even], [5, 5], 20)
    if twins != [together[0]] * 2:
        raise Mistake(
            f"Two rows have the seed 5 and draw {twins[0][:8]} … and {twins[1][:8]} ….",
            told_by(shared_by_equal_seeds),
        )
    yield "equal seeds, equal tokens"

    often, why = _drawn(mended_draws, [odd], [3], 400)
    found = [often[0].count(token) for token in range(4)]
    if found[0] or found[3] or not 280 <= found[1] <= 360:
        raise Mistake(f"Of 400 draws with the shares {odd} the four tokens got {found}.", why)
    yield "as often as the shares say"


def _drawn(
    part: Part, shares: list[list[float]], seeds: list[int], steps: int
) -> tuple[list[Any], str]:
    """The rows that are drawn, and what the known mistake says of itself that draws the same."""
    inputs = torch.tensor(shares), seeds, steps
    got = _as_lists(call(part, *inputs, name="mended_draws"))
    if not isinstance(got, list) or [len(text) for text in got] != [steps] * len(seeds):
        raise Mistake(
            f"mended_draws returned {describe(got)}; "
            f"{len(seeds)} lists of {steps} tokens were wanted."
        )
    return got, usual_reason(MUTANTS["mended_draws"], got, *inputs)


def _require_others(five: list[int], seven: list[int], why: str) -> None:
    """Raises Mistake where seeds 5 and 7 draw the same tokens, at once or two steps apart."""
    if five == seven:
        raise Mistake("Two rows with the same shares and other seeds draw the same tokens.", why)
    if five[2:] == seven[:-2] or seven[2:] == five[:-2]:
        raise Mistake(
            f"Seed 5 draws {five[:8]} …, and seed 7 the same two steps apart: {seven[:8]} ….",
            why or told_by(seed_counted_up),
        )
