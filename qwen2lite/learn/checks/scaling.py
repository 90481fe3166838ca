"""What the exercise 44_scaling asks: bytes, shares of a batch and of a gradient, and a plan."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    random_normal,
    require_number,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.scaling import MUTANTS
from qwen2lite.train.plan import plan

Part = Callable[..., Any]


def check_bytes_per_gpu(bytes_per_gpu: Part) -> Iterator[str]:
    """Weights, gradients and AdamW's means, whole and in shares."""
    for parameters, gpus, sharded, want, what in (
        (1000, 1, False, 16_000, "16 bytes a parameter on one GPU"),
        (1000, 4, True, 4_000, "a quarter of it on each of four with FSDP"),
        (1000, 4, False, 16_000, "all of it on each of four with DDP"),
        (494_032_768, 8, True, 988_065_536, "the 0.5B on eight: 1 GB each"),
    ):
        got = call(bytes_per_gpu, parameters, gpus, sharded)
        require_number(got, "bytes_per_gpu")
        if not math.isclose(got, want):
            wrong = f"bytes_per_gpu({parameters:,}, {gpus}, {sharded}) is {got:,}; {want:,} were"
            raise Mistake(f"{wrong} wanted.", _reason("bytes_per_gpu", bytes_per_gpu, _BYTES))
        yield what


_BYTES = ((1000, 1, False), (1000, 4, True), (1000, 4, False))


def check_windows_of(windows_of: Part) -> Iterator[str]:
    """All ranks of a step together read each window once, whatever their order."""
    for read, world_size, batch_size in ((0, 2, 3), (12, 3, 2), (7, 1, 4), (40, 4, 1)):
        shares = []
        for rank in range(world_size):
            got = call(windows_of, read, rank, world_size, batch_size)
            if not isinstance(got, list | tuple | range) or not all(type(n) is int for n in got):
                raise Mistake(
                    f"windows_of returned {describe(got)}; a list of whole numbers was wanted."
                )
            shares.append(list(got))
        want = list(range(read, read + world_size * batch_size))
        every = sorted(number for share in shares for number in share)
        if every != want or any(len(share) != batch_size for share in shares):
            raise Mistake(
                f"{read} windows were read, and {world_size} ranks take {batch_size} each. Yours read "
                f"{' and '.join(map(str, shares))}; together {_row(want)} were wanted, each once.",
                _reason("windows_of", windows_of, _SHARES),
            )
        ranks = f"{world_size} ranks take {batch_size}" if world_size > 1 else "one rank takes all"
        yield f"after {read} windows, {ranks}: none twice, none left out"


_SHARES = tuple((read, rank, 3, 2) for read in (0, 12) for rank in range(3))


def _row(values: Sequence[int]) -> str:
    return f"{values[0]} to {values[-1]}"


def check_mean_gradient(mean_gradient: Part) -> Iterator[str]:
    """By hand, then against the gradient of the whole batch."""
    mutants = MUTANTS["mean_gradient"]

    def require(gradients: list[Tensor], targets: list[int], want: Tensor, what: str) -> None:
        before = [gradient.clone() for gradient in gradients]
        got = call(mean_gradient, gradients, targets)
        require_tensor(got, want.shape, want.dtype, "mean_gradient")
        if not all(map(torch.equal, before, gradients)):
            raise Mistake(
                "mean_gradient changed the gradients that it was given.",
                "`+=` and `*=` on a tensor work in place: write `a = a + b`.",
            )
        if not same(got, want):
            raise Mistake(
                f"{what} the mean is {numbers(want)}, and yours is {numbers(got)}.",
                usual_reason(mutants, got, gradients, targets),
            )

    ones, fives = torch.tensor([1.0, -1.0]), torch.tensor([5.0, 3.0])
    what = "For gradients (1, -1) of 3 targets and (5, 3) of 1"
    require([ones, fives], [3, 1], torch.tensor([2.0, 0.0]), what)
    yield "by hand: (3 · 1 + 1 · 5) / 4 = 2"

    weight, x_XD, y_X = random_normal(4, seed=1), random_normal(9, 4), random_normal(9, seed=2)
    places = [slice(0, 5), slice(5, 7), slice(7, 9)]
    parts = [_slope(weight, x_XD[place], y_X[place]) for place in places]
    what = "For 9 targets, 5, 2 and 2 on three processes,"
    require(parts, [5, 2, 2], _slope(weight, x_XD, y_X), what)
    yield "three processes: the gradient of the whole batch"

    require([ones, torch.zeros(2)], [3, 0], ones, "For (1, -1) of 3 targets and none elsewhere")
    yield "a process without a target counts nothing"


