"""Wrong answers to the tasks of the exercise 82_quantization.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Rounding = Callable[[Tensor], Tensor]


def codes_alone(bits: int, group_size: int) -> float:
    """Only the codes are counted. Without a scale and a zero nobody can tell which weight a code
    stands for, and both have to be stored."""
    return float(bits)


def scale_alone(bits: int, group_size: int) -> float:
    """The zero is forgotten. A group stores two numbers of 16 bits, its scale and its zero."""
    return bits + 16 / group_size


def for_every_weight(bits: int, group_size: int) -> float:
    """Every weight pays for a scale and a zero of its own. A group shares them: divide their bits by
    its size."""
    return float(bits + 32)


def bits_of_the_group(bits: int, group_size: int) -> float:
    """These are the bits of a whole group. Divide them by its weights."""
    return float(bits * group_size + 32)


def groups_of_columns(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """The groups run down the columns. A matrix is [out, in], and neighbours in a row share a scale:
    these are the weights that one sum multiplies."""
    return _rounded(weight.T, bits, group_size).T


def one_group_a_row(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """The whole row has one scale, so that its largest weight sets the step for all: cut it into groups
    first."""
    return _rounded(weight, bits, weight.shape[1])


def as_many_steps_as_values(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """The range is cut into as many steps as there are values. Between 16 values lie 15 steps; with
    a 16th the greatest weight of a group has no code."""
    groups, low, high = _ranges(weight, group_size)
    step = ((high - low) / 2**bits).clamp_min(1e-20)
    return ((groups - low) / step).round().clamp(0, 2**bits - 1).mul(step).add(low).flatten(1)


def zero_dropped(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """The group's least weight was taken off before rounding and isn't added again: all weights are
    moved by it."""
    groups, low, high = _ranges(weight, group_size)
    step = ((high - low) / (2**bits - 1)).clamp_min(1e-20)
    return ((groups - low) / step).round().mul(step).flatten(1)


def from_zero_up(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """The range goes from 0 to the greatest weight, and all that is below 0 becomes 0: it has to
    begin at the least weight."""
    groups, _, high = _ranges(weight, group_size)
    step = (high / (2**bits - 1)).clamp_min(1e-20)
    return (groups / step).round().clamp(0, 2**bits - 1).mul(step).flatten(1)


def cut_off(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """Codes are cut to whole numbers, always downwards, where they should be rounded: twice the error,
    and all in one direction, so that it adds up in a sum."""
    groups, low, high = _ranges(weight, group_size)
    step = ((high - low) / (2**bits - 1)).clamp_min(1e-20)
    return ((groups - low) / step + 1e-4).floor().mul(step).add(low).flatten(1)


def flat_group_lost(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """In a group whose weights are all equal the step is 0, and 0 / 0 is not a number. One such group
    makes every output NaN: keep the step above 0 with `clamp_min`."""
    groups, low, high = _ranges(weight, group_size)
    step = (high - low) / (2**bits - 1)
    return ((groups - low) / step).round().mul(step).add(low).flatten(1)


def scale_rounded_last(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes are chosen for a scale that nobody stores: it is rounded to bfloat16 afterwards, and all
    codes of the row are then off by the same part. Round the scale first."""
    scales = (weight.abs().amax(1) / 127).clamp_min(1e-20)
    codes = (weight / scales[:, None]).round().clamp(-127, 127)
    return codes.to(torch.int8), scales.bfloat16()


