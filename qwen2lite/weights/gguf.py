"""GGUF, the single-file format of llama.cpp: what stands in the file, and where.

A file is a header (magic, version, counts), the metadata (key, type, value), a directory of tensors
(name, shape, kind, offset), and after padding the tensors' bytes. Only the first three are read
here. Everything is little-endian.

Source: the GGUF specification, docs/gguf.md of github.com/ggml-org/ggml.
"""

import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""Number of a value type -> its letter in `struct`."""

KINDS: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
"""Number of a tensor kind -> name, numbers in a block, bytes of a block."""


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies in the file. `shape` is in PyTorch's order: rows first."""

    kind: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata under the file's own keys, such as "qwen2.block_count".

    Takes about a third of a second, nearly all of it for the 300,000 strings of the vocabulary.

    Raises:
        ValueError: not a GGUF file, truncated, or of a version this reader doesn't know.
    """
    return read_directory(path)[0]


def read_directory(path: str | Path) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
    """Metadata and tensors, the latter by llama.cpp's names, such as "blk.0.attn_q.weight".

    Every tensor is checked to lie inside the file, so a truncated file is noticed at once.

    Raises:
        ValueError: as `read_metadata`, or a tensor of a kind this package doesn't read.
    """
    with Path(path).open("rb", buffering=1 << 20) as file:
        reader = _Reader(file, Path(path))
        if reader.take(4) != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file (it doesn't start with 'GGUF')")
        version = reader.number("I")
        if version not in (2, 3):
            raise ValueError(f"{path} is GGUF version {version}; this package reads 2 and 3")
        tensor_count, key_count = reader.number("Q"), reader.number("Q")
        metadata = {}
        for _ in range(key_count):
            key = reader.string()
            metadata[key] = reader.value(reader.number("I"))
        found = [reader.tensor_info() for _ in range(tensor_count)]
        return metadata, _placed(found, metadata.get("general.alignment", 32), reader)


def _placed(
    found: list[tuple[str, TensorInfo]], alignment: int, reader: "_Reader"
) -> dict[str, TensorInfo]:
    """Turns offsets from the end of the directory into offsets from the start of the file."""
    if not isinstance(alignment, int) or alignment <= 0:
        raise ValueError(
            f"{reader.path} is damaged: general.alignment is {alignment!r}; fetch it again"
        )
    position = reader.file.tell()
    data_start = position + -position % alignment
    placed = {}
    for name, info in found:
        info = TensorInfo(info.kind, info.shape, data_start + info.start, info.nbytes)
        if info.start + info.nbytes > reader.size:
            raise ValueError(
                f"{reader.path} is truncated: {name} ends at byte {info.start + info.nbytes:,} "
                f"and the file has {reader.size:,}; fetch it again"
            )
        placed[name] = info
    return placed


class _Reader:
    """Takes values from the start of a GGUF file, one after the other."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file = file
        self.path = path
        self.size = path.stat().st_size

    def take(self, count: int) -> bytes:
        # Asked before reading: a damaged count may be larger than the machine's memory.
        data = self.file.read(count) if count <= self.size else b""
        if len(data) < count:
            raise ValueError(
                f"{self.path} is truncated or damaged: a value of {count:,} bytes doesn't fit in "
                f"its {self.size:,}; fetch it again"
            )
        return data

    def number(self, letter: str) -> Any:
        return struct.unpack("<" + letter, self.take(struct.calcsize("<" + letter)))[0]

    def string(self) -> str:
        # Straight to `read` where all is well: a vocabulary has 300,000 of these.
        length = int.from_bytes(self.take(8), "little")
        data = self.take(length)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path} is damaged: a string is not UTF-8 ({error}); fetch it again"
            ) from None

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array()
        if kind not in _SCALARS:
            raise ValueError(f"{self.path} is damaged: no GGUF value is of type {kind}")
        return self.number(_SCALARS[kind])

    def array(self) -> list[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind in _SCALARS:
            letter = _SCALARS[kind]
            data = self.take(count * struct.calcsize("<" + letter))
            return list(struct.unpack(f"<{count}{letter}", data))
        return [self.value(kind) for _ in range(count)]

    def tensor_info(self) -> tuple[str, TensorInfo]:
        name = self.string()
        dimensions = [self.number("Q") for _ in range(self.number("I"))]
        kind, offset = self.number("I"), self.number("Q")
        if kind not in KINDS:
            names = ", ".join(name for name, _, _ in KINDS.values())
            raise ValueError(
                f"{self.path}: {name} is stored in a kind (number {kind}) that this package doesn't "
                f"read; take a file in one of {names}"
            )
        label, block, block_bytes = KINDS[kind]
        if not dimensions or dimensions[0] % block:
            raise ValueError(
                f"{self.path} is damaged: rows of {name} hold {dimensions[:1]} numbers, which do not "
                f"divide into {label} blocks of {block}"
            )
        nbytes = prod(dimensions) // block * block_bytes
        return name, TensorInfo(label, tuple(reversed(dimensions)), offset, nbytes)
