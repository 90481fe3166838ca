"""The contracts of lesson 41 accept every right answer and tell wrong ones in a clear sentence."""

from difflib import SequenceMatcher
from itertools import count

import numpy as np
import pytest
import torch

from qwen2lite.learn.mutants import corpus, loader
from qwen2lite.train.decontaminate import Examination
from qwen2lite.train.dedup import MinHash
from qwen2lite.train.loader import Loader, document_mask, document_numbers
from qwen2lite.train.pieces import shingles
from tests.learn.verdict import verdict


def minhash_by_rows(runs, factors):
    return np.array([(factor * runs).min() for factor in factors[:, 0]])


def minhash_in_python(runs, factors):
    numbers = [min(int(f) * int(r) % 2**64 for r in runs) for [f] in factors.tolist()]
    return np.array(numbers, dtype=np.uint64)


def minhash_run_by_run(runs, factors):
    smallest = np.full(len(factors), 2**64 - 1, np.uint64)
    for run in runs:
        smallest = np.minimum(smallest, factors[:, 0] * run)
    return smallest


def leaks_by_table(text, question):
    grid = np.zeros((len(text) + 1, len(question) + 1), int)
    for i, word in enumerate(text):
        for j, other in enumerate(question):
            same = grid[i, j] + 1 if word == other else 0
            grid[i + 1, j + 1] = max(same, grid[i, j + 1], grid[i + 1, j])
    padded = f" {' '.join(text)} "
    runs = [" ".join(question[i : i + 13]) for i in range(len(question) - 12)]
    shared = any(f" {run} " in padded for run in runs)
    return shared and grid[-1, -1] >= max(13, 0.6 * min(len(text), len(question)))


def leaks_by_recursion(text, question):
    """The longest run from the standard library, and the subsequence word by word, remembered."""
    match = SequenceMatcher(None, text, question, autojunk=False).find_longest_match()
    ends: list[
        int
    ] = []  # the subsequence as the longest increasing row of places, by patience sorting
    places = {word: [i for i, other in enumerate(text) if other == word] for word in question}
    for word in question:
        for place in reversed(places[word]):
            pile = next((i for i, end in enumerate(ends) if end >= place), len(ends))
            ends[pile : pile + 1] = [place]
    return match.size >= 13 <= len(ends) and len(ends) / min(len(text), len(question)) >= 0.6


def leaks_by_the_package(text, question):
    return bool(Examination([" ".join(question)], tokenise=str.split).leaked(" ".join(text)))


def pack_by_loop(documents, eos, length):
    row = []
    for ids in documents:
        row += [*ids, eos]
    ids, targets = [], []
    for start in range(0, len(row) - length, length):
        ids.append(row[start : start + length])
        targets.append(row[start + 1 : start + 1 + length])
    return torch.tensor(ids), torch.tensor(targets)


def pack_by_unfold(documents, eos, length):
    row = torch.cat([torch.tensor([*ids, eos]) for ids in documents])
    rows = row.unfold(0, length + 1, length)
    return rows[:, :-1].contiguous(), rows[:, 1:]


def pack_by_the_loader(documents, eos, length):
    row = np.array([token for ids in documents for token in (*ids, eos)])
    loader = Loader(row, length, batch_size=1)
    batches = [next(loader) for _ in range(loader.windows)]
    order = sorted(range(len(batches)), key=lambda i: int(loader._order[i]))
    ids, targets = zip(*(batches[i] for i in order), strict=True)
    return torch.cat(ids), torch.cat(targets)


def numbers_by_loop(ids_BT, eos):
    rows = []
    for ids in ids_BT.tolist():
        number, row = 0, []
        for token in ids:
            row.append(number)
            number += token == eos
        rows.append(row)
    return torch.tensor(rows)


def numbers_by_shift(ids_BT, eos):
    ended = torch.nn.functional.pad(ids_BT == eos, (1, 0))[:, :-1]
    return ended.cumsum(1)


def mask_by_loop(documents_BT):
    rows = documents_BT.tolist()
    tables = [
        [[s <= t and d[s] == d[t] for s in range(len(d))] for t in range(len(d))] for d in rows
    ]
    return torch.tensor(tables).unsqueeze(1)


def mask_by_tril(documents_BT):
    return (documents_BT.unsqueeze(1) == documents_BT.unsqueeze(2)).tril().unsqueeze(1)


def mask_by_product(documents_BT):
    one_hot = torch.nn.functional.one_hot(documents_BT).float()
    return (one_hot @ one_hot.mT).bool().tril()[:, None]


def windows_by_epoch_seeds(windows, seed, windows_read=0):
    for number in count(windows_read):
        epoch, place = divmod(number, windows)
        yield np.random.default_rng([seed, epoch]).permutation(windows)[place]


