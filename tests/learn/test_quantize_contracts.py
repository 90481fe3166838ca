"""The tasks of lesson 82 accept every right answer, and say in a sentence what is wrong."""

import math

import pytest
import torch

from qwen2lite.infer.quantize import quantize_int8
from qwen2lite.learn.checks.quantize import evenly_rounded
from tests.learn.verdict import verdict


def bits_in_a_row(bits, group_size):
    return (bits * 1024 + 32 * 1024 / group_size) / 1024


def bits_by_addition(bits, group_size):
    return sum([bits * group_size, 16, 16]) / group_size


def bits_per_weight(bits, group_size):
    return bits + 16 / group_size * 2


def groups_by_loops(weight, bits, group_size):
    rounded = torch.empty_like(weight)
    for row in range(len(weight)):
        for start in range(0, weight.shape[1], group_size):
            group = weight[row, start : start + group_size].tolist()
            low, high = min(group), max(group)
            step = (high - low) / (2**bits - 1) or 1.0
            for place, w in enumerate(group):
                rounded[row, start + place] = low + step * round((w - low) / step)
    return rounded


def groups_by_nearest_value(weight, bits, group_size):
    groups = weight.reshape(-1, group_size)
    low, high = groups.min(1).values[:, None], groups.max(1).values[:, None]
    values = low + (high - low) * torch.linspace(0, 1, 2**bits)
    nearest = (groups[:, :, None] - values[:, None]).abs().argmin(-1)
    return values.gather(1, nearest).reshape(weight.shape)


def groups_from_the_top(weight, bits, group_size):
    pieces = []
    for group in weight.split(group_size, dim=1):
        high = group.amax(1, keepdim=True)
        step = (high - group.amin(1, keepdim=True)).div(2**bits - 1).clamp(min=1e-30)
        pieces.append(high - ((high - group) / step).round() * step)
    return torch.cat(pieces, 1)


def int8_by_row(weight):
    scales = torch.stack([row.abs().max() / 127 for row in weight]).bfloat16()
    codes = [(row / max(float(s), 1e-30)).round() for row, s in zip(weight, scales, strict=True)]
    return torch.stack(codes).clamp(-127, 127).to(torch.int8), scales


def int8_in_float64(weight):
    scales = (torch.linalg.vector_norm(weight, torch.inf, dim=1) / 127).bfloat16()
    steps = torch.where(scales == 0, torch.ones_like(scales), scales).double()
    codes = torch.floor(weight.double() / steps[:, None] + 0.5)
    return codes.clamp(-127, 127).char(), scales


