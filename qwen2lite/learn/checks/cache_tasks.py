"""What the exercise 34_kv_cache asks beside the cache: a count, a loop, a bug and a measurement."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from qwen2lite.learn.cases import PROBE, draw_weights
from qwen2lite.learn.contract import Mistake, call, describe, require_number, same, told_by
from qwen2lite.learn.mutants.attention import queries_at_the_start
from qwen2lite.learn.mutants.cache_tasks import MUTANTS
from qwen2lite.model.qwen2 import Parts, Qwen2

Part = Callable[..., Any]

_PROMPT = [58, 29, 58, 53, 51]
_PROMPTS = ([7, 49, 43], [5, 55], [46, 27, 24, 35])
_COUNT = 6


def check_tokens_read(tokens_read: Part) -> Iterator[str]:
    """Four tokens and three new ones by hand, then other lengths, one token at a time."""
    for prompt, new in ((4, 3), (100, 1), (100, 1000)):
        texts = [prompt + step for step in range(new)]
        got = [call(tokens_read, prompt, new, cached) for cached in (False, True)]
        for cached, mine, want in zip((False, True), got, (sum(texts), texts[-1]), strict=True):
            require_number(mine, "tokens_read", whole=True)
            if mine != want:
                known = (
                    mutant
                    for mutant in MUTANTS["tokens_read"]
                    if [mutant(prompt, new, cached) for cached in (False, True)] == got
                )
                raise Mistake(
                    f"tokens_read({prompt}, {new}, cached={cached}) is {want:,}, yours {mine:,}.",
                    next(map(told_by, known), ""),
                )
        yield f"right for a prompt of {prompt} and {new} new"


def _probe(parts: Parts | None = None) -> Qwen2:
    model = Qwen2(PROBE, parts)
    draw_weights(model)
    return model.eval()


def check_continue_ids(continue_ids: Part) -> Iterator[str]:
    """The tokens of reading everything again, from a prompt read once and one token a step."""

    def asked(part: Part, count: int = _COUNT) -> tuple[Any, list[int]]:
        model, pieces = _probe(), []
        model.register_forward_pre_hook(lambda _, inputs: pieces.append(inputs[0].shape[1]))
        with torch.inference_mode():
            got = call(part, model, list(_PROMPT), count, name="continue_ids")
        return [int(token) for token in got] if isinstance(got, list | tuple) else got, pieces

    def why() -> str:
        mine = asked(continue_ids)
        known = (m for m in MUTANTS["continue_ids"] if _agree(asked, m, mine))
        return next(map(told_by, known), "")

    got, pieces = asked(continue_ids)
    if not isinstance(got, list):
        raise Mistake(f"continue_ids returned {describe(got)}; a list of ids was wanted.")
    ids = list(_PROMPT)
    with torch.inference_mode():
        for _ in range(_COUNT):
            ids.append(int(_probe()(torch.tensor([ids]))[0, -1].argmax()))
    want = ids[len(_PROMPT) :]
    if got != want:
        raise Mistake(f"After {_PROMPT} come {want}, and yours are {got}.", why())
    yield "the tokens that reading everything again would give"

    wanted_pieces = [len(_PROMPT)] + [1] * (_COUNT - 1)
    if pieces != wanted_pieces:
        raise Mistake(
            f"The model was given {pieces} tokens, call by call, and {wanted_pieces} would do.",
            why() or "Each token is read once, and the last one not at all.",
        )
    yield "the prompt is read once, and then one token a step"

    if asked(continue_ids, 1)[0] != want[:1]:
        raise Mistake("Asked for a single token, continue_ids gives another number of them.")
    yield "a single token needs no second step"


def _agree(ask: Part, mutant: Part, mine: Any) -> bool:
    try:
        return bool(ask(mutant) == mine)
    except Mistake:
        return False


def check_next_tokens(next_tokens: Part) -> Iterator[str]:
    """Three prompts, each answered as if it were alone."""
    model = _probe()

    def asked(part: Part, prompts: Sequence[Sequence[int]]) -> Any:
        with torch.inference_mode():
            got = call(part, model, prompts, name="next_tokens")
        return [int(token) for token in got] if isinstance(got, list | tuple) else got

    with torch.inference_mode():
        want = [int(model(torch.tensor([ids]))[0, -1].argmax()) for ids in _PROMPTS]
    for count, fact in ((1, "a single prompt"), (3, "three prompts, each as if it were alone")):
        got = asked(next_tokens, _PROMPTS[:count])
        if got != want[:count]:
            known = (m for m in MUTANTS["next_tokens"] if asked(m, _PROMPTS[:count]) == got)
            raise Mistake(
                f"After {', '.join(map(str, _PROMPTS[:count]))} come {want[:count]}, "
                f"and yours are {got}.",
                next(map(told_by, known), ""),
            )
        yield fact


def check_split_error(split_error: Part) -> Iterator[str]:
    """Next to nothing for a right model, and the very difference for one that masks wrongly."""
    generator = torch.Generator().manual_seed(4)
    ids_BT = torch.randint(PROBE.vocab_size, (2, 7), generator=generator)

    right, wrong = _probe(), _probe(Parts(attend=queries_at_the_start))
    for pieces in ((4, 2, 1), (7,), (1, 6)):
        got = _split_error(split_error, right, ids_BT, pieces)
        if not 0 <= got < 1e-3:
            raise Mistake(
                f"A right model, {_named(pieces)} tokens: next to nothing was expected, "
                f"and split_error found {float(got):.4g}.",
                _known_splitting(got, 1e-4, right, ids_BT, pieces),
            )
    yield "rounding alone, where the model is right"

    for pieces in ((4, 2, 1), (3, 1, 3)):
        _require_difference(split_error, wrong, ids_BT, pieces)
    yield "the whole difference, where a mask is wrong"
    _require_difference(split_error, wrong, ids_BT.flip(0), (4, 2, 1), ", the two texts exchanged")
    yield "in whichever text it is the largest"


def _split_error(
    part: Part, model: Qwen2, ids_BT: torch.Tensor, pieces: tuple[int, ...]
) -> torch.Tensor:
    with torch.inference_mode():
        got = call(part, model, ids_BT, pieces, name="split_error")
    if not isinstance(got, float | torch.Tensor) or torch.as_tensor(got).numel() != 1:
        raise Mistake(f"split_error returned {describe(got)}; one number was wanted.")
    return torch.as_tensor(float(got))


def _require_difference(
    part: Part, wrong: Qwen2, ids_BT: torch.Tensor, pieces: tuple[int, ...], texts: str = ""
) -> None:
    want, got = _largest(wrong, ids_BT, pieces), _split_error(part, wrong, ids_BT, pieces)
    if not same(got, want, 1e-3):
        raise Mistake(
            f"A model that masks pieces wrongly, {_named(pieces)} tokens{texts}: the largest "
            f"difference is {float(want):.4g}, and split_error found {float(got):.4g}.",
            _known_splitting(got, 1e-3, wrong, ids_BT, pieces),
        )


def _known_splitting(got: torch.Tensor, tolerance: float, *asked: Any) -> str:
    """What the known mistake says of itself that gives this number, or "" where none does."""
    mutants = MUTANTS["split_error"]
    known = (m for m in mutants if same(_split_error(m, *asked), got, tolerance))
    return next(map(told_by, known), "")


def _named(pieces: tuple[int, ...]) -> str:
    return " + ".join(map(str, pieces))


@torch.inference_mode()
def _largest(model: Qwen2, ids_BT: torch.Tensor, pieces: tuple[int, ...]) -> torch.Tensor:
    cache, start, largest = model.new_cache(ids_BT.shape[1], len(ids_BT)), 0, torch.zeros(())
    whole_BTV = model(ids_BT)
    for piece in ids_BT.split(pieces, dim=1):
        end = start + piece.shape[1]
        off = (model(piece, cache) - whole_BTV[:, start:end]).abs().max()
        largest, start = torch.maximum(largest, off), end
    return largest
