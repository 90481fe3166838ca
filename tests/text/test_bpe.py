"""Training against a trainer that recounts everything, against `tokenizers`, and by hand."""

import itertools
import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from qwen2lite.text import bpe
from qwen2lite.text.bpe import merge_word, printable_bytes, train_bpe
from qwen2lite.text.pretokenize import PATTERN, split_words
from qwen2lite.train.corpus import docstrings, take

# Few letters, so that pairs overlap, tie and repeat; "\x00" has a higher id than "a", though a
# lower value, and so has " ".
WORDS = st.lists(st.text("ab\x00 é", max_size=9).map(str.encode), max_size=12)


def recounting_trainer(words, vocab_size):
    """BPE as it is defined: count every pair in every word, glue one, and start again."""
    tokens = [bytes([byte]) for byte in printable_bytes()]
    order = {token[0]: i for i, token in enumerate(tokens)}
    corpus, merges = [[order[byte] for byte in word] for word in words], []
    while len(tokens) < vocab_size:
        counts = Counter(pair for word in corpus for pair in itertools.pairwise(word))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        corpus = [glued(word, best, len(tokens)) for word in corpus]
        merges.append((tokens[best[0]], tokens[best[1]]))
        tokens.append(tokens[best[0]] + tokens[best[1]])
    return merges


def glued(word, pair, merged):
    out = []
    for token in word:
        # A token that was glued just now is `merged`, so it can't be half of the pair again.
        if out and (out[-1], token) == pair:
            out[-1] = merged
        else:
            out.append(token)
    return out


@given(words=WORDS, size=st.integers(256, 300))
def test_training_equals_a_trainer_that_recounts(words, size):
    assert train_bpe(words, size) == recounting_trainer(words, size)


@given(words=WORDS, size=st.integers(256, 300))
def test_a_larger_vocabulary_only_adds_merges(words, size):
    assert train_bpe(words, size) == train_bpe(words, 400)[: size - 256]


@given(words=WORDS)
def test_no_two_merges_make_the_same_token_and_every_token_is_used_once_made(words):
    merges = train_bpe(words, 400)
    made = [left + right for left, right in merges]
    known = {bytes([byte]) for byte in range(256)}
    assert len(set(made) - known) == len(made)
    for (left, right), token in zip(merges, made, strict=True):
        assert {left, right} <= known
        known.add(token)


@given(words=WORDS)
def test_encoding_the_corpus_replays_its_training(words):
    """With all merges every word of the corpus is one token, and with a few it is still the text."""
    every_merge = train_bpe(words, 400)
    for count in (0, 1, 3, len(every_merge)):
        tokens, merges = vocabulary(every_merge[:count])
        for word in words:
            ids = merge_word([tokens.index(bytes([byte])) for byte in word], merges)
            assert b"".join(tokens[i] for i in ids) == word
            assert count < len(every_merge) or len(ids) == bool(word)


def vocabulary(merges):
    tokens, ids = [bytes([byte]) for byte in printable_bytes()], {}
    for left, right in merges:
        ids[tokens.index(left), tokens.index(right)] = len(tokens)
        tokens.append(left + right)
    return tokens, ids


def test_training_by_hand():
    # "ab" stands 5 times, more than any pair; then "abc" 3 times; then nothing is left to glue.
    words = [b"abc"] * 3 + [b"ab"] * 2
    assert train_bpe(words, 300) == [(b"a", b"b"), (b"ab", b"c")]
    assert train_bpe(words, 257) == [(b"a", b"b")]
    assert train_bpe([], 300) == train_bpe([b"a", b""], 300) == []


def test_pairs_overlap_and_glueing_goes_from_the_left():
    # "aa" stands 3 times in "aaaa", as neighbours go, so it beats "cd", which stands twice.
    assert train_bpe([b"aaaa", b"cd", b"cd"], 257) == [(b"a", b"a")]
    assert train_bpe([b"aaaaa"], 300) == [(b"a", b"a"), (b"aa", b"a"), (b"aa", b"aaa")]


