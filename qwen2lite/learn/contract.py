"""What the contracts in `checks/` are written with: call a part, say what is wrong with it.

A contract is a function `check_NAME(part)` in any file of `checks/`. It yields one short sentence
for each thing that holds, and raises `Mistake` at the first that doesn't.
"""

import linecache
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

_PACKAGE = Path(__file__).parents[1]
_PYTHON = Path(sysconfig.get_path("stdlib"))
TIME_LIMIT = 10.0
"""Seconds of computing that a call may take. Tensors are tiny: only an endless loop gets there, or
a recursion that doubles at each step."""


class Mistake(Exception):
    """Something a part does wrong.

    Args:
        wrong: what was got and what was wanted.
        reason: why that usually happens, and what to do.
    """

    def __init__(self, wrong: str, reason: str = ""):
        super().__init__(wrong)
        self.wrong = wrong
        self.reason = reason


def call(part: Callable[..., Any], *inputs: Any, name: str = "") -> Any:
    """Calls a learner's part and returns its answer.

    Args:
        part: function or module.
        inputs: given to it; tensors among them are compared before and after.
        name: how the messages call it; by default its own name.

    Raises:
        Mistake: it raised, never came back, returned nothing, or changed its inputs.
        NotImplementedError: it isn't written yet.
    """
    name = name or getattr(part, "__name__", type(part).__name__)
    before = [x.detach().clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    try:
        answer = _within_time_limit(part, inputs, name)
    except (Mistake, NotImplementedError):
        raise
    except Exception as error:
        said = _what_was_raised(error, name)
        raise Mistake(f"{said}. It was given {describe(inputs)}.") from error
    for old, new in zip(before, inputs, strict=True):
        if isinstance(new, torch.Tensor) and not same(old, new.detach(), tolerance=0.0):
            raise Mistake(
                f"{name} changed a tensor that it was given.",
                "Something works in place: `x *= y`, `x[...] = y` or a method ending in `_`. "
                "The caller still needs that tensor; make a new one.",
            )
    if answer is None:
        raise Mistake(f"{name} returned None.", "The `return` at the end is missing.")
    return answer


def _within_time_limit(part: Callable[..., Any], inputs: Iterable[Any], name: str) -> Any:
    # A tracer, and not a signal or a thread: signals are missing on Windows, and a thread that
    # loops for ever can't be ended.
    # By both clocks: on a busy machine a part takes longer than it computes. The thread's own clock is
    # ten times slower to read, so it is asked last.
    earliest, deadline = time.monotonic() + TIME_LIMIT, time.thread_time() + TIME_LIMIT

    def watch(frame: FrameType, event: str, argument: Any) -> Any:
        if time.monotonic() > earliest and time.thread_time() > deadline:
            raise Mistake(
                f"{name} was still running after {TIME_LIMIT:g} seconds of computing.",
                "A loop in it never ends: does what its condition asks about change? Or it calls "
                "itself and asks the same things again and again: keep their answers in a table.",
            )
        return watch

    earlier = sys.gettrace()
    sys.settrace(watch)
    try:
        return part(*inputs)
    finally:
        sys.settrace(earlier)


def _what_was_raised(error: Exception, name: str) -> str:
    """The exception in one line, with the learner's line that it came from."""
    message = str(error).strip().split("\n")[0].rstrip(".")
    said = f"{name} raised {type(error).__name__}: {message}"
    own_frames = [
        f for f in traceback.extract_tb(error.__traceback__) if _is_the_learners(f.filename)
    ]
    if not own_frames:
        return said
    line = linecache.getline(own_frames[-1].filename, own_frames[-1].lineno or 0).strip()
    return f"{said} (in the line `{line}`)" if line else said


def _is_the_learners(filename: str) -> bool:
    path = Path(filename)
    installed = "site-packages" in path.parts or filename.startswith("<")
    return not installed and not any(path.is_relative_to(own) for own in (_PACKAGE, _PYTHON))


def describe(value: Any) -> str:
    """A value in few words: for a tensor its dtype and shape."""
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, tuple):
        return "(" + ", ".join(describe(item) for item in value) + ")"
    return repr(value) if isinstance(value, int | float | str) else type(value).__name__


def numbers(tensor: torch.Tensor) -> str:
    """The values of a small tensor, rounded to what a person compares."""
    values = tensor.detach().double().flatten().tolist()
    return f"[{', '.join(f'{round(value, 4) + 0.0:g}' for value in values)}]"


def same(got: Any, want: Any, tolerance: float = 1e-5) -> bool:
    """Whether two answers agree: tensors in shape, dtype and value, anything else in type and value."""
    if isinstance(want, tuple):
        return (
            isinstance(got, tuple)
            and len(got) == len(want)
            and all(same(g, w, tolerance) for g, w in zip(got, want, strict=True))
        )
    if not isinstance(want, torch.Tensor):
        return type(got) is type(want) and bool(got == want)
    if not isinstance(got, torch.Tensor) or got.device != want.device:
        return False
    if got.shape != want.shape or got.dtype != want.dtype:
        return False
    if got.device.type == "meta":
        return True
    got, want = got.detach().double(), want.detach().double()
    return torch.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True)


