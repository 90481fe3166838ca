"""What `cache` has to do: return all that was stored, in order, and mix up nothing.

The number at position p of head h of text b in layer l is 1000 l + 100 b + 10 h + p + 1, and the value
there is its negative, so that a message shows where a wrong one came from.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from qwen2lite.learn.contract import (
    Mistake,
    call,
    meta_device,
    numbers,
    require_tensor,
    same,
    told_by,
)
from qwen2lite.learn.mutants.cache import MUTANTS, OnTheCpu
from qwen2lite.model.config import Qwen2Config

Part = Callable[..., Any]
Script = Callable[[Part], Iterator[tuple[str, Any, Any]]]
"""Uses a cache; gives what was asked, what came and what should have come."""

_CONFIG = Qwen2Config(
    vocab_size=9,
    hidden_size=20,  # D / N isn't the size of a head
    intermediate_size=5,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=6,
)
_ROOM = 7


def check_cache(cache: Part) -> Iterator[str]:
    """One text, several in layers, every split, a second text, two caches, a full one, types."""
    _require(cache, _one_text)
    yield "a token gets all keys and values up to its own: 1, 2, 3, 4, then 5, 6, then 7"

    _require(cache, _texts_in_layers)
    yield "layers, texts and heads are kept apart; the model alone moves length on"

    _require(cache, _every_split)
    yield "the same for all 64 ways to cut seven tokens into pieces"

    _require(cache, _second_text)
    yield "with length set back, what comes next is written from there"

    _require(cache, _two_caches)
    yield "two caches share nothing"

    _require(cache, _full)
    yield "the last place may be filled; one token more is a ValueError"

    yield from _check_types(cache)


def _numbers(layers: int, texts: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """keys_LBKSH as the head of this file says."""
    sizes = ((layers, 1000), (texts, 100), (2, 10), (_ROOM, 1), (6, 0))
    total = torch.ones(1)
    for size, step in sizes:
        total = total[..., None] + step * torch.arange(size)
    return total[0].to(dtype)


def _cuts(*pieces: int) -> list[tuple[int, int]]:
    ends = torch.tensor(pieces).cumsum(0).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _read(cache: Any, keys_LBKSH: torch.Tensor, pieces: tuple[int, ...], what: str) -> Any:
    """Stores a text piece by piece, as the model does: all layers, then length moves on."""
    for start, end in _cuts(*pieces):
        for layer, keys_BKSH in enumerate(keys_LBKSH):
            new = keys_BKSH[:, :, start:end]
            got = call(cache.update, layer, new, -new, name="update")
            where = f"{what}, tokens {start} … {end - 1} in layer {layer}"
            yield where, got, (keys_BKSH[:, :, :end], -keys_BKSH[:, :, :end])
        cache.length += end - start


def _new(cache: Part, *arguments: Any) -> Any:
    made = call(cache, _CONFIG, _ROOM, *arguments, name="cache")
    for name, want in (("length", 0), ("max_length", _ROOM)):
        if getattr(made, name, None) != want:
            got = getattr(made, name, "missing")
            raise Mistake(f"{name} of a new cache with room for {_ROOM} is {got}, not {want}.")
    return made


def _one_text(cache: Part) -> Iterator[tuple[str, Any, Any]]:
    yield from _read(_new(cache), _numbers(1, 1), (4, 2, 1), "A text of 4 + 2 + 1 tokens")


def _texts_in_layers(cache: Part) -> Iterator[tuple[str, Any, Any]]:
    yield from _read(_new(cache, 5), _numbers(3, 5), (4, 2, 1), "Five texts, three layers")


def _every_split(cache: Part) -> Iterator[tuple[str, Any, Any]]:
    for cut in range(64):
        places = [place for place in range(1, 7) if cut >> (place - 1) & 1]
        pieces = [b - a for a, b in zip([0, *places], [*places, 7], strict=True)]
        named = " + ".join(map(str, pieces))
        yield from _read(_new(cache), _numbers(2, 1), tuple(pieces), f"Cut into {named}")


def _second_text(cache: Part) -> Iterator[tuple[str, Any, Any]]:
    made = _new(cache, 2)
    yield from _read(made, _numbers(3, 2), (6,), "The first text")
    made.length = 0
    yield from _read(made, _numbers(3, 2) + 0.5, (2, 1), "A second text after length = 0")


def _two_caches(cache: Part) -> Iterator[tuple[str, Any, Any]]:
    first, second = _new(cache), _new(cache)
    yield from _read(first, _numbers(1, 1)[..., :3, :], (3,), "The first cache")
    yield from _read(second, _numbers(1, 1) + 0.5, (5,), "A second cache")
    new = _numbers(1, 1)[0, :, :, 3:4]
    got = call(first.update, 0, new, -new, name="update")
    want = _numbers(1, 1)[0, :, :, :4]
    yield "The first cache again, with a second one in use", got, (want, -want)


def _full(cache: Part) -> Iterator[tuple[str, Any, Any]]:
    made = _new(cache)
    yield from _read(made, _numbers(3, 1), (4, 3), "Seven tokens in a room for seven")
    new = _numbers(1, 1)[0]
    yield "An eighth token in a room for seven", _refusal(made, new[:, :, :1]), "ValueError"
    longer = torch.cat((new, new), dim=2)
    yield "Fourteen tokens at once in a room for seven", _refusal(_new(cache), longer), "ValueError"


def _refusal(cache: Any, new: torch.Tensor) -> str:
    try:
        cache.update(0, new, -new)
    except NotImplementedError:
        raise
    except Exception as error:
        return type(error).__name__
    return "no error"


def _require(cache: Part, script: Script) -> None:
    """Raises Mistake at the first answer of the script that isn't the wanted one."""
    try:
        for what, got, want in script(cache):
            _require_answer(what, got, want)
    except Mistake as mistake:
        mine = _transcript(cache, script)
        known = (m for m in MUTANTS["cache"] if same(_transcript(m, script), mine))
        why = next(map(told_by, known), mistake.reason)
        raise Mistake(mistake.wrong, why) from None


