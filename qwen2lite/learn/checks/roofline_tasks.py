"""What the exercise 81_roofline asks: bytes and operations of a product and a step, and two timings.

Timings are checked on a clock that moves only with the work, so they come out the same everywhere.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from qwen2lite.learn.contract import Mistake, call, require_number, told_by
from qwen2lite.learn.mutants.roofline_tasks import MUTANTS
from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.train.cost import multiplied

Part = Callable[..., Any]


def check_product_intensity(product_intensity: Part) -> Iterator[str]:
    """By hand, then the MLP's matrix of the 0.5B with few and many rows."""
    for question, what in (
        ((1, 2, 4, 2.0), "by hand: 16 operations on 28 bytes"),
        ((1, 896, 4864, 2.0), "a token and a matrix of the 0.5B: 1.00"),
        ((512, 896, 4864, 2.0), "512 tokens: 305"),
        ((8, 896, 4864, 4.0), "8 tokens in float32: 3.96"),
    ):
        rows, inputs, outputs, bytes_each = question
        numbers = inputs * outputs + rows * (inputs + outputs)
        want = 2 * rows * inputs * outputs / (bytes_each * numbers)
        got = call(product_intensity, *question)
        require_number(got, "product_intensity")
        if not math.isclose(got, want, rel_tol=1e-6):
            raise Mistake(
                f"product_intensity{question} is {got:.4g}; {want:.4g} was wanted.",
                _reason("product_intensity", product_intensity, _PRODUCTS),
            )
        yield what


_PRODUCTS = ((1, 2, 4, 2.0), (512, 896, 4864, 2.0), (8, 896, 4864, 4.0))


def check_enough_rows(enough_rows: Part) -> Iterator[str]:
    """A machine with round numbers, then an H100 with weights of 16, 8 and 4 bits."""
    for question, want, what in (
        ((20e9, 1e12, 2.0), 50, "20 GB/s and 1 TFLOP/s, 16 bits: 50 rows"),
        ((20e9, 1e12, 4.0), 100, "32 bits: 100"),
        ((3.35e12, 989e12, 2.0), 296, "an H100, 16 bits: 296"),
        ((3.35e12, 989e12, 1.0), 148, "8 bits: 148"),
        ((3.35e12, 989e12, 0.625), 93, "4 bits: 93"),
    ):
        got = call(enough_rows, *question)
        require_number(got, "enough_rows", "A number of rows is whole: `math.ceil`.", whole=True)
        if got != want:
            raise Mistake(
                f"enough_rows{question} is {got}; {want} was wanted.",
                _reason("enough_rows", enough_rows, _MACHINES),
            )
        yield what


_MACHINES = ((20e9, 1e12, 4.0), (3.35e12, 989e12, 2.0), (3.35e12, 989e12, 0.625))

_ODD = Qwen2Config(
    vocab_size=1000,
    hidden_size=96,
    intermediate_size=200,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=32,
)


def check_decode_limit(decode_limit: Part) -> Iterator[str]:
    """The weights alone, then with caches, of one text and of many, in three sizes."""
    small, large = CONFIGS["qwen2-0.5b"], CONFIGS["qwen2-7b"]
    for question, what in (
        ((small, 20e9, 0, 1, 2.0), "the 0.5B at 20 GB/s: 20.2 tokens/s"),
        ((large, 3.35e12, 0, 1, 2.0), "the 7B on an H100: its embedding isn't read"),
        ((small, 20e9, 32768, 1, 2.0), "a text of 32,768 tokens: its cache is read too"),
        ((small, 20e9, 4096, 8, 2.0), "eight texts: weights once, eight caches"),
        ((large, 3.35e12, 4096, 8, 0.625), "weights of 4 bits, caches of 16"),
        ((_ODD, 1e9, 100, 2, 2.0), "heads that are wider than hidden size / N"),
    ):
        config, bandwidth, length, rows, bytes_each = question
        cache = 2 * 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
        nbytes = bytes_each * multiplied(config) + rows * length * cache
        want = rows * bandwidth / nbytes
        got = call(decode_limit, *question)
        require_number(got, "decode_limit")
        if not math.isclose(got, want, rel_tol=1e-6):
            raise Mistake(
                f"At {bandwidth / 1e9:g} GB/s, with {rows} {'texts' if rows > 1 else 'text'} of "
                f"{length:,} tokens and {bytes_each:g} bytes a weight, the model with D = "
                f"{config.hidden_size} writes at most {want:.5g} tokens/s; yours is {got:.5g}.",
                _reason("decode_limit", decode_limit, _STEPS),
            )
        yield what