def test_a_tie_goes_to_the_smaller_ids_and_ids_are_those_of_the_table():
    # Byte 0 is the first by value and one of the last in the table.
    assert train_bpe([b"\x00\x00", b"ba", b"ab"], 259) == [
        (b"a", b"b"), (b"b", b"a"), (b"\x00", b"\x00"),
    ]  # fmt: skip


def test_a_pair_that_has_become_rarer_waits_its_turn():
    # "bc" stands 5 times at first, and twice once "ab" is glued; "de" stands 3 times all along.
    words = [b"abc"] * 3 + [b"ab"] * 3 + [b"bc"] * 2 + [b"de"] * 3
    assert train_bpe(words, 300) == [(b"a", b"b"), (b"d", b"e"), (b"ab", b"c"), (b"b", b"c")]


def test_a_vocabulary_below_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 256; got 255"):
        train_bpe([b"ab"], 255)


def library_merges(texts, cuts, vocab_size, **settings):
    tokenizer = Tokenizer(models.BPE())
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([cuts, to_bytes])
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, **settings)
    tokenizer.train_from_iterator(texts, trainer)
    byte_of = {character: byte for byte, character in printable_bytes().items()}
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(bytes(byte_of[c] for c in token) for token in pair) for pair in merges]


def test_the_merges_of_real_text_are_those_of_the_library():
    texts = [document.text for document in take(docstrings(), 300_000)]
    cuts = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    theirs = library_merges(texts, cuts, 4000, initial_alphabet=alphabet)
    assert len(theirs) == 4000 - 256
    words = (word.encode() for text in texts for word in split_words(text))
    assert train_bpe(words, 4000) == theirs


def test_the_library_has_the_same_tie_rule_down_to_pairs_that_stand_once():
    """Control tokens first and an alphabet of the bytes in use: other ids, in the same order."""
    chance = random.Random(5)
    texts = ["".join(chance.choices("abcd\x00é", k=40)) for _ in range(30)]
    cuts = pre_tokenizers.Split("|", "removed")
    theirs = library_merges(texts, cuts, 9999, special_tokens=["<|endoftext|>"])
    assert len(theirs) > 500  # until every line is one token
    assert train_bpe((text.encode() for text in texts), 9999) == theirs


class CountsWordsOnce(bpe.LinkedWords):
    """Forgets how often a word stands."""

    def __init__(self, counts):
        super().__init__(dict.fromkeys(counts, 1))


class CrossesWords(bpe.LinkedWords):
    """Takes the corpus for one word."""

    def __init__(self, counts):
        super().__init__({b"".join(word * count for word, count in counts.items()): 1})


class BelievesTheFirstCount(bpe.LinkedWords):
    """Never counts again, so a pair keeps the rank that it had when it was made."""

    def take_most_frequent(self):
        while self.heap:
            _, pair = bpe.heapq.heappop(self.heap)
            self.places[pair] = self._still_there(pair)
            if self.places[pair]:
                return pair
        return None


class GluesFromTheRight(bpe.LinkedWords):
    """Glues "aaa" to "a", "aa"."""

    def merge(self, pair, merged):
        chosen = []
        for place in reversed(self.places[pair]):
            if not chosen or self.after[place] != chosen[-1]:
                chosen.append(place)
        self.places[pair] = chosen[::-1]
        super().merge(pair, merged)


class LooksOnlyRight(bpe.LinkedWords):
    """Notes the pairs that begin with the new token, and none that end with it."""

    def _note(self, found):
        newest = max(self.ids)
        super()._note({pair: p for pair, p in found.items() if newest < 256 or pair[0] == newest})


@pytest.mark.parametrize(
    "wrong",
    [CountsWordsOnce, CrossesWords, BelievesTheFirstCount, GluesFromTheRight, LooksOnlyRight],
)
def test_a_wrong_trainer_is_seen(wrong, monkeypatch):
    monkeypatch.setattr(bpe, "LinkedWords", wrong)
    with pytest.raises(AssertionError):
        test_training_equals_a_trainer_that_recounts()
    with pytest.raises(AssertionError):
        test_training_by_hand()
        test_pairs_overlap_and_glueing_goes_from_the_left()
        test_a_pair_that_has_become_rarer_waits_its_turn()