def _slope(weight: Tensor, x_XD: Tensor, y_X: Tensor) -> Tensor:
    """The gradient of a mean of squares."""
    return 2 * ((x_XD @ weight - y_X)[:, None] * x_XD).mean(0)


def check_mended_clip(mended_clip: Part) -> Iterator[str]:
    """By hand, then random shares of unequal sizes; short gradients stay."""
    mutants = MUTANTS["mended_clip"]
    shares = [random_normal(3, 2), 4 * random_normal(2, 2, seed=1), random_normal(1, seed=2)]
    length = float(torch.cat([share.flatten() for share in shares]).norm())
    for given, max_norm, factor, what in (
        ([torch.tensor([3.0]), torch.tensor([4.0])], 1.0, 0.2, "by hand: 3 and 4 become 0.6, 0.8"),
        (shares, length / 5, 0.2, "three shares, all shortened to a fifth"),
        (shares, length * 3, 1.0, "a short gradient stays as it is"),
    ):
        before = [share.clone() for share in given]
        got = call(mended_clip, given, max_norm)
        if not isinstance(got, list | tuple) or len(got) != len(given):
            raise Mistake(
                f"mended_clip returned {describe(got)}; a list of as many shares was wanted."
            )
        if not all(map(torch.equal, before, given)):
            raise Mistake("mended_clip changed the shares that it was given; return new tensors.")
        want = [share * factor for share in given]
        for mine, right in zip(got, want, strict=True):
            require_tensor(mine, right.shape, right.dtype, "mended_clip")
        if not _near(got, want):
            wrong = (m for m in mutants if _near(m(given, max_norm), got))
            raise Mistake(
                f"A gradient of norm {float(_norm(given)):.3g}, clipped to {max_norm:.3g}, has in its "
                f"shares the norms {_norms(want)}; yours have {_norms(got)}.",
                next(map(told_by, wrong), ""),
            )
        yield what


def _near(shares: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(same(a, b, tolerance=1e-4) for a, b in zip(shares, others, strict=True))


def _norm(shares: Sequence[Tensor]) -> Tensor:
    return torch.cat([share.flatten() for share in shares]).norm()


def _norms(shares: Sequence[Tensor]) -> str:
    return ", ".join(f"{float(share.norm()):.3g}" for share in shares)


def check_fewest_gpus(fewest_gpus: Part) -> Iterator[str]:
    """Against the plan itself: it fits on the answer, and on one GPU fewer it doesn't."""
    for question in _PLANS:
        model, memory, again = question
        got = call(fewest_gpus, *question)
        if type(got) is not int or got < 1:
            raise Mistake(f"fewest_gpus returned {describe(got)}; a whole number was wanted.")
        for gpus, should in ((got, True), (got - 1, False)):
            if not gpus:
                continue
            parallel = "none" if gpus == 1 else "fsdp"
            how: dict[str, Any] = {"parallel": parallel, "activation_checkpointing": again}
            found = plan(model, gpus=gpus, memory=memory, **how)
            if found.fits is not should:
                what = f"{gpus} GPU{'s' * (gpus > 1)} of {memory / 1e9:g} GB"
                raise Mistake(
                    f"fewest_gpus{question} is {got}, and {what} "
                    f"{'would do too' if found.fits else 'will not do'}: on each there would be "
                    f"{found.total / 1e9:.1f} GB.",
                    _reason("fewest_gpus", fewest_gpus, _PLANS),
                )
        kept = "layers computed twice" if again else "activations kept"
        yield f"{model} on GPUs of {memory / 1e9:g} GB, {kept}: {got}"


_PLANS = (
    ("0.5b", 80e9, False),
    ("7b", 80e9, False),
    ("7b", 80e9, True),
    ("1.5b", 24e9, True),
)


def _reason(task: str, part: Part, questions: Sequence[tuple[Any, ...]]) -> str:
    """The known mistake that gives the same answer to all of some questions."""
    answers = [_plain(call(part, *question, name=task)) for question in questions]
    for mutant in MUTANTS[task]:
        if [mutant(*question) for question in questions] == answers:
            return told_by(mutant)
    return ""


def _plain(answer: Any) -> Any:
    return list(answer) if isinstance(answer, tuple | range) else answer
