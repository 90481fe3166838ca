"""Where a model runs and in which number format: chosen here, and nowhere else."""

import time
from collections.abc import Callable

import torch


def pick_device(name: str = "auto") -> torch.device:
    """The fastest device that computes right: CUDA, then Apple's MPS, then the CPU.

    MPS is taken only after it has agreed with the CPU on a small attention, because some releases
    have computed it wrong.

    Args:
        name: "auto", or a torch device to insist on.

    Raises:
        ValueError: the device is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if _mps_computes_right() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has tensors, and no numbers in them
    except (RuntimeError, AssertionError, ImportError) as error:
        reason = str(error).split(". ")[0].splitlines()[0]  # what follows are all of its backends
        raise ValueError(f"device {name!r} can't be used ({reason}); try 'auto' or 'cpu'") from None
    return device


def pick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device multiplies it in hardware, else float32.

    float16 only on MPS without bfloat16: Qwen2's attention scores overflow it unless the kernel
    keeps them in float32, which MPS's does and `pick_device` has checked.
    """
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if native else torch.float32
    if device.type == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16
    return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    """Whether the processor has bfloat16 dot products (AVX-512 BF16 or AMX)."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def _mps_computes_right() -> bool:
    if not torch.backends.mps.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    q_BNTH = torch.randn(1, 2, 64, 64, generator=generator)
    attend = torch.nn.functional.scaled_dot_product_attention
    right = attend(q_BNTH, q_BNTH, q_BNTH, is_causal=True)
    q_mps = q_BNTH.to("mps")
    got = attend(q_mps, q_mps, q_mps, is_causal=True).cpu()
    return bool(torch.allclose(right, got, atol=1e-3))


def narrowed(x: torch.Tensor) -> torch.Tensor:
    """What autocast would make of a tensor, for products that it doesn't know or casts too often."""
    device = x.device.type
    on = torch.is_autocast_enabled(device)
    return x.to(torch.get_autocast_dtype(device)) if on else x


def faster(one: Callable[[], object], other: Callable[[], object], times: float = 1.0) -> bool:
    """Whether one way is so many times as fast as the other: the best of five runs, in turns."""
    best = [float("inf")] * 2
    for _ in range(5):
        for number, run in enumerate((one, other)):
            best[number] = min(best[number], _seconds(run))
    return times * best[0] < best[1]


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
