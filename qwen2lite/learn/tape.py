"""A recorder of operations: it counts what a step sends to the device, and plays it again.

A CUDA graph does the same on a GPU, and a GPU is needed to see it. This one runs anywhere, one
operation after the other and no faster, and makes the same mistakes possible.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True)
class Operation:
    """One call that PyTorch made: what, on which tensors, and the tensors that came out."""

    op: Any
    inputs: tuple[Any, ...]
    named: dict[str, Any]
    outputs: tuple[Any, ...]

    @property
    def name(self) -> str:
        """As PyTorch calls it, without its overload."""
        return str(self.op.overloadpacket.__name__)

    @property
    def is_view(self) -> bool:
        """Whether it only looks at memory another way, so that the device has nothing to do."""
        first = self.inputs[0] if self.inputs else None
        if self.op._schema.is_mutable or not isinstance(first, torch.Tensor):
            return False
        return all(_memory(out) == _memory(first) for out in self.outputs)


class Tape(TorchDispatchMode):
    """Runs a function once and records its operations; called, it plays them again.

    It holds tensors, not their names: each operation reads and writes where it did the first time.
    A result is overwritten by the next play, and a number of Python is what it was.

    Args:
        run: a function without arguments that returns one tensor.
    """

    def __init__(self, run: Callable[[], torch.Tensor]):
        super().__init__()
        self.operations: list[Operation] = []
        with torch.no_grad(), self:
            self.result = run()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: else PyTorch imports its whole compiler at the first operation, for seconds."""
        return False

    def __torch_dispatch__(
        self, op: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """PyTorch calls it in place of each operation."""
        result = op(*args, **(kwargs or {}))
        outputs = result if isinstance(result, tuple | list) else (result,)
        self.operations.append(Operation(op, args, kwargs or {}, tuple(outputs)))
        return result

    @property
    def names(self) -> list[str]:
        """The operations in which a device has something to do, in order."""
        return [operation.name for operation in self.operations if not operation.is_view]

    @torch.no_grad()
    def __call__(self) -> torch.Tensor:
        """Does all of it again, on the same memory."""
        for operation in self.operations:
            again = operation.op(*operation.inputs, **operation.named)
            outputs = again if isinstance(again, tuple | list) else (again,)
            for old, new in zip(operation.outputs, outputs, strict=True):
                if isinstance(new, torch.Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)
        return self.result


def _memory(tensor: Any) -> int:
    return tensor.untyped_storage().data_ptr() if isinstance(tensor, torch.Tensor) else -1
