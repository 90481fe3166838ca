"""Which of PyTorch's matrix products are fastest on this processor, found out by trying.

PyTorch sends products of bfloat16 matrices to oneDNN. On a processor without bfloat16 instructions
two detours are faster, and both compute the same products with float32 sums:

* one row, as in decoding, is bound by how fast the weights are read: PyTorch's own kernel reads
  them faster than oneDNN's;
* many rows, as in prefill, are bound by arithmetic: widening a weight to float32 costs little beside
  a float32 product that runs several times as fast.
"""

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from qwen2lite.model.device import faster


def fastest_products(
    device: torch.device, dtype: torch.dtype, rows: int
) -> AbstractContextManager[object]:
    """A context in which products of that many rows with a model's weights are fastest here.

    Args:
        device: the model's.
        dtype: the model's.
        rows: tokens read at once.
    """
    plain = device.type != "cpu" or dtype == torch.float32
    if plain or not torch.backends.mkldnn.is_available():
        return nullcontext()
    detour, tried_rows = (without_onednn, 1) if rows == 1 else (WideProducts, 64)
    return detour() if _is_faster(detour, dtype, tried_rows) else nullcontext()


_lock, _found_enabled = threading.Lock(), list[bool]()


@contextmanager
def without_onednn() -> Iterator[None]:
    """Uses PyTorch's own CPU kernels in place of oneDNN's, in all threads of the process.

    PyTorch has one switch for all of them, and a chat may write while a cell reads: the last one to
    leave sets it back. Both kernels compute the same, so that whoever else is inside loses only time.
    """
    # torch.backends.mkldnn.flags would do, but warns at every use where there is no Intel GPU.
    with _lock:
        _found_enabled.append(torch._C._get_mkldnn_enabled())
        torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        with _lock:
            before = _found_enabled.pop()
            if not _found_enabled:
                torch._C._set_mkldnn_enabled(before)


class WideProducts(TorchFunctionMode):
    """Computes linear layers of many rows in float32, widening each weight for its product."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Called by PyTorch in place of each of its functions."""
        # The output layer scores one row here: widening it would cost more than its product.
        if func is not F.linear or kwargs or args[0].ndim < 2 or args[0].shape[-2] == 1:
            return func(*args, **(kwargs or {}))
        x, weight, *bias = args
        wide_bias = bias[0].float() if bias and bias[0] is not None else None
        return F.linear(x.float(), weight.float(), wide_bias).to(x.dtype)


@functools.cache
def _is_faster(
    detour: Callable[[], AbstractContextManager[object]], dtype: torch.dtype, rows: int
) -> bool:
    """Times a product both ways, on a matrix too large for the caches; tried once a process."""
    weight = torch.ones(16384, 1024, dtype=dtype)
    x = torch.ones(rows, 1024, dtype=dtype)

    def around() -> None:
        with detour():
            F.linear(x, weight)

    return faster(around, partial(F.linear, x, weight))
