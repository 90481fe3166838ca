"""A reader that copies whatever followed the longest match of its last tokens finds every key."""

import random
import re
from types import SimpleNamespace

import pytest
import torch

from qwen2lite import Qwen2Tokenizer
from qwen2lite.evaluate.finished import Finished
from qwen2lite.evaluate.many_keys import CITIES, many_keys, recalled_keys
from qwen2lite.text.vocabulary import vocabulary_of

TOKENIZER = Qwen2Tokenizer(vocabulary_of([(b" ", b"t"), (b"1", b"2")]))


class Copier:
    """Called like a model. It remembers tokens from `begin` on."""

    device = torch.device("cpu")

    def __init__(self, begin: int = 0):
        self.begin, self.ids = begin, []

    def new_cache(self, max_length):
        return SimpleNamespace(length=0, max_length=max_length)

    def __call__(self, ids_BT, cache, last_only=False):
        assert cache.length + ids_BT.shape[1] <= cache.max_length
        self.ids[cache.length :] = ids_BT[0].tolist()
        ends = range(cache.length + 1, len(self.ids) + 1)
        cache.length = len(self.ids)
        logits_BTV = torch.zeros(1, len(ends), 300)
        for place, end in enumerate([] if last_only else ends):
            logits_BTV[0, place, self.next_token(end)] = 1
        return logits_BTV

    def next_token(self, end):
        text = bytes(id % 256 for id in self.ids[self.begin : end])
        for size in range(30, 0, -1):
            place = text.find(text[-size:])
            if place + size < len(text):
                return self.ids[self.begin + place + size]
        return 0


def test_a_reader_that_remembers_all_finds_all_and_half_a_memory_half():
    assert recalled_keys(Copier(), TOKENIZER, 2000, count=8) == [True] * 8
    found = recalled_keys(Copier(begin=1000), TOKENIZER, 2000, count=8)
    assert found == [False] * 4 + [True] * 4


def test_every_key_has_its_city_and_its_depth():
    hidden = many_keys(random.Random(0), 3000, 5)
    told = dict(re.findall(r"secret number of (\w+) is (\d{5})", hidden.text))
    asked = {question.split()[-2]: answer.strip() for question, answer in hidden.questions}
    assert told == asked and len(set(told.values())) == 5
    depths = [hidden.text.index(f"of {city} is") / len(hidden.text) for city in asked]
    assert depths == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.05)
    longest = max(len(question + answer) for question, answer in hidden.questions)
    assert 2850 < len(hidden.text) + longest <= 3000


@pytest.mark.parametrize(
    ("length", "count", "says"), [(200, 10, "need"), (2000, 21, "to 20"), (2000, 0, "from 1")]
)
def test_no_room_and_no_city_are_said(length, count, says):
    with pytest.raises(ValueError, match=says):
        many_keys(random.Random(0), length, count)


@pytest.mark.parametrize("count", [1, len(CITIES)])
def test_the_least_room_that_is_named_is_enough(count):
    with pytest.raises(ValueError, match="need") as short:
        many_keys(random.Random(0), 10, count)
    least = int(re.search(r"need (\d+)", str(short.value))[1])
    hidden = many_keys(random.Random(0), least, count)
    longest = max(len(question + answer) for question, answer in hidden.questions)
    assert len(hidden.text) + longest == least


def test_what_is_finished_is_found_again_and_other_files_are_refused(tmp_path):
    file = tmp_path / "far" / "away" / "finished.jsonl"
    finished = Finished(file)
    finished.keep([True, False], name="a", length=100)
    finished.keep(0.5, name="b", length=100)
    with file.open("a") as lines:
        lines.write('{"name": "c", "len')
    again = Finished(file)
    assert (
        again.get(length=100, name="a") == [True, False] and again.get(name="b", length=1) is None
    )
    assert file.read_text().count("\n") == 2 and file.read_text().endswith("\n")
    for other in ("{}\n", "[1]\n", "words\n"):
        file.write_text(other)
        with pytest.raises(ValueError, match="name another file"):
            Finished(file)
