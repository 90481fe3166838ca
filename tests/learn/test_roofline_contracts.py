"""The contracts of lesson 81 accept every right answer and tell wrong ones in a clear sentence."""

import itertools
import math
import statistics

import pytest

from qwen2lite.infer.roofline import Roofline
from qwen2lite.model.config import CONFIGS
from qwen2lite.train.cost import multiplied, parameters
from tests.learn.verdict import verdict


def intensity_by_tensors(rows, inputs, outputs, bytes_each):
    sizes = [inputs * outputs, rows * inputs, rows * outputs]
    return 2 * rows * sizes[0] / sum(size * bytes_each for size in sizes)


def intensity_by_harmony(rows, inputs, outputs, bytes_each):
    return 2 / bytes_each / (1 / rows + 1 / inputs + 1 / outputs)


def intensity_by_loop(rows, inputs, outputs, bytes_each):
    operations = sum(2 * inputs * outputs for _ in range(rows))
    read = bytes_each * inputs * outputs + sum(bytes_each * inputs for _ in range(rows))
    return operations / (read + bytes_each * rows * outputs)


def rows_by_counting(bandwidth, rate, bytes_each):
    rows = 1
    while 2 * rows / rate < bytes_each / bandwidth:
        rows += 1
    return rows


def rows_by_the_ridge(bandwidth, rate, bytes_each):
    return math.ceil(Roofline(bandwidth, rate).ridge * bytes_each / 2)


def rows_by_negative_floor(bandwidth, rate, bytes_each):
    return int(-(-rate * bytes_each // (2 * bandwidth)))


def limit_by_time(config, bandwidth, length, rows, bytes_each):
    position = 2 * config.num_key_value_heads * config.head_dim * 2
    seconds = multiplied(config) * bytes_each / bandwidth
    for _ in range(config.num_hidden_layers):
        seconds += rows * length * position / bandwidth
    return rows / seconds


def limit_without_the_embedding(config, bandwidth, length, rows, bytes_each):
    looked_up = 0 if config.tie_word_embeddings else config.vocab_size * config.hidden_size
    numbers = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim
    weights = (parameters(config, active=True) - looked_up) * bytes_each
    return bandwidth * rows / (weights + 2 * numbers * length * rows)


def limit_of_a_text(config, bandwidth, length, rows, bytes_each):
    width = config.num_key_value_heads * config.head_dim
    own = length * width * 4 * config.num_hidden_layers
    return bandwidth / (multiplied(config, active=True) * bytes_each / rows + own)


def rate_by_the_whole(step, wait, clock, steps):
    step()
    wait()
    start = clock()
    for _ in range(steps):
        step()
    wait()
    return steps / (clock() - start)


def rate_by_the_median(step, wait, clock, steps):
    taken = []
    for _ in range(steps + 1):
        wait()
        start = clock()
        step()
        wait()
        taken.append(clock() - start)
    return 1 / statistics.median(taken[1:])


def rate_after_three(step, wait, clock, steps):
    for _ in range(3):
        step()
    wait()
    begin = clock()
    [step() for _ in range(steps)]
    wait()
    return float(steps) / (clock() - begin)


def bandwidth_by_list(read, nbytes, clock, repeats):
    read()
    seconds = []
    for _ in range(repeats):
        start = clock()
        read()
        seconds.append(clock() - start)
    return nbytes / min(seconds) / 1e9


def bandwidth_by_best(read, nbytes, clock, repeats):
    read()
    best = 0.0
    for _ in range(repeats):
        start = clock()
        read()
        best = max(best, nbytes / (clock() - start))
    return best * 1e-9


def bandwidth_by_ticks(read, nbytes, clock, repeats):
    read()
    ticks = [clock()]
    for _ in range(repeats):
        read()
        ticks.append(clock())
    return nbytes / 1e9 / min(b - a for a, b in itertools.pairwise(ticks))


RIGHT = [
    ("product_intensity", intensity_by_tensors),
    ("product_intensity", intensity_by_harmony),
    ("product_intensity", intensity_by_loop),
    ("enough_rows", rows_by_counting),
    ("enough_rows", rows_by_the_ridge),
    ("enough_rows", rows_by_negative_floor),
    ("decode_limit", limit_by_time),
    ("decode_limit", limit_without_the_embedding),
    ("decode_limit", limit_of_a_text),
    ("mended_rate", rate_by_the_whole),
    ("mended_rate", rate_by_the_median),
    ("mended_rate", rate_after_three),
    ("my_bandwidth", bandwidth_by_list),
    ("my_bandwidth", bandwidth_by_best),
    ("my_bandwidth", bandwidth_by_ticks),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def test_the_right_answers_by_hand():
    assert intensity_by_tensors(1, 2, 4, 2.0) == 16 / 28
    assert rows_by_the_ridge(20e9, 1e12, 2.0) == 50
    assert limit_by_time(CONFIGS["qwen2-0.5b"], 988_065_536.0, 0, 1, 2.0) == 1
    ten_more = 988_065_536.0 + 10 * 12_288
    assert limit_of_a_text(CONFIGS["qwen2-0.5b"], ten_more, 10, 1, 2.0) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("product_intensity", lambda r, i, o, b: "1", "returned '1'; a number was wanted"),
        ("product_intensity", lambda r, i, o, b: 2 * r / b, "is 1; 0.5714 was wanted"),
        ("enough_rows", lambda bandwidth, rate, b: 50.0, "a whole number was wanted"),
        ("enough_rows", lambda bandwidth, rate, b: 50, "is 50; 100 was wanted"),
        ("decode_limit", lambda *given: [1.0], "a number was wanted"),
        ("decode_limit", lambda *given: 20.0, "writes at most 20.242 tokens/s; yours is 20"),
        ("mended_rate", lambda *given: None, "returned None"),
        ("mended_rate", lambda *given: 99, "Steps of 200 ms"),
        ("my_bandwidth", lambda *given: "20 GB/s", "a number was wanted"),
        ("my_bandwidth", lambda *given: 20, "4 GB/s, and yours says 20"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def test_a_mistake_is_known_also_in_another_hand():
    def total(config, bandwidth, length, rows, bytes_each):
        return limit_by_time(config, bandwidth, length, rows, bytes_each) / rows

    assert "number of steps a second" in verdict("decode_limit", total).reason
    assert (
        "as one operation"
        in verdict("product_intensity", lambda *given: intensity_by_harmony(*given) / 2).reason
    )
