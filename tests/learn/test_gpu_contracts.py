"""The contracts of lesson 83 accept every right answer, and its tape plays what was recorded."""

import math

import pytest
import torch

from qwen2lite import Qwen2, Qwen2Config
from qwen2lite.infer.compile import StaticStep
from qwen2lite.learn.tape import Tape
from tests.learn.verdict import verdict


def size_by_doubling(max_length):
    size = 256
    while size < max_length:
        size *= 2
    return size


def mask_by_comparison(position_T, size):
    return torch.arange(size) <= position_T


def mask_by_counting(position_T, size):
    return torch.ones(size, dtype=torch.long).cumsum(0) - 1 <= position_T


def mask_by_row(position_T, size):
    triangle = torch.ones(size, size, dtype=torch.bool).tril()
    return triangle.index_select(0, position_T)[0]


def column_by_index_copy(columns, position_T, new):
    return columns.index_copy_(2, position_T, new.to(columns.dtype))


def column_by_index(columns, position_T, new):
    columns[:, :, position_T] = new.to(columns.dtype)
    return columns


def column_by_scatter(columns, position_T, new):
    places = position_T.view(1, 1, 1, 1).expand_as(new)
    columns.scatter_(2, places, new.to(columns.dtype))
    return columns


def column_by_mask(columns, position_T, new):
    here = (torch.arange(columns.shape[2]) == position_T)[:, None]
    return columns.copy_(torch.where(here, new.to(columns.dtype), columns))


def replay_and_clone(step, replay, ids):
    rows = []
    for position, token in enumerate(ids):
        step.ids_BT.fill_(token)
        step.position_T.fill_(position)
        rows.append(replay()[0, -1].clone())
    return torch.stack(rows)


def replay_into_a_table(step, replay, ids):
    table = None
    for position in range(len(ids)):
        step.position_T.copy_(torch.tensor([position]))
        step.ids_BT.copy_(torch.tensor([[ids[position]]]))
        logits = replay()[0]
        table = logits.new_empty(len(ids), logits.shape[-1]) if table is None else table
        table[position] = logits[0]
    return table


def replay_and_join(step, replay, ids):
    step.position_T.zero_()
    found = torch.empty(0)
    for token in ids:
        step.ids_BT[0, 0] = token
        found = torch.cat((found, replay()[0]))
        step.position_T += 1
    return found


def mean_of_many(run, wait, clock):
    run()
    wait()
    start = clock()
    for _ in range(50):
        run()
    wait()
    return (clock() - start) / 50


def least_of_some(run, wait, clock):
    seconds = []
    for _ in range(6):
        wait()
        start = clock()
        run()
        wait()
        seconds.append(clock() - start)
    return min(seconds[1:])


def middle_one(run, wait, clock):
    run()
    seconds = []
    for _ in range(5):
        wait()
        start = clock()
        run()
        wait()
        seconds.append(clock() - start)
    return sorted(seconds)[2]


RIGHT = [
    ("static_size", size_by_doubling),
    ("static_size", lambda n: max(256, 1 << (n - 1).bit_length())),
    ("static_size", lambda n: next(256 << k for k in range(99) if 256 << k >= n)),
    ("static_size", lambda n: 256 * 2 ** max(0, math.ceil(math.log2(n / 256)))),
    ("seen_columns", mask_by_comparison),
    ("seen_columns", mask_by_counting),
    ("seen_columns", mask_by_row),
    ("write_column", column_by_index_copy),
    ("write_column", column_by_index),
    ("write_column", column_by_scatter),
    ("write_column", column_by_mask),
    ("mended_replay", replay_and_clone),
    ("mended_replay", replay_into_a_table),
    ("mended_replay", replay_and_join),
    ("seconds_of", mean_of_many),
    ("seconds_of", least_of_some),
    ("seconds_of", middle_one),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("static_size", lambda n: 256.0, "a whole number was wanted"),
        ("static_size", lambda n: 300, "static_size(1) is 256, and yours is 300"),
        ("seen_columns", lambda p, n: [True] * n, "returned a list"),
        ("seen_columns", lambda p, n: (torch.arange(n) <= p).int(), "bool [8] was wanted"),
        (
            "seen_columns",
            lambda p, n: torch.arange(n) > p,
            "11100000 are seen, yours sees 00011111",
        ),
        ("write_column", lambda c, p, new: None, "returned None"),
        ("write_column", lambda c, p, new: c, "in yours none changed"),
        ("write_column", lambda c, p, new: new, "float32 [2, 3, 1, 4]"),
        ("mended_replay", lambda s, r, ids: r(), "float32 [5, "),
        ("mended_replay", lambda s, r, ids: r()[0].repeat(len(ids), 1), "the logits of positions"),
        ("seconds_of", lambda run, wait, clock: "1 s", "a number was wanted"),
        ("seconds_of", lambda run, wait, clock: 5.0, "a step takes 20 to 21 ms; yours measured 5"),
        ("seconds_of", lambda run, wait, clock: 0.0205, "It ran 0 times"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def test_a_tape_plays_on_the_same_memory():
    x, y = torch.tensor([1.0, 2.0]), torch.zeros(2)

    def run():
        y.add_(1)
        return (x * 2).view(1, 2) + y

    tape = Tape(run)
    assert tape.names == ["add_", "mul", "add"]
    assert [o.name for o in tape.operations if o.is_view] == ["view"]
    first = tape.result
    x.fill_(10)
    assert tape() is first
    assert first.tolist() == [[22, 22]] and y.tolist() == [2, 2]


def test_a_recorded_step_gives_the_models_logits():
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.4}
    model = Qwen2(Qwen2Config(**sizes, **heads)).eval()
    step = StaticStep(model, 8, 1, with_compiler=False)
    ids = [3, 14, 15, 9, 26]
    got = replay_and_clone(step, Tape(step.compute), ids)
    with torch.no_grad():
        assert torch.allclose(got, model(torch.tensor([ids]))[0], atol=1e-4)
