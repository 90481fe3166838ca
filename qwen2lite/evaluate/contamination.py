"""Had it seen the questions? A score on all of them, and on those that no training text shares.

A question counts as contaminated if 13 words in a row of it stand in the corpus. That finds copies,
not paraphrases; and it finds set phrases and common code too, which give nothing away.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qwen2lite.train.corpus import Document
from qwen2lite.train.decontaminate import Examination


@dataclass(frozen=True)
class CleanScore:
    """One row of the report's table; shares are 0 … 1.

    Args:
        score: on all questions.
        contaminated: share of the questions.
        clean: score on the others; None where no question is clean.
    """

    score: float
    contaminated: float
    clean: float | None

    @property
    def difference(self) -> float | None:
        """Clean score minus score: below 0 where what was seen helped."""
        return None if self.clean is None else self.clean - self.score


def found_in(examination: Examination, corpus: Iterable[Document]) -> set[int]:
    """Numbers of the questions that share a run of words with a training text.

    Those in `examination.too_short` can't be found, so that they count as clean and needn't be.

    Args:
        examination: of the questions' texts.
        corpus: streamed past them.
    """
    return set().union(*(examination.sharing(document.text) for document in corpus))


def clean_score(right: Sequence[bool], contaminated: set[int]) -> CleanScore:
    """The score with and without the contaminated questions.

    Args:
        right: which questions were answered rightly.
        contaminated: numbers of questions, from `found_in`.

    Raises:
        ValueError: no answer, or numbers of questions that weren't asked.

    Source: arXiv 2407.10671, section 5.2.6 and Table 15.
    """
    if not right or not contaminated <= set(range(len(right))):
        raise ValueError(
            f"there are {len(right)} answers, and contaminated are {sorted(contaminated)[:5]} …; "
            "count questions from 0"
        )
    clean = [hit for number, hit in enumerate(right) if number not in contaminated]
    return CleanScore(
        sum(right) / len(right),
        len(contaminated) / len(right),
        sum(clean) / len(clean) if clean else None,
    )