_STEPS = (
    (CONFIGS["qwen2-7b"], 3.35e12, 0, 1, 2.0),
    (CONFIGS["qwen2-0.5b"], 20e9, 4096, 8, 2.0),
    (_ODD, 1e9, 100, 2, 2.0),
)


class Device:
    """A device as a GPU is: a step is only asked for, and is done when it is waited for.

    Args:
        first: seconds of its first step.
        each: seconds of every other.
    """

    ASKING = 1e-6

    def __init__(self, first: float, each: float):
        self._seconds, self._each = first, each
        self._now = self._idle_at = 5.0

    def step(self) -> None:
        """Asks for a step."""
        self._now += self.ASKING
        self._idle_at = max(self._now, self._idle_at) + self._seconds
        self._seconds = self._each

    def wait(self) -> None:
        """Comes back when all that was asked for is done."""
        self._now = max(self._now, self._idle_at)

    def clock(self) -> float:
        """Seconds."""
        return self._now


def check_mended_rate(mended_rate: Part) -> Iterator[str]:
    """Devices whose first step is slow, and one where it isn't."""
    for first, each, steps, what in (
        (2.0, 0.01, 20, "a step of 10 ms: 100 a second"),
        (0.3, 0.2, 5, "a step of 0.2 s: 5 a second"),
        (0.05, 0.05, 1, "a single step of 50 ms: 20 a second"),
    ):
        want = 1 / each
        device = Device(first, each)
        got = call(mended_rate, device.step, device.wait, device.clock, steps)
        require_number(got, "mended_rate")
        if not math.isclose(got, want, rel_tol=0.01):
            raise Mistake(
                f"Steps of {1000 * each:g} ms, the first of {1000 * first:g} ms: {want:g} a second, "
                f"and yours says {got:.5g}.",
                _told(got, {m: _timed(m, first, each, steps) for m in MUTANTS["mended_rate"]}),
            )
        yield what


def _timed(part: Part, first: float, each: float, steps: int) -> float:
    device = Device(first, each)
    return part(device.step, device.wait, device.clock, steps)


class Memory:
    """A clock that moves by what the reads of a list take, one after the other.

    Args:
        seconds: of each read; the last goes on for ever.
    """

    def __init__(self, seconds: Sequence[float]):
        self._seconds, self._reads, self._now = seconds, 0, 3.0

    def read(self) -> None:
        """Reads everything once."""
        self._now += self._seconds[min(self._reads, len(self._seconds) - 1)]
        self._reads += 1

    def clock(self) -> float:
        """Seconds."""
        return self._now


def check_my_bandwidth(my_bandwidth: Part) -> Iterator[str]:
    """Reads of known times, of which the first is slow and the best is the third or the last."""
    for nbytes, seconds, what in (
        (2_000_000_000, (0.9, 0.11, 0.2, 0.1, 0.15), "2 GB in 0.1 s at best: 20 GB/s"),
        (10**9, (5.0, 0.4, 0.25), "1 GB in 0.25 s: 4 GB/s"),
    ):
        want, repeats = nbytes / min(seconds) / 1e9, len(seconds) - 1
        memory = Memory(seconds)
        got = call(my_bandwidth, memory.read, nbytes, memory.clock, repeats)
        require_number(got, "my_bandwidth")
        if not math.isclose(got, want, rel_tol=1e-6):
            raise Mistake(
                f"{nbytes / 1e9:g} GB were read in {', '.join(f'{s:g}' for s in seconds)} seconds: "
                f"{want:g} GB/s, and yours says {got:.5g}.",
                _told(got, {m: _read_by(m, nbytes, seconds) for m in MUTANTS["my_bandwidth"]}),
            )
        yield what


def _read_by(part: Part, nbytes: int, seconds: Sequence[float]) -> float:
    memory = Memory(seconds)
    return part(memory.read, nbytes, memory.clock, len(seconds) - 1)


def _told(got: float, wrong: Mapping[Part, float]) -> str:
    """What the known mistake with the same answer says of itself."""
    return next((told_by(m) for m, w in wrong.items() if math.isclose(w, got, rel_tol=1e-6)), "")


def _reason(task: str, part: Part, questions: Sequence[tuple[Any, ...]]) -> str:
    """The known mistake that gives the same answer to all of some questions."""
    answers = [call(part, *question, name=task) for question in questions]
    for mutant in MUTANTS[task]:
        wrong = [mutant(*question) for question in questions]
        if all(map(math.isclose, wrong, answers)):
            return told_by(mutant)
    return ""