def greatest_for_largest(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The scale comes from the greatest weight. Where one below 0 is larger in size, its code would be
    under -127 and is cut: take `abs()` before `amax`."""
    return _in_bytes(weight, (weight.amax(1) / 127).clamp_min(1e-20).bfloat16())


def scale_of_columns(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The scales are those of the columns. In a square matrix nobody notices, for shapes fit: a row
    needs the largest of its own weights, along dimension 1."""
    return _in_bytes(weight, (weight.abs().amax(0) / 127).clamp_min(1e-20).bfloat16())


def wrapped_around(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The largest weight gets the code 128, and int8 ends at 127: it wraps around to -128, and the
    row's largest weight changes its sign. Divide by 127."""
    scales = (weight.abs().amax(1) / 128).clamp_min(1e-20).bfloat16()
    codes = (weight / scales.float()[:, None]).round()
    return ((codes + 128) % 256 - 128).to(torch.int8), scales


def one_scale_for_all(weight: Tensor) -> tuple[Tensor, Tensor]:
    """All rows share the scale of the matrix's largest weight. Each row is a sum of its own and may
    have a scale of its own."""
    scale = (weight.abs().max() / 127).clamp_min(1e-20).bfloat16()
    return _in_bytes(weight, scale.expand(len(weight)).clone())


def beyond_the_ends(group: Tensor, narrowings: Sequence[float]) -> float:
    """Codes below 0 and above 15 are let through. With codes without end the finest step always wins,
    and they don't fit into 4 bits: clip them with `clamp`."""
    return _least(group, narrowings, lambda error: error.square().sum(), clipped=False)


def worst_weight_decides(group: Tensor, narrowings: Sequence[float]) -> float:
    """The largest single error is compared. Clipping makes just that one larger, so nothing is ever
    clipped: compare the sum of the squares."""
    return _least(group, narrowings, lambda error: error.abs().max())


def errors_cancel(group: Tensor, narrowings: Sequence[float]) -> float:
    """Errors are added with their signs, and those up cancel those down: square them first."""
    return _least(group, narrowings, lambda error: error.sum().abs())


def narrowed_towards_zero(group: Tensor, narrowings: Sequence[float]) -> float:
    """Both ends are multiplied, so that the range shrinks towards 0. A group needn't lie around
    0: shrink it towards its own middle."""
    low, high = group.min(), group.max()
    errors = [float((_in_16(group, low * n, high * n) - group).square().sum()) for n in narrowings]
    return narrowings[errors.index(min(errors))]


def narrowed_from_the_least(group: Tensor, narrowings: Sequence[float]) -> float:
    """The range begins at the least weight, so it is cut at its upper end alone. It shrinks around its
    middle, by as much at either end."""
    low, width = group.min(), group.max() - group.min()
    errors = [
        float((_in_16(group, low, low + n * width) - group).square().sum()) for n in narrowings
    ]
    return narrowings[errors.index(min(errors))]


def its_place(group: Tensor, narrowings: Sequence[float]) -> float:
    """This is the place of the best narrowing in the list. The narrowing itself is wanted."""
    best = _least(group, narrowings, lambda error: error.square().sum())
    return float(list(narrowings).index(best))


def not_in_proportion(model: Any, rounded: Rounding) -> str:
    """The errors aren't divided by the size of the weights, so that large matrices of large weights
    always win."""
    return _most_hurt(model, rounded, relative=False)


def first_layer_alone(model: Any, rounded: Rounding) -> str:
    """Only the first layer was looked at. A kind of matrix is in every layer."""
    return _most_hurt(model, rounded, layers=1)


def worst_single_matrix(model: Any, rounded: Rounding) -> str:
    """One bad matrix in one layer decides. Take a kind's errors and weights of all layers together
    before you divide."""
    worst = {
        (layer, name): _relative([weight], rounded) for layer, name, weight in _matrices(model)
    }
    return max(worst, key=lambda place: worst[place])[1]


def embedding_too(model: Any, rounded: Rounding) -> str:
    """The embedding table was rounded as well. It stays as it is: a lookup reads one row of it, so
    fewer bits save no time."""
    layers = _most_hurt(model, rounded)
    weights = [weight for _, name, weight in _matrices(model) if name == layers]
    table = model.model.embed_tokens.weight.detach()
    return "embed_tokens" if _relative([table], rounded) > _relative(weights, rounded) else layers


def _ranges(weight: Tensor, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.unflatten(1, (-1, group_size))
    return (groups, *groups.aminmax(dim=-1, keepdim=True))


def _rounded(weight: Tensor, bits: int, group_size: int) -> Tensor:
    groups, low, high = _ranges(weight, group_size)
    step = ((high - low) / (2**bits - 1)).clamp_min(1e-20)
    return ((groups - low) / step).round().mul(step).add(low).flatten(1)


def _in_bytes(weight: Tensor, scales: Tensor) -> tuple[Tensor, Tensor]:
    codes = (weight / scales.float()[:, None]).round().clamp(-127, 127)
    return codes.to(torch.int8), scales


def _in_16(group: Tensor, low: Tensor, high: Tensor, clipped: bool = True) -> Tensor:
    step = (high - low) / 15
    codes = ((group - low) / step).round()
    return (codes.clamp(0, 15) if clipped else codes) * step + low


def _least(
    group: Tensor,
    narrowings: Sequence[float],
    judge: Callable[[Tensor], Tensor],
    clipped: bool = True,
) -> float:
    low, high = group.min(), group.max()
    middle, half = (low + high) / 2, (high - low) / 2
    errors = [
        float(judge(_in_16(group, middle - n * half, middle + n * half, clipped) - group))
        for n in narrowings
    ]
    return narrowings[errors.index(min(errors))]


def _matrices(model: Any) -> Iterator[tuple[int, str, Tensor]]:
    for number, layer in enumerate(model.model.layers):
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                yield number, name.split(".")[-1], module.weight.detach()


def _relative(weights: Sequence[Tensor], rounded: Rounding, relative: bool = True) -> float:
    error = sum(float((rounded(weight) - weight).square().sum()) for weight in weights)
    size = sum(float(weight.square().sum()) for weight in weights)
    return error / size if relative else error


def _most_hurt(
    model: Any, rounded: Rounding, layers: int | None = None, relative: bool = True
) -> str:
    kinds: dict[str, list[Tensor]] = {}
    for number, name, weight in _matrices(model):
        if layers is None or number < layers:
            kinds.setdefault(name, []).append(weight)
    return max(kinds, key=lambda name: _relative(kinds[name], rounded, relative))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "bits_per_weight": (codes_alone, scale_alone, for_every_weight, bits_of_the_group),
    "round_groups": (
        groups_of_columns,
        one_group_a_row,
        as_many_steps_as_values,
        zero_dropped,
        from_zero_up,
        cut_off,
        flat_group_lost,
    ),
    "mended_int8": (
        scale_rounded_last,
        greatest_for_largest,
        scale_of_columns,
        wrapped_around,
        one_scale_for_all,
    ),
    "best_narrowing": (
        beyond_the_ends,
        worst_weight_decides,
        errors_cancel,
        narrowed_towards_zero,
        narrowed_from_the_least,
        its_place,
    ),
    "most_hurt": (not_in_proportion, first_layer_alone, worst_single_matrix, embedding_too),
}
"""The wrong versions of each task."""
