"""Wrong ways to count and to time the work of a token, from the exercise 81_roofline."""

import math
from collections.abc import Callable
from typing import Any

from qwen2lite.model.config import Qwen2Config
from qwen2lite.train.cost import multiplied, parameters

Call = Callable[[], Any]


def one_for_both(rows: int, inputs: int, outputs: int, bytes_each: float) -> float:
    """A multiplication and its addition are counted as one operation. Many counters do so and call it
    FLOP (fvcore #69); data sheets count two, so beside them the work looks half as large."""
    return rows * inputs * outputs / _bytes(rows, inputs, outputs, bytes_each)


def weights_alone(rows: int, inputs: int, outputs: int, bytes_each: float) -> float:
    """Only the weights' bytes are counted. For one row that is nearly all; for 512 rows what comes in
    and goes out is most of what this matrix weighs: rows times inputs, and rows times outputs."""
    return 2 * rows / bytes_each


def read_for_each_row(rows: int, inputs: int, outputs: int, bytes_each: float) -> float:
    """The weights are read again for each row, and then more rows never help. They are read once, and
    stay in the chip while all rows are multiplied: that is what a batch is for."""
    return 2 * inputs * outputs / _bytes(1, inputs, outputs, bytes_each)


def numbers_for_bytes(rows: int, inputs: int, outputs: int, bytes_each: float) -> float:
    """Numbers are counted as if they were bytes: each has `bytes_each` of them."""
    return 2 * rows * inputs * outputs / _bytes(rows, inputs, outputs, 1)


def upside_down(rows: int, inputs: int, outputs: int, bytes_each: float) -> float:
    """It is bytes an operation. Intensity is what one gets for a byte: operations divided by bytes."""
    return _bytes(rows, inputs, outputs, bytes_each) / (2 * rows * inputs * outputs)


def _bytes(rows: int, inputs: int, outputs: int, bytes_each: float) -> float:
    return bytes_each * (inputs * outputs + rows * inputs + rows * outputs)


def the_ridge_itself(bandwidth: float, rate: float, bytes_each: float) -> int:
    """It is the ridge, in operations a byte. A row brings two operations for a weight of `bytes_each`
    bytes, so the ridge is a number of rows in 16-bit formats only."""
    return math.ceil(rate / bandwidth)


def one_too_few(bandwidth: float, rate: float, bytes_each: float) -> int:
    """It is rounded down, and with so many rows the arithmetic is still done before the weights have
    come: the smallest number that is enough is rounded up."""
    return math.floor(rate * bytes_each / (2 * bandwidth))


def rows_of_multiplications(bandwidth: float, rate: float, bytes_each: float) -> int:
    """A row is counted as one operation a weight. It is two, so half as many rows are enough."""
    return math.ceil(rate * bytes_each / bandwidth)


def narrower_needs_more(bandwidth: float, rate: float, bytes_each: float) -> int:
    """It is divided by the bytes of a weight. Narrow weights come sooner, so fewer rows are enough to
    fill the time: multiply."""
    return math.ceil(rate / (2 * bandwidth * bytes_each))


def embedding_read(
    config: Qwen2Config, bandwidth: float, length: int, rows: int, bytes_each: float
) -> float:
    """All parameters are counted, also an embedding of which a step looks up a row a text, so the
    limit comes out too low: in the 7B by 7 percent (a review of pytorch #125881 asks to leave it out).
    `multiplied(config)` counts what a token is multiplied with."""
    return _rate(bandwidth, rows, bytes_each * parameters(config), _cache(config, length) * rows)


def cache_forgotten(
    config: Qwen2Config, bandwidth: float, length: int, rows: int, bytes_each: float
) -> float:
    """Only the weights are counted. A step reads the keys and values of all earlier tokens as well; in
    a long text, or in many, they are more than the weights."""
    return _rate(bandwidth, rows, bytes_each * multiplied(config), 0)


def cache_of_query_heads(
    config: Qwen2Config, bandwidth: float, length: int, rows: int, bytes_each: float
) -> float:
    """The cache is counted with the query heads. Query heads share keys and values, so it is N/K times
    smaller (LLM-Viewer #12): `num_key_value_heads`."""
    shared = config.num_attention_heads / config.num_key_value_heads
    weights = bytes_each * multiplied(config)
    return _rate(bandwidth, rows, weights, rows * shared * _cache(config, length))


def keys_alone(
    config: Qwen2Config, bandwidth: float, length: int, rows: int, bytes_each: float
) -> float:
    """Half of the cache is missing: a position has a key *and* a value."""
    weights = bytes_each * multiplied(config)
    return _rate(bandwidth, rows, weights, rows * _cache(config, length) / 2)


def head_from_the_stream(
    config: Qwen2Config, bandwidth: float, length: int, rows: int, bytes_each: float
) -> float:
    """The size of a head is taken for hidden size / heads. In Qwen2 it is, in its successors it isn't
    (LMCache #688): the config says it, `head_dim`."""
    guessed = config.hidden_size / config.num_attention_heads / config.head_dim
    weights = bytes_each * multiplied(config)
    return _rate(bandwidth, rows, weights, guessed * rows * _cache(config, length))


