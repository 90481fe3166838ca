"""The contracts of lesson 35 accept every right answer and tell wrong ones in a clear sentence."""

import pytest
import torch
import torch.nn.functional as F

from qwen2lite.infer.batch import generate_batch
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.padding import batch_mask, left_pad
from qwen2lite.learn.cases import PROBE, draw_weights
from qwen2lite.learn.checks.batching_tasks import COUNT, PROMPTS, stop_tokens
from qwen2lite.learn.mutants import batching
from qwen2lite.model.qwen2 import Qwen2
from tests.learn.verdict import verdict


def pad_by_filling(prompts, pad_id=0):
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), pad_id)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
    return ids, longest - torch.tensor([len(prompt) for prompt in prompts])


def pad_by_pad(prompts, pad_id=0):
    padding = [max(map(len, prompts)) - len(prompt) for prompt in prompts]
    rows = [
        F.pad(torch.tensor(p), (n, 0), value=pad_id) for p, n in zip(prompts, padding, strict=True)
    ]
    return torch.stack(rows), torch.tensor(padding)


def pad_by_sequence(prompts, pad_id=0):
    turned = [torch.tensor(prompt[::-1]) for prompt in prompts]
    ids = torch.nn.utils.rnn.pad_sequence(turned, batch_first=True, padding_value=pad_id)
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    return ids.flip(1), ids.shape[1] - lengths


def mask_by_loops(padding, queries, keys):
    rows = [
        [[s == t or empty <= s <= t for s in range(keys)] for t in range(keys - queries, keys)]
        for empty in padding.tolist()
    ]
    return torch.tensor(rows)[:, None]


def mask_where_padding_sees_padding(padding, queries, keys):
    at = torch.arange(keys)
    is_text = at >= padding[:, None]
    same_kind = is_text[:, :, None] == is_text[:, None, :]
    return (same_kind & (at <= at[:, None]))[:, None, keys - queries :]


def mask_where_padding_sees_all(padding, queries, keys):
    at = torch.arange(keys)
    is_text = at >= padding[:, None]
    mask = torch.ones(keys, keys, dtype=torch.bool).tril() & is_text[:, None, :]
    return (mask | ~is_text[:, :, None])[:, None, keys - queries :]


def write_in_lists(model, prompts, count, stops):
    ids, padding = left_pad(prompts)
    cache = model.new_cache(ids.shape[1] + count, len(prompts))
    found, done = [[] for _ in prompts], [False for _ in prompts]
    for _ in range(count):
        mask = batch_mask(padding, ids.shape[1], cache.length + ids.shape[1])
        ids = model(ids, cache, mask)[:, -1].argmax(-1, keepdim=True)
        for row, token in enumerate(ids.flatten().tolist()):
            done[row] = done[row] or token in stops
            if not done[row]:
                found[row].append(token)
        if all(done):
            break
    return found


def write_in_a_tensor(model, prompts, count, stops):
    ids, padding = pad_by_filling(prompts)
    start, cache = ids.shape[1], model.new_cache(ids.shape[1] + count, len(prompts))
    stops = torch.tensor(list(stops), dtype=torch.long)
    ended = torch.zeros(len(prompts), dtype=torch.long)
    while ids.shape[1] < start + count and not ended.all():
        unread = ids[:, cache.length :]
        mask = mask_by_loops(padding, unread.shape[1], ids.shape[1])
        ids = torch.cat((ids, model(unread, cache, mask)[:, -1:].argmax(-1)), dim=1)
        ended += (ended > 0) | torch.isin(ids[:, -1], stops)
    ends = (ids.shape[1] - ended).tolist()
    return [row[start:end] for row, end in zip(ids.tolist(), ends, strict=True)]


def write_by_the_package(model, prompts, count, stops):
    return generate_batch(model, prompts, count, eos_ids=stops)


def draw_row_by_row(shares, seeds, steps):
    found = []
    for row, seed in zip(shares, seeds, strict=True):
        generator = torch.Generator().manual_seed(seed)
        found.append([int(torch.multinomial(row, 1, generator=generator)) for _ in range(steps)])
    return found


def draw_step_by_step(shares, seeds, steps):
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    columns = [
        [torch.multinomial(row, 1, generator=g) for row, g in zip(shares, generators, strict=True)]
        for _ in range(steps)
    ]
    return [list(text) for text in zip(*columns, strict=True)]


def draw_all_at_once(shares, seeds, steps):
    return [
        torch.multinomial(row, steps, True, generator=torch.Generator().manual_seed(seed))
        for row, seed in zip(shares, seeds, strict=True)
    ]


RIGHT = [
    *[("left_pad", pad) for pad in (pad_by_filling, pad_by_pad, pad_by_sequence)],
    ("batch_mask", mask_by_loops),
    ("batch_mask", mask_where_padding_sees_padding),
    ("batch_mask", mask_where_padding_sees_all),
    *[("write_batch", w) for w in (write_in_lists, write_in_a_tensor, write_by_the_package)],
    *[("mended_draws", d) for d in (draw_row_by_row, draw_step_by_step, draw_all_at_once)],
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("left_pad", lambda prompts, pad_id=0: prompts, "a pair was wanted"),
        ("left_pad", lambda prompts, pad_id=0: left_pad(prompts)[0], "a pair was wanted"),
        ("left_pad", lambda prompts, pad_id=0: (prompts, [0, 2, 1]), "returned a list"),
        ("batch_mask", lambda padding, t, s: torch.ones(2, t, s), "bool [3, 1, 3, 3]"),
        ("batch_mask", lambda padding, t, s: batching.looks_ahead(padding, t, s), "sees 111"),
        ("batch_mask", lambda p, t, s: ~batch_mask(p, t, s), "the query 0 sees 011; wanted 100"),
        ("write_batch", lambda *given: 3, "returned 3; a list of lists"),
        ("write_batch", lambda model, prompts, count, stops: [[1]], "and yours are [[1]]"),
        ("mended_draws", lambda shares, seeds, steps: [[1]], "3 lists of 20 tokens"),
        (
            "mended_draws",
            lambda shares, seeds, steps: torch.multinomial(shares, steps, True).tolist(),
            "alone",
        ),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


def test_the_rows_of_the_contract_end_one_after_the_other():
    """Only so does it matter that each row has an end of its own."""
    model = Qwen2(PROBE)
    draw_weights(model.eval())
    stops = stop_tokens(model)
    texts = [list(generate_ids(model, prompt, COUNT, eos_ids=stops)) for prompt in PROMPTS]
    assert [len(text) for text in texts] == [3, 6, 1]
