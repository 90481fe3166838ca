"""What the exercise 82_quantization asks: bits, groups, a scale to mend, a range, a measurement."""

from collections.abc import Callable, Iterator, Sequence
from math import isfinite
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
    usual_reason,
)
from qwen2lite.learn.mutants.quantize import MUTANTS
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Qwen2

Part = Callable[..., Any]


def check_bits_per_weight(bits_per_weight: Part) -> Iterator[str]:
    """Groups of 32, of 64, and a whole row."""
    for bits, group_size, want in ((4, 32, 5.0), (4, 64, 4.5), (3, 16, 5.0), (2, 128, 2.25)):
        got = call(bits_per_weight, bits, group_size)
        require_number(got, "bits_per_weight")
        if abs(got - want) > 1e-6:
            raise Mistake(
                f"bits_per_weight({bits}, {group_size}) is {got:g}, and a weight costs {want:g} bits.",
                usual_reason(MUTANTS["bits_per_weight"], float(got), bits, group_size),
            )
        yield f"{bits} bits in groups of {group_size}: {want:g} bits a weight"


def evenly_rounded(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """Each group of a row, rounded to 2^bits values from its least weight to its greatest.

    Args:
        weight: [out, in].
        bits: 1 or more.
        group_size: divides in.
    """
    groups = weight.float().unflatten(1, (-1, group_size))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp_min(1e-20)
    return ((groups - low) / step).round_().mul_(step).add_(low).flatten(1)


def check_round_groups(round_groups: Part) -> Iterator[str]:
    """By hand, all above 0, all alike, a square, random ones in several bits."""
    row = torch.tensor([0.0, 0.9, 2.2, 3.0, -6.0, -4.1, -1.8, 0.0])
    want = torch.tensor([0.0, 1.0, 2.0, 3.0, -6.0, -4.0, -2.0, 0.0])
    times = torch.tensor([1.0, 0.5, 0.25, 0.125])[:, None]
    _require_rounded(round_groups, times * row, 2, 4, times * want)
    yield "by hand: 2 bits, steps of 1 and of 2 in the two groups of a row"

    flat = torch.tensor([[0.5, 0.5, 1.0, 4.0]])
    _require_rounded(round_groups, flat, 4, 2, flat)
    yield "a group whose weights are all equal stays as it is"

    for bits, group_size, shape in ((4, 8, (8, 8)), (3, 4, (5, 12)), (8, 16, (3, 16))):
        weight = random_normal(*shape, seed=bits) + 0.3
        _require_rounded(
            round_groups, weight, bits, group_size, evenly_rounded(weight, bits, group_size)
        )
        yield f"{bits} bits, groups of {group_size}: right for a random matrix {list(shape)}"


def _require_rounded(
    round_groups: Part, weight: Tensor, bits: int, group_size: int, want: Tensor
) -> None:
    """Raises Mistake unless the matrix is rounded as wanted; it shows the worst row."""
    got = call(round_groups, weight, bits, group_size)
    require_tensor(got, want.shape, torch.float32, "round_groups")
    if same(got, want, 1e-4):
        return
    worst = int((got - want).abs().amax(1).nan_to_num(torch.inf).argmax())
    raise Mistake(
        f"In {bits} bits and groups of {group_size} the row {_row(weight, worst)} is "
        f"{_row(want, worst)}, and yours {_row(got, worst)}.",
        usual_reason(MUTANTS["round_groups"], got, weight, bits, group_size),
    )


def _row(matrix: Tensor, row: int) -> str:
    shown = numbers(matrix[row, :8])
    return shown if matrix.shape[1] <= 8 else f"{shown[:-1]}, …]"


def check_mended_int8(mended_int8: Part) -> Iterator[str]:
    """By hand, a square, and rows of many sizes, in which a rounded scale shows."""
    by_hand = torch.tensor(
        [[12.7, -6.4, 0.04, 0.26], [-254, 128, 4, 0], [1, 2, 3, -3.175], [63.5, 0, 1, -20]]
    )
    _require_codes(mended_int8, by_hand)
    yield "by hand: codes 127, -64, 0, 3 and -127, 64, 2, 0"

    zeros = torch.cat((torch.zeros(1, 3), random_normal(2, 3)))
    _require_codes(mended_int8, zeros)
    yield "a row of zeros stays zero, whatever its scale"

    square = random_normal(16, 16) * torch.linspace(0.1, 3, 16)[:, None]
    _require_codes(mended_int8, square)
    yield "a scale for each row, also in a square matrix"

    _require_codes(mended_int8, random_normal(20, 48, seed=2))
    yield "codes are the nearest for the scale that is stored"


def _require_codes(mended_int8: Part, weight: Tensor) -> None:
    got = call(mended_int8, weight)
    if not isinstance(got, tuple) or len(got) != 2:
        raise Mistake(f"mended_int8 returned {describe(got)}; codes and scales were wanted.")
    codes, scales = got
    reason = usual_reason(MUTANTS["mended_int8"], got, weight)
    require_tensor(codes, weight.shape, torch.int8, "mended_int8, for the codes,", reason)
    require_tensor(scales, weight.shape[:1], torch.bfloat16, "mended_int8, for the scales,", reason)
    for row, scale in enumerate(scales.float().tolist()):
        _require_scale(weight, row, scale, reason)
    exact = weight / scales.float().clamp_min(1e-20)[:, None]
    off = (codes - exact.clamp(-127, 127)).abs()
    if (off > 0.501).any():
        row, column = divmod(int(off.argmax()), weight.shape[1])
        raise Mistake(
            f"A weight of {float(weight[row, column]):.5g} is {float(exact[row, column]):.3f} times "
            f"the scale that you return, and has the code {int(codes[row, column])}.",
            reason,
        )


def _require_scale(weight: Tensor, row: int, scale: float, reason: str) -> None:
    largest = float(weight[row].abs().max())
    if largest == 0:
        # Codes of 0 make zeros with any scale but inf and nan.
        right, wanted = isfinite(scale), "any finite one would do"
    else:
        right = abs(127 * scale - largest) <= 0.01 * largest + 1e-9
        wanted = f"{largest / 127:.4g} was wanted"
    if not right:
        wrong = f"The row {_row(weight, row)} has the scale {scale:.4g}, and {wanted}."
        raise Mistake(wrong, reason)


def check_best_narrowing(best_narrowing: Part) -> Iterator[str]:
    """Groups around 4 and around 0, one that fills its range, one with an outlier."""
    ranges = [1.0, 0.98, 0.96, 0.94, 0.92, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5]
    # With this group each of the wrong versions finds another range.
    far_from_zero = random_normal(32, seed=7) + 4
    _require_narrowing(best_narrowing, far_from_zero, ranges, _by_trying(far_from_zero, ranges))
    yield "32 random weights around 4"

    even = torch.linspace(0, 15, 16) - 7
    _require_narrowing(best_narrowing, even, ranges, 1.0)
    yield "16 weights as far apart as the 16 values: nothing is clipped"

    outlier = torch.cat((torch.linspace(0.0, 10.0, 255), torch.tensor([15.0])))
    _require_narrowing(best_narrowing, outlier, ranges, _by_trying(outlier, ranges))
    yield "one outlier among 255: the range is narrower"

    for seed in range(4):
        group = random_normal(128, seed=seed) + 4 * (seed % 2)
        _require_narrowing(best_narrowing, group, ranges, _by_trying(group, ranges))
    yield "right for random groups, around 0 and far from it"

    backwards = ranges[::-1]
    _require_narrowing(best_narrowing, outlier, backwards, _by_trying(outlier, ranges))
    yield "in whatever order the narrowings come"


def _by_trying(group: Tensor, narrowings: Sequence[float]) -> float:
    """Each weight goes to the nearest of 16 values; the distances say which range is best."""
    middle, half = (group.min() + group.max()) / 2, (group.max() - group.min()) / 2

    def error(narrowing: float) -> float:
        values = middle + narrowing * half * torch.linspace(-1, 1, 16)
        return float((group[:, None] - values).abs().amin(1).square().sum())

    return min(narrowings, key=error)


def _require_narrowing(
    best_narrowing: Part, group: Tensor, narrowings: list[float], want: float
) -> None:
    got = call(best_narrowing, group, narrowings)
    require_number(got, "best_narrowing")
    if abs(got - want) > 1e-9:
        raise Mistake(
            f"Of {narrowings} the best for {len(group)} weights from {float(group.min()):.3g} to "
            f"{float(group.max()):.3g} is {want:g}, and yours is {got:g}.",
            usual_reason(MUTANTS["best_narrowing"], float(got), group, narrowings),
        )


_KINDS = {
    "q_proj": (100.4, 100.4),
    "k_proj": (1.45, 7.0),
    "v_proj": (5.0, 0.3),
    "o_proj": (3.1, 3.1),
    "gate_proj": (2.0, 2.0),
    "up_proj": (2.4, 2.4),
    "down_proj": (1.25, 1.4),
}
"""A kind's weights in the two layers; rounded to whole numbers, each is wrong in a way of its own."""


def check_most_hurt(most_hurt: Part) -> Iterator[str]:
    """A model whose weights can be rounded in the head, twice: another kind is the worst."""
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    config: dict[str, Any] = {**sizes, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = Qwen2(Qwen2Config(**config, tie_word_embeddings=True))
    _fill(model, _KINDS)
    _require_hurt(most_hurt, model, torch.round, "down_proj")
    yield "by hand: weights of 1.25 and 1.4 that become 1 are 25 % off, and no others are so far"

    _fill(model, {**_KINDS, "o_proj": (0.45, 0.45)})
    _require_hurt(most_hurt, model, torch.round, "o_proj")
    yield "and where others are the worst, it says so"


def _fill(model: Qwen2, kinds: dict[str, tuple[float, float]]) -> None:
    """Embeddings become 0.4, which rounds to nothing: they must not count."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            kind = name.split(".")[-2]
            layer = int(name.split(".")[2]) if "layers" in name else 0
            weight.fill_(kinds[kind][layer] if kind in kinds and weight.ndim == 2 else 0.4)


def _require_hurt(
    most_hurt: Part, model: Qwen2, rounded: Callable[[Tensor], Tensor], want: str
) -> None:
    got = call(most_hurt, model, rounded)
    if not isinstance(got, str):
        raise Mistake(
            f"most_hurt returned {describe(got)}; the name of a kind was wanted, such as 'q_proj'."
        )
    if got != want:
        raise Mistake(
            f"Rounded to whole numbers, {want} is further off than any other, and yours says {got}.",
            usual_reason(MUTANTS["most_hurt"], got, model, rounded),
        )
