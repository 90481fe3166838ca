r"""The two limits of a machine: how fast it reads, and how fast it multiplies.

A piece of work that reads b bytes and computes f operations takes at least max(b / bandwidth, f / rate)
seconds. Their ratio f/b is its *arithmetic intensity*: below rate/bandwidth it waits for memory, above
for arithmetic. Writing one token is far below, reading a long prompt far above.

Source: Williams, Waterman, Patterson: Roofline, CACM 52(4), 2009.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

_MOST_BYTES = {"cpu": 2**30, "cuda": 2**32}
"""Read at once: more than any cache holds."""


@dataclass(frozen=True)
class Roofline:
    """The limits of one device.

    Args:
        bandwidth: bytes read a second.
        rate: floating-point operations a second, in matrix products of one number format.
    """

    bandwidth: float
    rate: float

    @property
    def ridge(self) -> float:
        """Operations a byte at which both limits take the same time."""
        return self.rate / self.bandwidth

    def attainable(self, intensity: float) -> float:
        """The most operations a second of work with so many operations a byte."""
        return min(self.rate, intensity * self.bandwidth)

    def least_seconds(self, nbytes: float, flops: float) -> float:
        """The least time of work that reads and computes so much."""
        return max(nbytes / self.bandwidth, flops / self.rate)


def measure_roofline(device: torch.device, dtype: torch.dtype) -> Roofline:
    """Tries out what this device reaches: the best of some runs, in about two seconds.

    It takes 1 GiB on a CPU and 4 GiB on a GPU, or half the free memory of a smaller GPU, and gives it
    back. No program is faster than its limits, but what was measured is not quite the limit: a kernel
    may reach a little more.

    Args:
        device: to be measured.
        dtype: of the products.
    """
    return Roofline(read_bandwidth(device), product_rate(device, dtype))


@torch.inference_mode()
def read_bandwidth(device: torch.device) -> float:
    """Bytes a second that a long vector is read with: the best of a sum and of a product."""
    nbytes = _MOST_BYTES.get(device.type, 2**30)
    if device.type == "cuda":
        nbytes = min(nbytes, torch.cuda.mem_get_info(device)[0] // 2)
    numbers = torch.ones(nbytes // 4, device=device)
    row = torch.ones(1024, dtype=torch.bfloat16, device=device)
    matrix = numbers.view(torch.bfloat16).view(-1, len(row))
    reads = (lambda: numbers.sum(), lambda: torch.mv(matrix, row))
    return numbers.nbytes / min(best_seconds(read, device) for read in reads)


@torch.inference_mode()
def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second in a product of square matrices; a multiplication and an addition are two."""
    size = 8192 if device.type == "cuda" else 1536
    left, right = torch.ones(2, size, size, dtype=dtype, device=device)
    return 2 * size**3 / best_seconds(lambda: left @ right, device)


def best_seconds(run: Callable[[], object], device: torch.device, repeats: int = 7) -> float:
    """Time of the fastest run; the first, which may set things up, doesn't count."""
    waits: dict[str, Callable[[], None]] = {
        "cuda": lambda: torch.cuda.synchronize(device), "mps": torch.mps.synchronize
    }  # fmt: skip
    wait = waits.get(device.type, lambda: None)
    seconds = []
    for _ in range(repeats + 1):
        wait()
        start = time.perf_counter()
        run()
        wait()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