def _transcript(cache: Part, script: Script) -> tuple[Any, ...]:
    """All answers up to the first error, and that error's name."""
    answers = []
    try:
        for _, got, _ in script(cache):
            pair = isinstance(got, tuple)
            answers.append(tuple(one.clone() for one in got) if pair else got)
    except Exception as error:
        answers.append(type(error.__cause__ or error).__name__)
    return tuple(answers)


def _require_answer(what: str, got: Any, want: Any) -> None:
    if isinstance(want, str):
        if got != want:
            reason = "Compare where the new tokens end, length + T, with max_length."
            raise Mistake(f"{what}: a {want} was wanted, and there was {got}.", reason)
        return
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(f"{what}: update should return the pair (keys, values).")
    for name, mine, right in zip(("keys", "values"), got, want, strict=True):
        require_tensor(mine, right.shape, right.dtype, f"{what}: update, for the {name},")
        wrong = (mine != right).any(-1).any(-1).nonzero().tolist()
        if wrong:
            text, head = wrong[0]
            raise Mistake(
                f"{what}: the {name} of text {text}, head {head} should be "
                f"{numbers(right[text, head, :, 0])}, and are {numbers(mine[text, head, :, 0])}."
            )


def _check_types(cache: Part) -> Iterator[str]:
    for dtype in (torch.bfloat16, torch.float32):
        new = torch.ones(2, 2, 3, 6, dtype=dtype)
        got = call(_new(cache, 2, dtype).update, 0, new, new, name="update")
        why = next(told_by(m) for m in MUTANTS["cache"] if m.__name__ == "AlwaysFloat32")
        require_tensor(got[0], [2, 2, 3, 6], dtype, f"update of a cache of {dtype}", why)
    elsewhere = meta_device()
    new = torch.ones(1, 2, 3, 6, device=elsewhere)
    try:
        got = call(_new(cache, 1, torch.float32, elsewhere).update, 0, new, new, name="update")
        met = got[0].device == elsewhere
    except (Mistake, NotImplementedError):  # PyTorch's word for a copy between the two
        met = False
    if not met:
        raise Mistake("The model is on one device, and its cache on another.", told_by(OnTheCpu))
    yield "in the dtype and on the device that was asked for"

    made = _new(cache, 5)
    for _ in _read(made, _numbers(3, 5), (_ROOM,), ""):
        pass
    got, want = getattr(made, "nbytes", "missing"), 2 * 3 * 5 * 2 * _ROOM * 6 * 4
    if got != want:
        why = "It is 2 · layers · texts · K · positions · H · bytes a number: keys and values both."
        halves = (m for m in MUTANTS["cache"] if m.__name__ == "BytesOfTheKeys")
        raise Mistake(
            f"For 3 layers, 5 texts, 2 heads of 6 float32 and {_ROOM} positions nbytes is {got}, "
            f"and should be {want}.",
            next(map(told_by, halves)) if got == want // 2 else why,
        )
    yield "nbytes counts keys and values of all layers and texts"
