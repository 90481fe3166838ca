"""The two limits, by hand; and that what is measured is a speed of this machine."""

import time

import pytest
import torch

from qwen2lite.infer.roofline import Roofline, best_seconds, product_rate, read_bandwidth


def test_below_the_ridge_memory_bounds_and_above_it_arithmetic():
    limits = Roofline(bandwidth=20e9, rate=1e12)
    assert limits.ridge == 50
    assert [limits.attainable(i) for i in (1, 50, 500)] == [20e9, 1e12, 1e12]
    assert limits.least_seconds(nbytes=20e9, flops=1e9) == 1
    assert limits.least_seconds(nbytes=1, flops=3e12) == 3


def test_measured_limits_are_of_the_size_of_any_computer():
    cpu = torch.device("cpu")
    assert 1e9 < read_bandwidth(cpu) < 1e13
    assert 1e9 < product_rate(cpu, torch.float32) < 1e16


def test_the_first_run_does_not_count():
    waits = iter([0.2, 0.0, 0.0])
    assert best_seconds(lambda: time.sleep(next(waits)), torch.device("cpu"), repeats=2) < 0.1
    with pytest.raises(StopIteration):
        next(waits)
