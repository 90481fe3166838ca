"""The tasks of lesson 54 accept every right answer, and say in a sentence what is wrong."""

import statistics
from itertools import product

import pytest

from tests.learn.verdict import verdict


def hidden_by_insert(sentences, needle, depth):
    text = list(sentences)
    text.insert(round(depth * len(text)), needle)
    return text


def hidden_by_slices(sentences, needle, depth):
    at = int(depth * len(sentences) + 0.5)
    return [*sentences[:at], needle, *sentences[at:]]


def hidden_by_order(sentences, needle, depth):
    keyed = [(n + 0.5, sentence) for n, sentence in enumerate(sentences)]
    keyed.append((round(depth * len(sentences)), needle))
    return [sentence for _, sentence in sorted(keyed)]


def grid_by_loops(ask, lengths, depths, tries):
    rows = []
    for length in lengths:
        row = []
        for depth in depths:
            row.append(sum(ask(length, depth, n) for n in range(tries)) / tries)
        rows.append(row)
    return rows


def grid_by_product(ask, lengths, depths, tries):
    shares = {
        (length, depth): statistics.mean(float(ask(length, depth, n)) for n in range(tries))
        for length, depth in product(lengths, depths)
    }
    return [[shares[length, depth] for depth in depths] for length in lengths]


def grid_backwards(ask, lengths, depths, tries):
    def share(length, depth):
        return [ask(length, depth, n) for n in reversed(range(tries))].count(True) / tries

    return [[share(length, depth) for depth in depths] for length in lengths]


def found_by_removing(prompts, outputs, keys):
    rows = zip(prompts, outputs, keys, strict=True)
    found = [o.removeprefix(p).strip().startswith(k) for p, o, k in rows]
    return sum(found) / len(found)


def found_by_joining(prompts, outputs, keys):
    rows = zip(prompts, outputs, keys, strict=True)
    return statistics.mean(float(o.startswith(f"{p} {k}")) for p, o, k in rows)


def found_by_slices(prompts, outputs, keys):
    count = 0
    for prompt, output, key in zip(prompts, outputs, keys, strict=True):
        count += output[len(prompt) :].lstrip()[: len(key)] == key
    return count / len(keys)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("hide", hidden_by_insert),
        ("hide", hidden_by_slices),
        ("hide", hidden_by_order),
        ("recall_grid", grid_by_loops),
        ("recall_grid", grid_by_product),
        ("recall_grid", grid_backwards),
        ("share_found", found_by_removing),
        ("share_found", found_by_joining),
        ("share_found", found_by_slices),
    ],
)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("hide", lambda s, n, d: n, "a list of sentences was wanted"),
        ("hide", lambda s, n, d: [n, *s], "at depth 1.0 make ['a', 'b', 'c', 'd', '!']"),
        ("recall_grid", lambda *_: 1.0, "a list of lists was wanted"),
        ("recall_grid", lambda *_: [[1.0]], "yours [[1.0]]"),
        ("share_found", lambda *_: "all", "a number was wanted"),
        ("share_found", lambda *_: 1.0, "the share is 0.0, yours 1"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong
