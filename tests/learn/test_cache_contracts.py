"""The contracts of lesson 34 accept every right answer, and the doctor names the cache's mistakes."""

from dataclasses import replace

import pytest
import torch

from qwen2lite import Parts
from qwen2lite.learn.doctor import doctor
from qwen2lite.learn.mutants import cache as mutants
from qwen2lite.model.cache import KVCache
from tests.learn.verdict import verdict


class Grown:
    """Keeps a pair a layer and joins the new to it; takes memory as it needs it."""

    def __init__(self, config, max_length, batch_size=1, dtype=torch.float32, device="cpu"):
        shape = (batch_size, config.num_key_value_heads, 0, config.head_dim)
        nothing = torch.zeros(shape, dtype=dtype, device=device)
        self.pairs = [(nothing, nothing)] * config.num_hidden_layers
        self.max_length, self.length = max_length, 0

    def update(self, layer, k, v):
        if self.length + k.shape[2] > self.max_length:
            raise ValueError("too long")
        self.pairs[layer] = tuple(
            torch.cat((old[:, :, : self.length], new), dim=2)
            for old, new in zip(self.pairs[layer], (k, v), strict=True)
        )
        return self.pairs[layer]

    @property
    def nbytes(self):
        return sum(one.nbytes for pair in self.pairs for one in pair)


class OneTensor:
    """Keys and values in one tensor, positions before heads."""

    def __init__(self, config, max_length, batch_size=1, dtype=torch.float32, device="cpu"):
        layers, heads = config.num_hidden_layers, config.num_key_value_heads
        shape = (layers, 2, batch_size, max_length, heads, config.head_dim)
        self.memory = torch.empty(shape, dtype=dtype, device=device)
        self.length = 0

    @property
    def max_length(self):
        return self.memory.shape[3]

    @property
    def nbytes(self):
        return self.memory.numel() * self.memory.element_size()

    def update(self, layer, k, v):
        room = self.memory[layer, :, :, self.length :]
        if k.shape[2] > room.shape[2]:
            raise ValueError("too long")
        room[:, :, : k.shape[2]] = torch.stack((k, v)).transpose(2, 3)
        seen = self.memory[layer, :, :, : self.length + k.shape[2]].transpose(2, 3)
        return seen[0], seen[1]


class ByPosition:
    """A list of keys and of values a layer, one entry a position."""

    def __init__(self, config, max_length, batch_size=1, dtype=torch.float32, device="cpu"):
        self.rows = [([], []) for _ in range(config.num_hidden_layers)]
        self.max_length, self.length = max_length, 0

    def update(self, layer, k, v):
        if self.length + k.shape[2] > self.max_length:
            raise ValueError("too long")
        for rows, new in zip(self.rows[layer], (k, v), strict=True):
            del rows[self.length :]
            rows.extend(new.unbind(2))
        return tuple(torch.stack(rows, dim=2) for rows in self.rows[layer])

    @property
    def nbytes(self):
        return sum(one.nbytes for pair in self.rows for rows in pair for one in rows)


CACHES = [Grown, OneTensor, ByPosition]


def continued_with_a_list(model, prompt_ids, count):
    cache, found = model.new_cache(len(prompt_ids) + count), []
    model_reads = list(prompt_ids)
    while len(found) < count:
        scores = model(torch.tensor([model_reads]), cache)[0, -1]
        found.append(scores.argmax().item())
        model_reads = found[-1:]
    return found


def continued_from_prefill(model, prompt_ids, count):
    cache = model.new_cache(len(prompt_ids) + count - 1)
    token = model(torch.tensor([prompt_ids]), cache=cache, last_only=True).argmax(-1)
    tokens = [token]
    for _ in range(1, count):
        tokens.append(model(tokens[-1], cache).argmax(-1))
    return torch.cat(tokens, dim=1)[0].tolist()


def continued_by_slices(model, prompt_ids, count):
    ids, cache = torch.tensor([prompt_ids]), model.new_cache(99)
    for _ in range(count):
        logits = model(ids[:, cache.length :], cache)
        ids = torch.hstack((ids, logits[:, -1:].argmax(-1)))
    return ids[0, len(prompt_ids) :].tolist()


def answered_with_new_caches(model, prompts):
    found = []
    for prompt in prompts:
        cache = model.new_cache(len(prompt))
        found.append(int(model(torch.tensor([prompt]), cache)[0, -1].argmax()))
    return found


def answered_after_a_reset(model, prompts):
    cache, found = model.new_cache(max(map(len, prompts))), []
    for prompt in prompts:
        cache.length = 0
        found.append(int(model(torch.tensor([prompt]), cache, last_only=True).argmax()))
    return found


def answered_without_a_cache(model, prompts):
    return [int(model(torch.tensor([prompt]))[0, -1].argmax()) for prompt in prompts]


def split_by_cat(model, ids, pieces):
    cache = model.new_cache(ids.shape[1], ids.shape[0])
    read = torch.cat([model(piece, cache) for piece in ids.split(pieces, dim=1)], dim=1)
    return (read - model(ids)).abs().max().item()


def split_piece_by_piece(model, ids, pieces):
    whole, cache, worst = model(ids), model.new_cache(ids.shape[1], ids.shape[0]), 0.0
    for size in pieces:
        start = cache.length
        got = model(ids[:, start : start + size], cache)
        worst = max(worst, float(torch.dist(got, whole[:, start : start + size], p=torch.inf)))
    return worst


def split_position_by_position(model, ids, pieces):
    cache = model.new_cache(ids.shape[1], ids.shape[0])
    read = [row for piece in ids.split(pieces, 1) for row in model(piece, cache).unbind(1)]
    pairs = zip(read, model(ids).unbind(1), strict=True)
    return max((a - b).abs().max() for a, b in pairs)


RIGHT = [
    *(("cache", cache) for cache in CACHES),
    ("tokens_read", lambda p, n, cached: p + n - 1 if cached else n * p + n * (n - 1) // 2),
    ("tokens_read", lambda p, n, cached: sum([p, *[1] * (n - 1)] if cached else range(p, p + n))),
    ("tokens_read", lambda p, n, cached: p - 1 + n if cached else (2 * p + n - 1) * n // 2),
    ("continue_ids", continued_with_a_list),
    ("continue_ids", continued_from_prefill),
    ("continue_ids", continued_by_slices),
    ("next_tokens", answered_with_new_caches),
    ("next_tokens", answered_after_a_reset),
    ("next_tokens", answered_without_a_cache),
    ("split_error", split_by_cat),
    ("split_error", split_piece_by_piece),
    ("split_error", split_position_by_position),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


class NoLength(KVCache):
    def __init__(self, *rest):
        super().__init__(*rest)
        del self.length


class KeysAlone(KVCache):
    def update(self, layer, k, v):
        return super().update(layer, k, v)[0]


class Backwards(KVCache):
    def update(self, layer, k, v):
        keys, values = super().update(layer, k, v)
        return keys.flip(2), values


class NoValues(KVCache):
    def update(self, layer, k, v):
        return super().update(layer, k, torch.zeros_like(v))


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("cache", NoLength, "length of a new cache with room for 7 is missing, not 0"),
        ("cache", KeysAlone, "should return the pair"),
        ("cache", Backwards, "should be [1, 2, 3, 4], and are [4, 3, 2, 1]"),
        ("cache", NoValues, "the values of text 0, head 0 should be [-1, -2, -3, -4]"),
        ("cache", mutants.BoundOnTheNew, "a ValueError was wanted, and there was no error"),
        ("cache", mutants.BytesOfTheKeys, "is 5040, and should be 10080"),
        ("tokens_read", lambda p, n, cached: 15.0, "a whole number was wanted"),
        ("tokens_read", lambda p, n, cached: 15, "cached=True) is 6, yours 15"),
        ("continue_ids", lambda model, ids, count: torch.zeros(3), "a list of ids was wanted"),
        ("continue_ids", lambda model, ids, count: [1, 2], "yours are [1, 2]"),
        ("next_tokens", lambda model, prompts: [0] * len(prompts), "yours are [0]"),
        ("split_error", lambda model, ids, pieces: pieces, "one number was wanted"),
        ("split_error", lambda model, ids, pieces: 1.0, "split_error found 1"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


@pytest.mark.parametrize("right", CACHES)
def test_the_doctor_finds_other_right_caches_healthy(right):
    found = doctor(replace(Parts(), cache=right))
    assert found.healthy, found


@pytest.mark.parametrize(
    ("mutant", "place"),
    [
        (mutants.OnlyTheNew, "layer 0, cache"),
        (mutants.WrittenAtTheStart, "layer 0, cache"),
        (mutants.WholeRoom, "layer 0, cache"),
        (mutants.OneMemoryForBoth, "layer 0, cache"),
        (mutants.MovesAtEveryLayer, "layer 1, cache"),
        (mutants.OneForAllLayers, "layer 0, cache"),
        (mutants.RowsAndHeadsMixed, "layer 0, cache"),
        # The keys are all there. It is the next token's angle that is wrong first.
        (mutants.CountsTwice, "rotary_tables"),
        # What does no harm to one text of the right length is found by the check.
        (mutants.NeverForgets, "the check of cache"),
        (mutants.SharedByCaches, "the check of cache"),
        (mutants.BoundOnTheNew, "the check of cache"),
    ],
)
def test_the_doctor_names_the_cache_at_the_right_place(mutant, place):
    found = doctor(replace(Parts(), cache=mutant))
    assert (found.part, found.place) == ("cache", place)
    assert found.cause == " ".join(mutant.__doc__.split())


def test_the_doctor_blames_no_right_cache_for_wrong_tables():
    def late(positions_T, frequencies_R):
        return Parts().rotary_tables(positions_T + (len(positions_T) == 1), frequencies_R)

    found = doctor(replace(Parts(), cache=Grown, rotary_tables=late))
    assert found.part == "rotary_tables"
