"""What the C library keeps, seen by the pages that a process has to be given."""

import subprocess
import sys

import pytest

from qwen2lite.train.memory import keep_freed_memory

STEPS = """
import resource, sys, torch
from qwen2lite.train.memory import keep_freed_memory

torch.set_num_threads(1)
if sys.argv[1] == "kept":
    assert keep_freed_memory()

def step():
    tensors = [torch.ones(2**20) for _ in range(4)]

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 5)
"""


def pages_a_step(how: str) -> float:
    command = [sys.executable, "-c", STEPS, how]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library has no such setting")
def test_a_step_finds_the_memory_of_the_step_before():
    given = 4 * 2**20 * 4 / 4096
    assert pages_a_step("kept") < given / 50
    assert pages_a_step("as it comes") > given / 2


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