def one_cache_for_all(
    config: Qwen2Config, bandwidth: float, length: int, rows: int, bytes_each: float
) -> float:
    """One cache is counted for all texts. They share the weights, and each has a cache of its own."""
    return _rate(bandwidth, rows, bytes_each * multiplied(config), _cache(config, length))


def weights_for_each_text(
    config: Qwen2Config, bandwidth: float, length: int, rows: int, bytes_each: float
) -> float:
    """The weights are read for each text anew. A step reads them once for all its rows."""
    weights = rows * bytes_each * multiplied(config)
    return _rate(bandwidth, rows, weights, rows * _cache(config, length))


def steps_for_tokens(
    config: Qwen2Config, bandwidth: float, length: int, rows: int, bytes_each: float
) -> float:
    """It is the number of steps a second, and a step writes a token of *each* text: times the rows."""
    weights = bytes_each * multiplied(config)
    return _rate(bandwidth, rows, weights, rows * _cache(config, length)) / rows


def _cache(config: Qwen2Config, length: int) -> float:
    heads = config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return 4.0 * heads * length


def _rate(bandwidth: float, rows: int, weights: float, cache: float) -> float:
    return rows * bandwidth / (weights + cache)


def not_waited_for(step: Call, wait: Call, clock: Call, steps: int) -> float:
    """The clock is stopped while the device still computes. A GPU is given work and the call comes back
    at once, so this is the time of asking: a product seemed 45 times as fast as it was (mlx-benchmark
    #21). Wait before the clock is read, both times."""
    step()
    wait()
    start = clock()
    for _ in range(steps):
        step()
    return steps / (clock() - start)


def cold_start(step: Call, wait: Call, clock: Call, steps: int) -> float:
    """The first step counts as well. It loads libraries, takes memory, compiles: a prompt seemed to be
    read 33 times slower than it was (mlx-swift-lm #10). Do one step, and only then start the clock."""
    wait()
    start = clock()
    for _ in range(steps):
        step()
    wait()
    return steps / (clock() - start)


def started_too_soon(step: Call, wait: Call, clock: Call, steps: int) -> float:
    """The clock is started while the device is still busy with the first step, so that one is counted
    after all: wait once more before the start."""
    step()
    start = clock()
    for _ in range(steps):
        step()
    wait()
    return steps / (clock() - start)


def first_step_counted(step: Call, wait: Call, clock: Call, steps: int) -> float:
    """One step more is divided by the time than was timed: the one before the start isn't in it."""
    step()
    wait()
    start = clock()
    for _ in range(steps):
        step()
    wait()
    return (steps + 1) / (clock() - start)


def in_gibibytes(read: Call, nbytes: int, clock: Call, repeats: int) -> float:
    """It is divided by 1024³. Memory is sold in GiB and its speed given in GB/s, of 10⁹ bytes, so 7
    percent of it seem to be missing (quda #39): divide by 1e9."""
    return nbytes / min(_seconds(read, clock, repeats)[1:]) / 2**30


def on_average(read: Call, nbytes: int, clock: Call, repeats: int) -> float:
    """It is the mean of all times. Other programs make some of them longer and none shorter, so a limit
    is what the fastest one shows."""
    seconds = _seconds(read, clock, repeats)[1:]
    return nbytes * len(seconds) / sum(seconds) / 1e9


def in_bits(read: Call, nbytes: int, clock: Call, repeats: int) -> float:
    """It is in gigabits. Networks are sold by the bit, memory by the byte: 8 Gb/s are 1 GB/s."""
    return 8 * nbytes / min(_seconds(read, clock, repeats)[1:]) / 1e9


def tried_once(read: Call, nbytes: int, clock: Call, repeats: int) -> float:
    """It is the very first time. The first read takes the memory's pages into the process, which is
    slow: let it go by, and take the best of the others."""
    return nbytes / _seconds(read, clock, repeats)[0] / 1e9


def all_reads_of_one(read: Call, nbytes: int, clock: Call, repeats: int) -> float:
    """The bytes of one read are divided by the time of all of them: time each on its own."""
    return nbytes / sum(_seconds(read, clock, repeats)[1:]) / 1e9


def _seconds(read: Call, clock: Call, repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats + 1):
        start = clock()
        read()
        seconds.append(clock() - start)
    return seconds


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "product_intensity": (
        one_for_both,
        weights_alone,
        read_for_each_row,
        numbers_for_bytes,
        upside_down,
    ),
    "enough_rows": (
        the_ridge_itself,
        one_too_few,
        rows_of_multiplications,
        narrower_needs_more,
    ),
    "decode_limit": (
        embedding_read,
        cache_forgotten,
        cache_of_query_heads,
        keys_alone,
        head_from_the_stream,
        one_cache_for_all,
        weights_for_each_text,
        steps_for_tokens,
    ),
    "mended_rate": (not_waited_for, cold_start, started_too_soon, first_step_counted),
    "my_bandwidth": (in_gibibytes, on_average, in_bits, tried_once, all_reads_of_one),
}
"""The wrong versions of each task."""
