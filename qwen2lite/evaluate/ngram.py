r"""The n-gram model: what counting the last few tokens can do, and so what a network must beat."""

import math
from collections import Counter
from collections.abc import Sequence


class NGram:
    r"""Counts which token followed the last n - 1 tokens, and falls back on fewer.

    $p(w|h) = \frac{c(hw) + T(h)\, p(w|h')}{c(h) + T(h)}$: c counts, T(h) is the number of different
    tokens seen after the history h, and h' is h without its first token. A history that was often
    followed by something new leaves more to the shorter one (Witten and Bell's smoothing). Below
    the single token stands an even chance for each of V.

    Args:
        ids: the training text.
        order: n; 1 is the unigram model, which looks at nothing.
        vocab_size: V.

    Source: Chen and Goodman, cmp-lg/9606011, section 2.
    """

    def __init__(self, ids: Sequence[int], order: int, vocab_size: int):
        if order < 1 or not len(ids):
            raise ValueError(f"an n-gram model needs order 1 or above and a text; got {order}")
        self.order, self.vocab_size = order, vocab_size
        tokens = [int(token) for token in ids]
        self._counts: list[Counter[tuple[int, ...]]] = [
            Counter(zip(*(tokens[start:] for start in range(length)), strict=False))
            for length in range(1, order + 1)
        ]
        self._seen: Counter[tuple[int, ...]] = Counter()
        self._kinds: Counter[tuple[int, ...]] = Counter()
        for counts in self._counts:
            for run, count in counts.items():
                self._seen[run[:-1]] += count
                self._kinds[run[:-1]] += 1

    def probability(self, history: tuple[int, ...], token: int) -> float:
        """Of a token after a history, of which the last n - 1 count."""
        probability = 1 / self.vocab_size
        for length in range(min(len(history), self.order - 1) + 1):
            context = history[len(history) - length :]
            kinds = self._kinds[context]
            if not kinds:
                break
            count = self._counts[length][(*context, token)]
            probability = (count + kinds * probability) / (self._seen[context] + kinds)
        return probability

    def perplexity(self, ids: Sequence[int]) -> float:
        """Of a text: e to the mean of -ln p. Raises ValueError for one without a token."""
        if not len(ids):
            raise ValueError("a text without a token has no perplexity; give at least one")
        tokens = [int(token) for token in ids]
        total = 0.0
        for place, token in enumerate(tokens):
            history = tuple(tokens[max(0, place - self.order + 1) : place])
            total -= math.log(self.probability(history, token))
        return math.exp(total / len(tokens))
