"""13 words in a row and a long common subsequence; the textbook's table is the oracle."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite.train.corpus import Document
from qwen2lite.train.decontaminate import (
    Examination,
    common_subsequence,
    positions,
    subsequence_length,
    without_leaks,
)

QUESTION = " ".join(f"q{n}" for n in range(20))


def table(first, second):
    """The textbook's: the longest of the neighbours, or one more than the diagonal."""
    before = [0] * (len(second) + 1)
    for word in first:
        row = [0]
        for place, other in enumerate(second):
            row.append(before[place] + 1 if word == other else max(row[-1], before[place + 1]))
        before = row
    return before[-1]


def words_between(start, stop, name="t"):
    return " ".join(f"{name}{n}" for n in range(start, stop))


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [
        ("abcd", "bxda", 2),
        ("abcbdab", "bdcaba", 4),
        ("", "abc", 0),
        ("aaa", "aa", 2),
        ("ab", "ba", 1),
    ],
)
def test_by_hand(first, second, length):
    assert common_subsequence(first, second) == length


@settings(max_examples=300)
@given(st.text("abcd", max_size=150), st.text("abcd", max_size=150))
def test_as_the_table(first, second):
    length = common_subsequence(first, second)
    assert length == table(first, second)
    assert length == common_subsequence(second, first)


def test_a_row_without_its_carry_would_be_wrong():
    """Without the addition every match counts once a word, whatever its order."""

    def wrong(first, second):
        row = everywhere = (1 << len(first)) - 1
        masks = positions(first)
        for word in second:
            row &= ~masks.get(word, 0)
        return (everywhere ^ row).bit_count()

    assert wrong("ab", "ba") == 2
    assert subsequence_length(positions("ab"), 2, "ba") == 1


def test_a_copied_question_in_a_long_text_is_found():
    examination = Examination(["something else " * 10, QUESTION])
    assert examination.leaked(f"{words_between(0, 500)} {QUESTION.upper()}! the end") == [1]


def test_a_set_phrase_alone_is_not_a_leak():
    """13 words in a row, but of a question of 40: 13 < 0.6 · 40."""
    phrase = words_between(0, 13, "p")
    examination = Examination([f"{phrase} {words_between(0, 27, 'q')}"])
    text = f"{phrase} {words_between(0, 100)}"
    assert examination.sharing(text) == {0}
    assert examination.leaked(text) == []


@pytest.mark.parametrize(("words_in_common", "found"), [(13, True), (12, False)])
def test_thirteen_words_it_must_be(words_in_common, found):
    examination = Examination([QUESTION])
    text = f"{' '.join(QUESTION.split()[:words_in_common])} {words_between(0, 50)}"
    assert bool(examination.leaked(text)) == found


@pytest.mark.parametrize(("after", "found"), [(2, True), (1, False)])
def test_six_tenths_is_the_border(after, found):
    """A question of 25 words: 13 in a row and two more, apart, are 15 = 0.6 · 25; one is too few."""
    question = words_between(0, 25, "q").split()
    text = [*question[:13], *words_between(0, 50).split()]
    for place in range(after):
        text += [question[20 + place], "between"]
    assert bool(Examination([" ".join(question)]).leaked(" ".join(text))) == found


def test_the_shorter_of_the_two_counts():
    """A training text of 14 words out of a question of 100."""
    question = words_between(0, 100, "q")
    assert Examination([question]).leaked(" ".join(question.split()[40:54])) == [0]


def test_changed_words_are_bridged():
    question = words_between(0, 40, "q").split()
    text = [word if place % 14 else "changed" for place, word in enumerate(question)]
    assert Examination([" ".join(question)]).leaked(" ".join(text)) == [0]
    assert Examination([" ".join(question)], share=1.0).leaked(" ".join(text)) == []


@settings(max_examples=50)
@given(st.lists(st.text("ab ", min_size=1, max_size=60), min_size=1, max_size=4), st.text("ab "))
def test_as_the_definition_says(questions, text):
    """Short runs and few letters, so that most cases come near the borders."""

    def definition(question):
        ours, theirs = text.split(), question.split()
        runs = {tuple(theirs[i : i + 3]) for i in range(len(theirs) - 2)}
        length = table(ours, theirs)
        return (
            any(tuple(ours[i : i + 3]) in runs for i in range(len(ours) - 2))
            and length >= 3
            and length >= 0.6 * min(len(ours), len(theirs))
        )

    examination = Examination(questions, run=3)
    assert examination.leaked(text) == [n for n, q in enumerate(questions) if definition(q)]


def test_a_stream_passes():
    documents = [Document(text, "s") for text in ("clean", f"so: {QUESTION}", "")]
    assert [d.text for d in without_leaks(documents, Examination([QUESTION]))] == ["clean", ""]


def test_chinese_counts_characters():
    question = "如果一个盒子里有三个红球和五个蓝球那么一共有多少个球"
    assert Examination([question]).leaked(f"题目：{question}？答案是八。") == [0]


def test_short_questions_are_named_and_wrong_values_refused():
    assert Examination(["What is 2 + 2?", QUESTION]).too_short == [0]
    with pytest.raises(ValueError, match="no evaluation text"):
        Examination([])
    with pytest.raises(ValueError, match="run=0"):
        Examination([QUESTION], run=0)
    with pytest.raises(ValueError, match=r"share=1\.5"):
        Examination([QUESTION], share=1.5)