def require_tensor(
    got: Any, shape: Iterable[int], dtype: torch.dtype, name: str, reason: str = ""
) -> None:
    """Raises Mistake unless `got` is a tensor of this shape and dtype."""
    wanted = f"{str(dtype).removeprefix('torch.')} {list(shape)}"
    if not isinstance(got, torch.Tensor):
        raise Mistake(f"{name} returned a {type(got).__name__}, and a tensor {wanted} was wanted.")
    if list(got.shape) != list(shape) or got.dtype != dtype:
        raise Mistake(f"{name} returned {describe(got)}, and {wanted} was wanted.", reason)


def require_number(got: Any, name: str, reason: str = "", *, whole: bool = False) -> None:
    """Raises Mistake unless `got` is an int or a float, or with `whole` an int. True is neither."""
    if isinstance(got, bool) or not isinstance(got, int if whole else int | float):
        wanted = "a whole number" if whole else "a number"
        raise Mistake(f"{name} returned {describe(got)}; {wanted} was wanted.", reason)


def one_number(got: Any, name: str) -> float:
    """An answer as a float, be it a number or a tensor that holds one; else raises Mistake."""
    is_number = isinstance(got, int | float | torch.Tensor) and not isinstance(got, bool)
    if not is_number or torch.as_tensor(got).numel() != 1:
        raise Mistake(f"{name} returned {describe(got)}; one number was wanted.")
    return float(got)


def require_refusal(
    part: Callable[..., Any],
    inputs: Iterable[Any],
    given: str,
    reason: str,
    shown: Callable[[Any], str] = describe,
) -> None:
    """Raises Mistake unless the part raises a ValueError.

    Args:
        part: what a learner wrote.
        inputs: what it has to refuse.
        given: what these are, to begin the sentence with.
        reason: why it is usually accepted.
        shown: how what it returned is told.
    """
    try:
        got = part(*inputs)
    except ValueError:
        return
    except NotImplementedError:
        raise
    except Exception as error:
        raised = type(error).__name__
        raise Mistake(f"{given} it raised {raised}, and should raise a ValueError.") from error
    raise Mistake(f"{given} it returned {shown(got)}, and should raise a ValueError.", reason)


def usual_reason(mutants: Iterable[Callable[..., Any]], got: Any, *inputs: Any) -> str:
    """What the known mistake that gives exactly this answer says of itself, or "" where none does.

    Args:
        mutants: wrong versions of the part, from `learn/mutants/`.
        got: the learner's answer to `inputs`.
        inputs: what both are asked.
    """
    for mutant in mutants:
        try:
            wrong = mutant(*inputs)
        except Exception:  # a mutant may be unable to answer; then it is not this mistake
            continue
        if same(got, wrong):
            return told_by(mutant)
    return ""


def told_by(mutant: Callable[..., Any]) -> str:
    """What a known mistake says of itself: its docstring in one line."""
    return " ".join((mutant.__doc__ or "").split())


def require_gradient(output: Any, inputs: dict[str, torch.Tensor], name: str) -> None:
    """Raises Mistake unless the output's gradient reaches each of the named inputs."""
    if not output.requires_grad:
        raise Mistake(f"{name} stops the gradient, so the model could not be trained.", _STOPS)
    weights = torch.linspace(1.0, 2.0, output.numel()).view(output.shape)
    (output.float() * weights).sum().backward()
    for what, tensor in inputs.items():
        if tensor.grad is None or not tensor.grad.abs().sum() > 0:
            raise Mistake(f"{name} lets no gradient through to {what}.", _STOPS)


_STOPS = "Usually a `.detach()`, `.data`, `.item()`, `.numpy()` or `torch.no_grad()` on the way."


def meta_device() -> torch.device:
    """The device without memory, on which a model is first built, warmed up.

    Its first operation makes PyTorch import for seconds, which must not be taken for an endless loop.
    """
    torch.arange(2, device="meta") / 2
    return torch.device("meta")


def random_normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers from their own generator, so that a check never moves the learner's seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def require_parameters(layer: Any, shapes: dict[str, list[int]], name: str) -> None:
    """Raises Mistake unless the layer's parameters have the checkpoint's names and shapes."""
    if not isinstance(layer, torch.nn.Module):
        raise Mistake(f"{name} is a {type(layer).__name__}, and a torch.nn.Module was wanted.")
    got = {key: list(value.shape) for key, value in layer.state_dict().items()}
    wrong = {key: shape for key, shape in shapes.items() if got.get(key) != shape}
    extra = sorted(got.keys() - shapes.keys())
    if wrong:
        wanted = ", ".join(f"{key} {shape}" for key, shape in wrong.items())
        raise Mistake(
            f"{name} has {got or 'no parameters'}, and lacks {wanted}.",
            "The names are the checkpoint's. A weight counts where it is an nn.Parameter, or in an "
            "nn.Linear (which stores [outputs, inputs]), and that is an attribute.",
        )
    if extra:
        raise Mistake(
            f"{name} has {', '.join(extra)}, which the checkpoint doesn't.",
            "Is a `bias=False` missing?",
        )
