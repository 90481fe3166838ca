"""Devices that can't be used are named, in a sentence that a person reads to its end."""

import pytest
import torch

from qwen2lite.model.device import pick_device


@pytest.mark.filterwarnings("ignore")  # PyTorch has its own opinion of some of them
@pytest.mark.parametrize("name", ["meta", "lazy", "xla", "privateuseone", "mkldnn", "nope", ""])
def test_a_device_that_exists_only_in_name_is_refused(name):
    with pytest.raises(ValueError, match=f"device '{name}' can't be used .*; try 'auto'") as found:
        pick_device(name)
    assert len(str(found.value)) < 350 and "\n" not in str(found.value)


def test_the_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")
