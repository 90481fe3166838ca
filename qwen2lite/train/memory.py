"""Memory that tensors have freed stays with the process, ready for the tensors of the next step."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of two settings in glibc's malloc.h: M_TRIM_THRESHOLD and M_MMAP_THRESHOLD."""
_FROM_THE_SYSTEM = 2**25
"""Bytes from which a tensor still gets memory of its own; older releases take no more than this."""


def keep_freed_memory() -> bool:
    """Tells the C library to keep freed memory, for the rest of this process.

    By itself glibc gives large pieces back at once, and the system clears each page before it hands
    it out again: thousands of them in a step of a small model, a twentieth of its time on two cores.
    The price is that the process stays as large as it was at most.

    Returns:
        Whether it was told. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    settings = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_THRESHOLD: _FROM_THE_SYSTEM}
    return all(mallopt(number, value) == 1 for number, value in settings.items())
