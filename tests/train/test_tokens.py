"""Token files: what goes in comes out, and what is broken is refused with a sentence."""

import errno
import json
import os
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen2lite import Qwen2Tokenizer
from qwen2lite.text.vocabulary import Vocabulary
from qwen2lite.train.tokens import (
    END_OF_TEXT,
    TokenFile,
    encode_texts,
    write_corpus,
    write_tokens,
)
from qwen2lite.train.world import documents

TINY = Path(__file__).parents[2] / "data" / "qwen2-tiny"
FACTS = {"vocab_size": 10, "eos": 9, "fingerprint": "f" * 64}


@pytest.fixture(scope="module")
def tokenizer():
    return Qwen2Tokenizer.from_pretrained(TINY)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corpus.bin"


def unpack(ids, eos):
    """The documents of a packed row, found without our code."""
    found, document = [], []
    for token in ids.tolist():
        if token == eos:
            found.append(document)
            document = []
        else:
            document.append(token)
    assert not document, "the last document has no end"
    return found


def files_of(folder):
    return sorted(file.name for file in folder.iterdir())


def test_the_bytes_by_hand(path):
    write_tokens(path, [[1, 2], [], [258]], vocab_size=300, eos=9, fingerprint="abc")
    assert path.read_bytes() == bytes([1, 0, 2, 0, 9, 0, 2, 1, 9, 0])
    assert json.loads((path.parent / "corpus.bin.json").read_text(encoding="utf-8")) == {
        "dtype": "uint16",
        "count": 5,
        "documents": 2,
        "vocab_size": 300,
        "eos": 9,
        "fingerprint": "abc",
    }
    assert files_of(path.parent) == ["corpus.bin", "corpus.bin.json"]


@pytest.mark.parametrize(("vocab_size", "nbytes"), [(65_536, 4), (65_537, 8), (151_646, 8)])
def test_four_bytes_where_two_are_too_few(path, vocab_size, nbytes):
    write_tokens(
        path, [[vocab_size - 2]], vocab_size=vocab_size, eos=vocab_size - 1, fingerprint=""
    )
    assert path.stat().st_size == nbytes
    assert TokenFile.open(path).ids.tolist() == [vocab_size - 2, vocab_size - 1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from([2, 300, 70_000]))
def test_documents_come_back(path, data, vocab_size):
    eos = data.draw(st.integers(0, vocab_size - 1))
    ids = st.integers(0, vocab_size - 1).filter(lambda token: token != eos)
    given_documents = data.draw(st.lists(st.lists(ids, min_size=1), min_size=1))
    facts = write_tokens(path, given_documents, vocab_size=vocab_size, eos=eos, fingerprint="x")
    opened = TokenFile.open(path, "x")
    assert unpack(opened.ids, eos) == given_documents
    assert opened.facts == facts
    assert (facts.documents, facts.count) == (len(given_documents), len(opened.ids))


def test_folders_on_the_way_are_made(path):
    deep = path.parent / "not" / "there" / path.name
    write_tokens(deep, [[1]], vocab_size=3, eos=2, fingerprint="")
    assert TokenFile.open(deep).ids.tolist() == [1, 2]


