"""Copies are found, paraphrases aren't, and the row is the report's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite.evaluate.contamination import CleanScore, clean_score, found_in
from qwen2lite.train.corpus import Document
from qwen2lite.train.decontaminate import Examination

TEXTS = [
    "Which of the four rivers of the old kingdom flows through the capital and then into the sea?",
    "How many of the thirty students who came by train on the first day stayed until the evening?",
    "What is the capital of France?",
]


def documents(*texts):
    return [Document(text, "a page") for text in texts]


def test_copies_are_found_in_any_case_and_punctuation_and_paraphrases_are_not():
    examination = Examination(TEXTS)
    copied = "Quiz!  HOW MANY of the thirty students, who came by train on the first day, stayed?"
    assert found_in(examination, documents("nothing", copied)) == {1}
    assert (
        found_in(examination, documents("Thirty students came by train; how many stayed?")) == set()
    )
    assert found_in(examination, []) == set()
    assert found_in(examination, documents(*TEXTS)) == {0, 1}  # the third is too short to be found
    assert examination.too_short == [2]


def test_thirteen_words_and_not_twelve():
    words = TEXTS[0].split()
    examination = Examination(TEXTS)
    assert found_in(examination, documents(" ".join(words[2:15]))) == {0}
    assert found_in(examination, documents(" ".join(words[2:14]))) == set()


def test_a_row_by_hand():
    right = [True, True, True, False, False, True, False, True, False, False]
    row = clean_score(right, {0, 1, 3})
    assert row == CleanScore(score=0.5, contaminated=0.3, clean=3 / 7)
    assert row.difference == pytest.approx(3 / 7 - 1 / 2)  # what it had seen helped it
    assert clean_score([True], {0}) == CleanScore(1, 1, None)
    assert clean_score([True], {0}).difference is None


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_the_score_is_the_mean_of_both_parts(answers):
    right = [hit for hit, _ in answers]
    seen = {number for number, (_, is_seen) in enumerate(answers) if is_seen}
    row = clean_score(right, seen)
    of_seen = sum(right[number] for number in seen)
    assert row.score * len(right) == pytest.approx(
        of_seen + (row.clean or 0) * (len(right) - len(seen))
    )


@pytest.mark.parametrize(("right", "seen"), [([], set()), ([True], {1}), ([True], {-1})])
def test_questions_that_were_not_asked_are_refused(right, seen):
    with pytest.raises(ValueError, match="count questions from 0"):
        clean_score(right, seen)
