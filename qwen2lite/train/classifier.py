r"""A quality filter that is learnt: logistic regression on hashed pieces of text.

Whoever can show good and bad texts needs to write no rule. Each piece falls into one of 65,536
buckets, each bucket has a weight, and the mean of a text's weights is its score.

Source: as a filter of web text: arXiv 2005.14165, appendix A; the model, with two layers in one:
arXiv 1607.01759, section 2. Qwen2's filters are Qwen models (arXiv 2407.10671, section 3.1).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from qwen2lite.train.corpus import Document
from qwen2lite.train.pieces import BUCKETS, character_buckets

_BATCH = 64


class QualityClassifier:
    """Says how much a text is like the good examples rather than the bad ones: see `fit`.

    Args:
        weights: a number a bucket, above 0 where its pieces speak for a good text.
        pieces: makes buckets of a text.
    """

    def __init__(self, weights: torch.Tensor, pieces: Callable[[str], np.ndarray]):
        self.weights, self.pieces = weights, pieces

    @classmethod
    def fit(
        cls,
        good: Sequence[str],
        bad: Sequence[str],
        pieces: Callable[[str], np.ndarray] = character_buckets,
        epochs: int = 5,
        learning_rate: float = 0.3,
        seed: int = 0,
    ) -> "QualityClassifier":
        """Learns from examples of both kinds, each kind counting as much as the other.

        What differs between the examples is learnt, whatever it is: if all good ones are short,
        it learns that short is good.

        Args:
            good: texts to keep.
            bad: texts to drop.
            pieces: `character_buckets` sees spelling and layout, `word_buckets` subject and style.
            epochs: how often each example is seen.
            learning_rate: of Adam.
            seed: of the order.

        Raises:
            ValueError: no example of one kind.
        """
        if not good or not bad:
            raise ValueError(
                f"got {len(good)} good and {len(bad)} bad examples; it takes both to tell them apart"
            )
        bags = [pieces(text) for text in (*good, *bad)]
        is_good = torch.tensor([1.0] * len(good) + [0.0] * len(bad))
        balance = torch.where(is_good == 1, len(bad), len(good)).float() / max(len(good), len(bad))
        weights = torch.zeros(BUCKETS, 1, requires_grad=True)
        optimizer = torch.optim.Adam([weights], lr=learning_rate)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for batch in torch.randperm(len(bags), generator=generator).split(_BATCH):
                logits = _logits([bags[number] for number in batch.tolist()], weights)
                loss = F.binary_cross_entropy_with_logits(logits, is_good[batch], balance[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return cls(weights.detach(), pieces)

    def score(self, texts: Iterable[str]) -> np.ndarray:
        """For each text how probable it is that it is a good one, 0 to 1. A text without any piece
        gets 0.5: nothing is known about it."""
        scores = [_logits([self.pieces(text)], self.weights).sigmoid().item() for text in texts]
        return np.array(scores)

    def keep(self, documents: Iterable[Document], least: float = 0.5) -> Iterator[Document]:
        """Drops the documents with a score below `least`."""
        return (document for document in documents if self.score([document.text])[0] >= least)


def _logits(bags: list[np.ndarray], weights: torch.Tensor) -> torch.Tensor:
    starts = np.cumsum([0, *map(len, bags[:-1])])
    pieces = torch.from_numpy(np.concatenate(bags))
    return F.embedding_bag(pieces, weights, torch.from_numpy(starts), mode="mean")[:, 0]
