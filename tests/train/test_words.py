"""What the filters take for a word."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite.train import words as module
from qwen2lite.train.pieces import BUCKETS, character_buckets, shingles, word_buckets
from qwen2lite.train.words import normalise, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop: ２ of 中国!", ["don", "t", "stop", "2", "of", "中", "国"]),
        ("Straße und ﬁn", ["strasse", "und", "fin"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("abc中文def", ["abc", "中", "文", "def"]),
        ("snake_case = x+1", ["snake", "case", "x", "1"]),
        ("¿¡…!?", []),
        ("", []),
    ],
)
def test_words_by_hand(text, expected):
    assert words(text) == expected


def test_a_thai_vowel_stays_with_its_letter():
    assert words("ดี ไทย") == ["ดี", "ไ", "ท", "ย"]


@given(st.text(st.characters(max_codepoint=127), max_size=80))
def test_the_way_for_ascii_is_only_faster(text):
    assert words(text) == module._WORD.findall(text.casefold())


def test_normalise_keeps_punctuation():
    assert normalise("  A + B\r\n = ﬁ ") == "a + b = fi"
    assert normalise("a + b") != normalise("a - b")


@given(st.text(max_size=60))
def test_normalising_twice_changes_nothing_for_words(text):
    assert words(" ".join(words(text))) == words(text)


def test_a_shingle_is_its_words_in_order_and_nothing_else():
    text = "one two three four five six"
    first, second = shingles(text, 5).tolist()
    assert shingles("ONE, two three four (five)").tolist() == [first]
    assert shingles("two three four five six").tolist() == [second]
    assert shingles("two one three four five").tolist() != [first]
    assert len(shingles("one two")) == 1
    assert len(shingles("!")) == 0


@given(st.lists(st.sampled_from("abcdefg"), max_size=30), st.integers(1, 6))
def test_as_many_different_shingles_as_runs(letters, length):
    text = " ".join(letters)
    length = min(length, len(letters)) or 1
    runs = {tuple(letters[i : i + length]) for i in range(len(letters) - length + 1)}
    assert len(set(shingles(text, length).tolist())) == len(runs)


def test_hashes_are_the_same_in_every_process():
    """Python's own hash of strings is not, unless PYTHONHASHSEED says so."""
    script = "from qwen2lite.train.pieces import shingles; print(*shingles('a b c', 2))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(number) for number in shingles("a b c", 2)]


def test_buckets():
    # ␣ a b ␣ and all runs of them: 4 + 3 + 2 + 1, two of them the same single space.
    buckets = character_buckets("ab")
    assert len(buckets) == 10
    assert len(set(buckets.tolist())) == 9
    assert set(character_buckets("a").tolist()) < set(character_buckets("a b").tolist())
    assert len(word_buckets("one two three")) == 5
    assert len(word_buckets("")) == 0


@given(st.text(max_size=40))
def test_buckets_are_in_range_and_spread(text):
    buckets = character_buckets(text)
    assert buckets.dtype == np.int64
    assert buckets.min() >= 0
    assert buckets.max() < BUCKETS


def test_half_a_surrogate_pair_stops_no_filter():
    """The tokenizer refuses it, with the place; a filter need not know."""
    assert words("a \ud83d b") == ["a", "b"]
    assert len(shingles("a \ud83d b")) == 1
    assert len(character_buckets("\ud83d")) == 6
