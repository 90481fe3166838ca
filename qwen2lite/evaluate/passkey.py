"""A key hidden in a long text: does the model find it, how deep and how far?"""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from qwen2lite.evaluate.exact_match import exact_match
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.tasks import passkey


def passkey_recall(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    lengths: Sequence[int],
    depths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    tries: int = 4,
    seed: int = 0,
) -> list[list[float]]:
    """The share of keys found, a row a length and a column a depth.

    Args:
        model: in evaluation mode.
        tokenizer: of that model.
        lengths: of the documents, in tokens.
        depths: from 0, the beginning, to 1, just before the question.
        tries: keys for each.
        seed: of keys and filler.

    Raises:
        ValueError: a length without room for the question.
    """
    rng = random.Random(seed)
    return [[_recall(model, tokenizer, n, depth, tries, rng) for depth in depths] for n in lengths]


def resumable_recall(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    lengths: Sequence[int],
    depths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    tries: int = 4,
    seed: int = 0,
    *,
    file: str | Path,
    name: str = "",
    bar: bool = True,
) -> list[list[float]]:
    """`passkey_recall` for texts that take long: each finished cell goes into a file at once.

    Run it again after it was stopped, with the same arguments, and it goes on where it was. Each cell
    draws from a seed of its own, so the keys don't depend on what was measured before; those of
    `passkey_recall` do, and are others.

    Args:
        model: as in `passkey_recall`; it has to be the same one when a run goes on.
        tokenizer: as in `passkey_recall`.
        lengths: as in `passkey_recall`.
        depths: as in `passkey_recall`.
        tries: as in `passkey_recall`.
        seed: as in `passkey_recall`.
        file: one JSON object a line; several models may share it under different names.
        name: of the model and the way it reads.
        bar: show a progress bar over the cells.

    Raises:
        ValueError: a length without room for the question, or a file that holds something else.
    """
    path = Path(file)
    done = _finished(path)
    cells = [(length, depth) for length in lengths for depth in depths]
    found = {}
    for length, depth in tqdm(cells, desc=name, unit=" cells", disable=not bar):
        asked = {"name": name, "length": length, "depth": depth, "tries": tries, "seed": seed}
        if _key(asked) not in done:
            rng = random.Random(f"{seed} {length} {depth}")
            recall = _recall(model, tokenizer, length, depth, tries, rng)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({**asked, "recall": recall}) + "\n")
            done[_key(asked)] = recall
        found[length, depth] = done[_key(asked)]
    return [[found[length, depth] for depth in depths] for length in lengths]


def _recall(
    model: Qwen2,
    tokenizer: Qwen2Tokenizer,
    length: int,
    depth: float,
    tries: int,
    rng: random.Random,
) -> float:
    def size(text: str) -> int:
        return len(tokenizer.encode(text))

    keys = [passkey(rng, length, depth, size) for _ in range(tries)]
    return sum(exact_match(model, tokenizer, [(key.prompt, key.answer) for key in keys])) / tries


def _key(cell: dict[str, Any]) -> tuple[Any, ...]:
    names = ("name", "length", "depth", "tries", "seed")
    return tuple(float(cell[n]) if n == "depth" else cell[n] for n in names)


def _finished(path: Path) -> dict[tuple[Any, ...], float]:
    """The cells in the file. A last line that was cut off in writing is taken out of it."""
    if not path.is_file():
        return {}
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    try:
        cells = [json.loads(line) for line in whole.splitlines()]
        return {_key(cell): cell["recall"] for cell in cells}
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} doesn't hold the cells of a needle grid ({error!r}); name another file"
        ) from None
