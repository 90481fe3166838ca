"""A key hidden in a long text: does the model find it, how deep and how far?"""

import random
from collections.abc import Sequence

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

    def size(text: str) -> int:
        return len(tokenizer.encode(text))

    def recall(length: int, depth: float) -> float:
        keys = [passkey(rng, length, depth, size) for _ in range(tries)]
        found = exact_match(model, tokenizer, [(key.prompt, key.answer) for key in keys])
        return sum(found) / tries

    return [[recall(length, depth) for depth in depths] for length in lengths]