def windows_by_drawing_again(windows, seed, windows_read=0):
    chance = np.random.default_rng(seed)
    for _ in range(windows_read // windows):
        chance.permutation(windows)
    skipped = windows_read % windows
    while True:
        yield from chance.permutation(windows)[skipped:].tolist()
        skipped = 0


def windows_by_reading_on(windows, seed, windows_read=0):
    generator = torch.Generator().manual_seed(seed)
    done = 0
    while True:
        for number in torch.randperm(windows, generator=generator):
            done += 1
            if done > windows_read:
                yield number


RIGHT = [
    ("minhash", lambda runs, factors: (factors * runs).min(1)),
    ("minhash", minhash_by_rows),
    ("minhash", minhash_in_python),
    ("minhash", minhash_run_by_run),
    ("gives_away", leaks_by_table),
    ("gives_away", leaks_by_recursion),
    ("gives_away", leaks_by_the_package),
    ("pack", pack_by_loop),
    ("pack", pack_by_unfold),
    ("pack", pack_by_the_loader),
    ("document_numbers", numbers_by_loop),
    ("document_numbers", numbers_by_shift),
    ("document_numbers", lambda ids, eos: (ids == eos).cumsum(1) - 1 * (ids == eos)),
    ("document_mask", mask_by_loop),
    ("document_mask", mask_by_tril),
    ("document_mask", mask_by_product),
    ("mended_windows", windows_by_epoch_seeds),
    ("mended_windows", windows_by_drawing_again),
    ("mended_windows", windows_by_reading_on),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def test_signatures_of_the_package_are_the_high_halves():
    """What the learner builds is what `MinHash` cuts to 32 bits."""
    runs, min_hash = shingles("one two three four five six seven eight"), MinHash(16)
    halves = (minhash_in_python(runs, min_hash.factors) >> np.uint64(32)).astype(np.uint32)
    assert (halves == min_hash(runs)).all()


@pytest.mark.parametrize("part", [document_mask, document_numbers])
def test_the_packages_own_is_no_answer(part, monkeypatch):
    assert "not your work" in verdict(part.__name__, part).note
    monkeypatch.setenv("QWEN2LITE_STRICT", "1")
    assert verdict(part.__name__, part).state == "wrong"


def in_floats(runs, factors):
    return (factors.astype(float) * runs).min(axis=1)


def half_the_words(text, question):
    return corpus.run_is_enough(text, question) and 2 * len(set(text) & set(question)) > len(text)


def one_permutation_again(windows, seed, windows_read=0):
    order = torch.randperm(windows, generator=torch.Generator().manual_seed(seed)).tolist()
    for number in count(windows_read):
        yield order[number % windows]


def random_every_time(windows, seed, windows_read=0):
    chance = np.random.default_rng(seed)
    while True:
        yield int(chance.integers(windows))


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("minhash", in_floats, "an array of uint64 was wanted"),
        ("minhash", lambda runs, factors: runs.min(), "an array of uint64 was wanted"),
        ("minhash", lambda runs, factors: (factors * runs).max(1), "got 5, 2⁶⁴ - 1"),
        ("minhash", lambda runs, factors: factors * runs, "of shape [2, 4]; wanted is [2]"),
        ("gives_away", lambda text, question: 13, "True or False was wanted"),
        ("gives_away", lambda text, question: False, "in the middle of a page of 120"),
        ("gives_away", half_the_words, "wanted True"),
        ("pack", lambda documents, eos, length: [[1]], "the pair (ids, targets) was wanted"),
        ("pack", lambda documents, eos, length: ([1], [2]), "ids are list; a tensor of int64"),
        ("document_numbers", lambda ids, eos: 1 + numbers_by_loop(ids, eos), "numbered [1, 1, 1,"),
        ("document_mask", lambda documents: mask_by_tril(documents).int(), "int32 [2, 1, 4, 4]"),
        ("document_mask", lambda documents: mask_by_tril(documents).tril(-1), "rows are 0000"),
        ("mended_windows", random_every_time, "not each of them once"),
        ("mended_windows", lambda *given: iter(range(99)), "not each of them once"),
        ("mended_windows", lambda n, seed: windows_by_epoch_seeds(n, seed), "TypeError"),
        ("mended_windows", lambda n, seed, read=0: windows_by_epoch_seeds(n, 1, read), "Two seeds"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def forgets_otherwise_written(windows, seed, windows_read=0):
    """After the interrupted epoch it goes on rightly."""
    epoch, place = divmod(windows_read, windows)
    yield from list(loader._epoch(windows, seed, 0))[place:]
    yield from loader._from_epoch(windows, seed, epoch + 1)


def test_a_mistake_is_known_also_in_another_hand():
    result = verdict("mended_windows", forgets_otherwise_written)
    assert "Stopped after 10 windows, in the second epoch" in result.wrong
    assert "it shuffles as in the first" in result.reason
    assert "the same windows meet" in verdict("mended_windows", one_permutation_again).reason
    positions_only = verdict("document_mask", lambda d: torch.ones(2, 1, 4, 4).tril().bool())
    assert "reads the first" in positions_only.reason
