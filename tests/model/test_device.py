"""Devices that can't be used are named, in a sentence that a person reads to its end."""

import pytest
import torch

from qwen2lite.model import device
from qwen2lite.model.device import faster, narrowed, pick_device, pick_dtype


@pytest.mark.filterwarnings("ignore")  # PyTorch has its own opinion of some of them
@pytest.mark.parametrize("name", ["meta", "lazy", "xla", "privateuseone", "mkldnn", "nope", ""])
def test_a_device_that_exists_only_in_name_is_refused(name):
    with pytest.raises(ValueError, match=f"device '{name}' can't be used .*; try 'auto'") as found:
        pick_device(name)
    assert len(str(found.value)) < 350 and "\n" not in str(found.value)


def test_the_cpu_is_always_there():
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"),
    [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_fastest_that_computes_right_is_taken(cuda, mps, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(device, "_mps_computes_right", lambda: mps)
    assert pick_device() == torch.device(wanted)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_without_mps_it_is_not_asked_to_compute():
    assert not device._mps_computes_right()


@pytest.mark.parametrize(
    ("capability", "wanted"),
    [((7, 5), torch.float32), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_gpu_takes_bfloat16_from_ampere_on(capability, wanted, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_dtype(torch.device("cuda")) == wanted


@pytest.mark.parametrize(("macos", "wanted"), [(13, torch.float16), (14, torch.bfloat16)])
def test_apples_takes_bfloat16_from_macos_14_on(macos, wanted, monkeypatch):
    newer = lambda major, minor: (macos, 0) >= (major, minor)  # noqa: E731
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", newer)
    assert pick_dtype(torch.device("mps")) == wanted


@pytest.mark.parametrize(
    ("avx512", "amx", "wanted"),
    [
        (False, False, torch.float32),
        (True, False, torch.bfloat16),
        (False, True, torch.bfloat16),
    ],
)
def test_a_processor_takes_bfloat16_where_it_multiplies_it(avx512, amx, wanted, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    assert pick_dtype(torch.device("cpu")) == wanted


def test_a_pytorch_that_cannot_say_has_no_bfloat16(monkeypatch):
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, probe, raising=False)
    assert pick_dtype(torch.device("cpu")) == torch.float32


def test_what_is_narrowed_is_so_under_autocast_alone():
    assert narrowed(torch.ones(2)).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert narrowed(torch.ones(2)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("one", "times", "wanted"),
    [(1.9, 1.0, True), (2.0, 1.0, False), (1.0, 2.0, False), (0.9, 2.0, True)],
)
def test_faster_takes_the_best_of_five(one, times, wanted, monkeypatch):
    seconds = {"one": iter([9.0, 9.0, 9.0, one, 9.0]), "other": iter([3.0, 2.0, 3.0, 3.0, 3.0])}
    monkeypatch.setattr(device, "_seconds", lambda run: next(seconds[run]))
    assert faster("one", "other", times) is wanted


def test_faster_asks_for_no_more_unless_told(monkeypatch):
    monkeypatch.setattr(device, "_seconds", {"one": 1.9, "other": 2.0}.get)
    assert faster("one", "other")