def int8_with_a_scale_of_one_for_zeros(weight):
    scales = (weight.abs().amax(1) / 127).bfloat16()
    scales = torch.where(scales == 0, 1.0, scales)
    return (weight / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def narrowing_by_distances(group, narrowings):
    middle, half = (group.max() + group.min()) / 2, (group.max() - group.min()) / 2
    best, least = narrowings[0], math.inf
    for narrowing in narrowings:
        values = torch.linspace(-1, 1, 16) * half * narrowing + middle
        error = torch.cdist(group[:, None], values[:, None]).amin(1).square().sum().item()
        if error < least:
            best, least = narrowing, error
    return best


def narrowing_at_once(group, narrowings):
    factors = torch.tensor(narrowings)[:, None]
    low = group.mean() * 0 + (group.min() + group.max()) / 2
    low = low - factors * (group.max() - group.min()) / 2
    step = factors * (group.max() - group.min()) / 15
    kept = group.clamp(low, low + 15 * step)
    errors = (((kept - low) / step).round() * step + low - group).pow(2).mean(1)
    return narrowings[int(errors.argmin())]


def narrowing_in_python(group, narrowings):
    weights = group.tolist()
    middle, width = (min(weights) + max(weights)) / 2, max(weights) - min(weights)

    def error(narrowing):
        values = [middle + narrowing * width * (n / 15 - 0.5) for n in range(16)]
        return sum(min((w - v) ** 2 for v in values) for w in weights)

    return sorted(narrowings, key=error)[0]


KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def hurt_by_names(model, rounded):
    def share(kind):
        weights = [w.detach() for n, w in model.named_parameters() if n.endswith(f"{kind}.weight")]
        off = torch.cat([(rounded(w) - w).flatten() for w in weights])
        return (off.norm() / torch.cat([w.flatten() for w in weights]).norm()).item()

    return max(KINDS, key=share)


def hurt_by_modules(model, rounded):
    sums = {kind: [0.0, 0.0] for kind in KINDS}
    for layer in model.model.layers:
        for owner in (layer.self_attn, layer.mlp):
            for kind in KINDS:
                if hasattr(owner, kind):
                    weight = getattr(owner, kind).weight.data
                    sums[kind][0] += (rounded(weight) - weight).norm().item() ** 2
                    sums[kind][1] += weight.norm().item() ** 2
    return max(sums, key=lambda kind: sums[kind][0] / sums[kind][1])


def hurt_by_stacks(model, rounded):
    stacks = {}
    for name, weight in model.state_dict().items():
        if "layers" in name and weight.ndim == 2:
            stacks.setdefault(name.split(".")[-2], []).append(weight)
    shares = {}
    for kind, weights in stacks.items():
        stack = torch.stack(weights)
        off = torch.stack([rounded(weight) for weight in weights]) - stack
        shares[kind] = float(off.pow(2).sum() / stack.pow(2).sum())
    return sorted(shares, key=shares.get)[-1]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("bits_per_weight", bits_in_a_row),
        ("bits_per_weight", bits_by_addition),
        ("bits_per_weight", bits_per_weight),
        ("round_groups", groups_by_loops),
        ("round_groups", groups_by_nearest_value),
        ("round_groups", groups_from_the_top),
        ("mended_int8", int8_by_row),
        ("mended_int8", int8_in_float64),
        ("mended_int8", int8_with_a_scale_of_one_for_zeros),
        ("mended_int8", lambda weight: quantize_int8(weight)),
        ("best_narrowing", narrowing_by_distances),
        ("best_narrowing", narrowing_at_once),
        ("best_narrowing", narrowing_in_python),
        ("most_hurt", hurt_by_names),
        ("most_hurt", hurt_by_modules),
        ("most_hurt", hurt_by_stacks),
    ],
)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("bits_per_weight", lambda *_: "5", "a number was wanted"),
        ("bits_per_weight", lambda *_: 4.25, "a weight costs 5 bits"),
        ("round_groups", lambda weight, bits, group_size: weight.half(), "float32 [4, 8] was"),
        ("round_groups", lambda weight, *_: weight.clone(), "is [0, 1, 2, 3, -6, -4, -2, 0]"),
        ("mended_int8", lambda weight: weight, "codes and scales were wanted"),
        ("mended_int8", lambda weight: (weight, weight[:, 0]), "for the codes, returned float32"),
        ("best_narrowing", lambda *_: True, "a number was wanted"),
        ("best_narrowing", lambda *_: 0.5, "and yours is 0.5"),
        ("most_hurt", lambda *_: 3, "the name of a kind was wanted"),
        ("most_hurt", lambda *_: "q_proj", "down_proj is further off than any other"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


@pytest.mark.parametrize(
    ("code", "scale", "said"),
    [(0, torch.nan, "scale nan, and any finite one would do"), (3, 1.0, "has the code 3")],
)
def test_a_row_of_zeros_needs_codes_of_zero_and_a_finite_scale(code, scale, said):
    def of_zeros(weight):
        codes, scales = quantize_int8(weight)
        zeros = (weight == 0).all(1)
        codes[zeros], scales[zeros] = code, scale
        return codes, scales

    assert said in verdict("mended_int8", of_zeros).wrong


def test_a_code_that_is_not_the_nearest_is_shown_with_its_weight():
    def one_off(weight):
        codes, scales = quantize_int8(weight)
        codes[0, 3] += 1
        return codes, scales

    assert "has the code 4" in verdict("mended_int8", one_off).wrong


def test_evenly_rounded_is_off_by_half_a_step_at_most():
    weight = torch.randn(6, 48, generator=torch.Generator().manual_seed(0))
    for bits, group_size in ((1, 16), (4, 8), (8, 48)):
        groups = weight.unflatten(1, (-1, group_size))
        step = (groups.amax(-1) - groups.amin(-1)) / (2**bits - 1)
        rounded = evenly_rounded(weight, bits, group_size).unflatten(1, (-1, group_size))
        assert ((rounded - groups).abs().amax(-1) <= 0.5001 * step).all()
        assert max(len(group.unique()) for group in rounded.flatten(0, 1)) <= 2**bits
