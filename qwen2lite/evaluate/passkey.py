"""A key hidden in a long text: does the model find it, how deep and how far?"""

import random
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from qwen2lite.evaluate.exact_match import exact_match
from qwen2lite.evaluate.finished import Finished
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
    finished = Finished(file)
    cells = [(length, depth) for length in lengths for depth in depths]
    grid = {}
    for length, depth in tqdm(cells, desc=name, unit=" cells", disable=not bar):
        cell: dict[str, str | float] = {
            "name": name,
            "length": length,
            "depth": depth,
            "tries": tries,
            "seed": seed,
        }
        if finished.get(**cell) is None:
            rng = random.Random(f"{seed} {length} {depth}")
            finished.keep(_recall(model, tokenizer, length, depth, tries, rng), **cell)
        grid[length, depth] = finished.get(**cell)
    return [[grid[length, depth] for depth in depths] for length in lengths]


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