def test_both_files_are_whole_on_the_disk_before_they_have_their_names(path, monkeypatch):
    synced, fsync = [], os.fsync

    def watched(handle):
        synced.append((os.fstat(handle).st_size, path.exists()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write_tokens(path, [[1]], vocab_size=3, eos=2, fingerprint="")
    sidecar = path.with_name(path.name + ".json")
    assert synced == [(path.stat().st_size, False), (sidecar.stat().st_size, False)]


def test_texts_come_back(path, tokenizer):
    texts = [*islice(documents(), 40), "Write <|endoftext|> to end.", "日本 é\n"]
    file = write_corpus(path, texts, tokenizer)
    assert file.facts.eos == tokenizer.special_tokens[END_OF_TEXT]
    assert file.facts.documents == len(texts)
    assert file.facts.vocab_size == max(tokenizer.special_tokens.values()) + 1
    assert [tokenizer.decode(ids) for ids in unpack(file.ids, file.facts.eos)] == texts


def test_the_ids_stay_on_the_disk(path):
    write_tokens(path, [[1, 2, 3]], **FACTS)
    ids = TokenFile.open(path).ids
    assert isinstance(ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 7


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([], "nothing to write to corpus.bin"),
        ([[], []], "nothing to write to corpus.bin"),
        ([[1], [2, 10]], "document 1 of corpus.bin holds ids from 2 to 10, .* 0 to 9"),
        ([[-1]], "document 0 of corpus.bin holds ids from -1"),
        ([[1, 9, 2]], "document 0 of corpus.bin holds 9, the id that ends"),
    ],
)
def test_a_wrong_corpus_leaves_the_old_one(path, wrong, words):
    write_tokens(path, [[3, 4]], **FACTS)
    with pytest.raises(ValueError, match=words):
        write_tokens(path, wrong, **FACTS)
    assert TokenFile.open(path).ids.tolist() == [3, 4, 9]
    assert files_of(path.parent) == ["corpus.bin", "corpus.bin.json"]


def test_a_full_disk_is_said_and_leaves_nothing(path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="the disk of .* is full; make room"):
        write_tokens(path, [[3, 4]], **FACTS)
    assert files_of(path.parent) == []


@pytest.mark.parametrize("steps", [0, 1])
def test_a_crash_never_mixes_two_corpora(path, monkeypatch, steps):
    """The ids of one corpus beside the facts of the other would pass the check of the size."""
    write_tokens(path, [[3, 4]], **FACTS)
    rename, done = Path.replace, []

    def crash_after(self, target):
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", crash_after)
    other = FACTS | {"fingerprint": "e" * 64}
    with pytest.raises(KeyboardInterrupt):
        write_tokens(path, [[5, 6]], **other)
    with pytest.raises(FileNotFoundError, match="corpus.bin.json"):
        TokenFile.open(path)


def test_missing_files_are_named(path):
    with pytest.raises(FileNotFoundError, match="there is no .*corpus.bin;"):
        TokenFile.open(path)
    write_tokens(path, [[1]], **FACTS)
    path.with_name("corpus.bin.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no .*corpus.bin.json;"):
        TokenFile.open(path)


@pytest.mark.parametrize("change", [b"", b"\1\0", b"\1\0\2\0\3\0\4\0"])
def test_a_file_of_another_size_is_refused(path, change):
    write_tokens(path, [[1, 2]], **FACTS)
    path.write_bytes(change)
    with pytest.raises(ValueError, match=f"has {len(change)} bytes where 3 tokens take 6"):
        TokenFile.open(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"dtype": "uint16"}', "\ufeffnull"])
def test_a_damaged_sidecar_is_refused(path, content):
    write_tokens(path, [[1, 2]], **FACTS)
    path.with_name("corpus.bin.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"corpus.bin.json doesn't describe a token file"):
        TokenFile.open(path)


@pytest.mark.parametrize("wrong", [{"dtype": "float16"}, {"count": 0}, {"count": "3"}, {"more": 1}])
def test_a_sidecar_with_impossible_facts_is_refused(path, wrong):
    write_tokens(path, [[1, 2]], **FACTS)
    sidecar = path.with_name("corpus.bin.json")
    facts = json.loads(sidecar.read_text(encoding="utf-8"))
    sidecar.write_text(json.dumps(facts | wrong), encoding="utf-8")
    with pytest.raises(ValueError, match=r"corpus.bin.json doesn't describe a token file"):
        TokenFile.open(path)


def test_another_vocabulary_is_refused(path, tokenizer):
    write_corpus(path, ["Hello."], tokenizer)
    fingerprint = tokenizer.vocabulary.fingerprint
    assert TokenFile.open(path, fingerprint).facts.fingerprint == fingerprint
    tokens = list(tokenizer.vocabulary.tokens)
    tokens[300], tokens[301] = tokens[301], tokens[300]
    with pytest.raises(
        ValueError, match=r"another vocabulary \([\d,]+ tokens, .* encode the corpus"
    ):
        TokenFile.open(path, replace(tokenizer.vocabulary, tokens=tokens).fingerprint)


def test_equal_vocabularies_have_equal_fingerprints(tokenizer):
    again = Qwen2Tokenizer.from_pretrained(TINY).vocabulary
    assert again.fingerprint == tokenizer.vocabulary.fingerprint
    turned = dict(reversed(again.special_tokens.items()))
    assert replace(again, special_tokens=turned).fingerprint == again.fingerprint


def test_fingerprints_differ_where_an_id_means_something_else():
    different = [
        Vocabulary([b"a", b"bc"], {}, {}),
        Vocabulary([b"ab", b"c"], {}, {}),
        Vocabulary([b"bc", b"a"], {}, {}),
        Vocabulary([b"a\1\0\0\0bc"], {}, {}),
        Vocabulary([b"a"], {}, {"bc": 2}),
        Vocabulary([b"a", b"bc"], {}, {"bc": 2}),
    ]
    assert len({vocabulary.fingerprint for vocabulary in different}) == len(different)


def test_a_tokenizer_without_an_end_of_text_is_refused(path):
    tokenizer = Qwen2Tokenizer(Vocabulary([bytes([b]) for b in range(256)], {}, {}))
    with pytest.raises(ValueError, match=r"no <\|endoftext\|> to put between documents"):
        write_corpus(path, ["a"], tokenizer)


def test_documents_are_encoded_one_by_one(tokenizer):
    endless = encode_texts(tokenizer, documents())
    assert all(isinstance(ids, list) and ids for ids in islice(endless, 5))
