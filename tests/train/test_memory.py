"""What the C library keeps, seen by the pages that a process has to be given."""

import subprocess
import sys

import pytest

from qwen2lite.train.memory import keep_freed_memory

GROWING = """
import resource, sys, torch
from qwen2lite.train.memory import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for megabytes in range(1, 25):
    torch.ones(megabytes, 2**18)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(how: str) -> int:
    command = [sys.executable, "-c", GROWING, how]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library has no such setting")
def test_a_tensor_finds_the_memory_of_the_one_before():
    # Each is larger than all before it, so that by itself the library asks the system for all of it.
    assert pages("kept") < pages("as it comes") / 3


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
