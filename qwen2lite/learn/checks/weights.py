"""What the exercise 32_weights asks of its readers: a safetensors file, and blocks of Q4_0."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    random_normal,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.weights import MUTANTS, metadata_as_a_tensor
from qwen2lite.weights.dequantise import q4_0

Part = Callable[..., Any]


def by_hand() -> bytes:
    """A file of two tensors as one could type it: three float32 numbers and a 2 by 3 in bfloat16.

    The header names them the other way round: only the offsets say where they lie.
    """
    header = {
        "wide": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [12, 24]},
        "small": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    one, two, half = b"\x80\x3f", b"\x00\x40", b"\x00\x3f"
    small = b"\x00\x00" + one + b"\x00\x00" + two + b"\x00\x00" + half
    return len(text).to_bytes(8, "little") + text + small + one + two + half + half + one + two


def check_read_safetensors(read_safetensors: Part) -> Iterator[str]:
    """A file by hand, one with a note from the safetensors library, and a matrix in float16."""
    data = by_hand()
    got = _read(read_safetensors, data)
    small = torch.tensor([1.0, 2.0, 0.5])
    _require_same(got, "small", small, data, "a file by hand")
    yield "three float32 numbers, 12 bytes, named last and stored first: 1, 2, 0.5"

    wide = torch.tensor([[1.0, 2.0, 0.5], [0.5, 1.0, 2.0]]).bfloat16()
    _require_same(got, "wide", wide, data, "a file by hand")
    yield "a 2 by 3 matrix in bfloat16, rows first"

    tensors = {"a": random_normal(5, 7), "b": random_normal(3, 4).bfloat16(), "c": torch.ones(2)}
    tensors["d"] = random_normal(4, 6, seed=1).half()
    data = save(tensors, metadata={"format": "pt"})
    try:
        got = _read(read_safetensors, data)
    except Mistake as mistake:
        reason = mistake.reason or told_by(metadata_as_a_tensor)
        raise Mistake(f"A file with a `__metadata__`: {mistake.wrong}", reason) from None
    if got.keys() != tensors.keys():
        raise Mistake(
            f"A file with the tensors a, b, c, d and a `__metadata__` gives {sorted(got)}.",
            told_by(metadata_as_a_tensor) if "__metadata__" in got else "",
        )
    for name, tensor in tensors.items():
        _require_same(got, name, tensor, data, "a file of the safetensors library")
    yield "four tensors that the safetensors library wrote, and its note left out"


def _read(part: Part, data: bytes) -> dict[str, Tensor]:
    got = call(part, data)
    if not isinstance(got, dict):
        raise Mistake(
            f"read_safetensors returned a {type(got).__name__}; a dict of tensors was wanted."
        )
    return got


def _require_same(got: dict[str, Tensor], name: str, want: Tensor, data: bytes, what: str) -> None:
    if name not in got:
        raise Mistake(f"{what} has a tensor {name}, and the answer only {sorted(got)}.")

    def one(mutant: Part) -> Part:
        def answer(given: bytes) -> Tensor:
            return mutant(given)[name]

        answer.__doc__ = mutant.__doc__
        return answer

    why = usual_reason(map(one, MUTANTS["read_safetensors"]), got[name], data)
    require_tensor(got[name], want.shape, want.dtype, f"{name} of {what}", why)
    if not same(got[name], want, 0.0):
        said = f"wanted {numbers(want.flatten()[:4])}, got {numbers(got[name].flatten()[:4])}"
        raise Mistake(f"{name} of {what} begins wrong: {said}.", why)


def check_dequantise_q4_0(dequantise_q4_0: Part) -> Iterator[str]:
    """A block by hand, then two with scales of their own, then random bits."""
    # Scale 0.5; byte i holds i in its low half and 15 - i in its high half.
    packed = torch.tensor([i | (15 - i) << 4 for i in range(16)], dtype=torch.uint8)
    block = torch.cat((torch.tensor([0.5]).half().view(torch.uint8), packed))[None]
    _require_block(dequantise_q4_0, block, "scale 0.5, low halves 0 … 15, high halves 15 … 0")
    yield "by hand: -4, -3.5 … 3.5 from the low halves, and back from the high halves"

    second = block.clone()
    second[:, :2] = torch.tensor([-2.0]).half().view(torch.uint8)
    _require_block(dequantise_q4_0, torch.cat((block, second)), "scales 0.5 and -2")
    yield "every block with its own scale"

    bits = torch.randint(256, (50, 18), generator=torch.Generator().manual_seed(0))
    blocks = bits.to(torch.uint8)
    blocks[:, :2] = random_normal(50, 1).half().view(torch.uint8)
    _require_block(dequantise_q4_0, blocks, "random bits")
    yield "50 blocks of random bits"


def _require_block(part: Part, blocks: Tensor, what: str) -> None:
    got = call(part, blocks)
    why = usual_reason(MUTANTS["dequantise_q4_0"], got, blocks)
    require_tensor(got, [len(blocks), 32], torch.float32, "dequantise_q4_0", why)
    want = q4_0(blocks)
    if not same(got, want, 1e-6):
        row = int((got != want).any(1).nonzero()[0])
        said = f"{numbers(want[row, :4])} …, got {numbers(got[row, :4])} …"
        raise Mistake(f"With {what}, block {row} should begin {said}", why)
