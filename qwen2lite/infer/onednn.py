"""Whether one-row matrix products run faster without oneDNN, found out by trying.

Decoding multiplies one row at a time, which is bound by how fast the weights are read. PyTorch
sends such a product to oneDNN, whose kernel for one bfloat16 row reads at a fraction of the memory's
speed on processors without bfloat16 instructions. PyTorch's own kernel is then the better one.
"""

import functools
import time
import warnings
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F


def fastest_products(weight: torch.Tensor, rows: int) -> AbstractContextManager[object]:
    """A context in which products of that many rows with such a weight are fastest here.

    Args:
        weight: any of the model's matrices; its dtype and device decide.
        rows: tokens read at once; with more than one, oneDNN has always been the faster.
    """
    if rows > 1 or weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return nullcontext()
    return nullcontext() if _onednn_is_faster(weight.dtype) else without_onednn()


def without_onednn() -> AbstractContextManager[object]:
    """A context in which PyTorch uses its own CPU kernels in place of oneDNN's."""
    with warnings.catch_warnings():  # torch reads a GPU flag here and warns that there is no GPU
        warnings.simplefilter("ignore", UserWarning)
        return torch.backends.mkldnn.flags(enabled=False)


@functools.cache
def _onednn_is_faster(dtype: torch.dtype) -> bool:
    """Times both on a matrix too large for the processor's caches; tried once a process."""
    weight = torch.ones(16384, 1024, dtype=dtype)
    row = torch.ones(1, 1024, dtype=dtype)
    with_it, without_it = float("inf"), float("inf")
    for _ in range(5):
        with_it = min(with_it, _seconds(row, weight))
        with without_onednn():
            without_it = min(without_it, _seconds(row, weight))
    return with_it <= without_it


def _seconds(row: torch.Tensor, weight: torch.Tensor) -> float:
    start = time.perf_counter()
    F.linear(row, weight)
    return time.perf_counter() - start
