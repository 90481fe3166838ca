"""What the exercise 84_export asks besides: an index, a file, experts in order, and a measurement."""

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
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
from qwen2lite.learn.mutants import export_tasks as mutants
from qwen2lite.learn.mutants.export_tasks import MUTANTS

Part = Callable[..., Any]


def check_index_of(index_of: Part) -> Iterator[str]:
    """Two files by hand, then twelve, with two dtypes among them."""
    shards = [{"a": torch.zeros(3), "b": torch.zeros(2, 2)}, {"c": torch.zeros(5).bfloat16()}]
    _require_index(index_of, shards)
    yield "three tensors in two files: 12 + 16 + 10 bytes, and each name with its file"

    _require_index(index_of, [{f"t{n}": torch.zeros(n + 1)} for n in range(12)])
    yield "twelve files, numbered from 00001 to 00012"


def _require_index(index_of: Part, shards: list[dict[str, Tensor]]) -> None:
    got = call(index_of, shards)
    if not isinstance(got, dict) or got.keys() != {"metadata", "weight_map"}:
        said = f"a dict with {sorted(got)}" if isinstance(got, dict) else describe(got)
        raise Mistake(f"index_of returned {said}; a dict with metadata and weight_map was wanted.")
    why = usual_reason(MUTANTS["index_of"], got, shards)
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    if got["metadata"] != {"total_size": total}:
        raise Mistake(
            f'metadata is {got["metadata"]}, and {{"total_size": {total}}} was wanted.', why
        )
    count = len(shards)
    want = {
        name: f"model-{n:05}-of-{count:05}.safetensors"
        for n, shard in enumerate(shards, start=1)
        for name in shard
    }
    if got["weight_map"] != want:
        raise Mistake(f"weight_map should be {want}, and yours is {got['weight_map']}.", why)


def check_write_safetensors(write_safetensors: Part) -> Iterator[str]:
    """Three numbers, then views and several dtypes; the safetensors library reads all of it."""
    three = {"w": torch.tensor([1.0, 2.0, 0.5])}
    header = _require_header(write_safetensors, three)
    _require_tensors(write_safetensors, three, "three numbers")
    yield "three float32 numbers: a header, then 12 bytes"

    stack = random_normal(4, 3, 2)
    _require_tensors(write_safetensors, {"e": stack[2], "f": stack[3]}, "two of four experts")
    yield "experts out of a stack bring their own bytes, and no others"

    matrix = torch.arange(6.0).view(2, 3)
    _require_tensors(write_safetensors, {"t": matrix.T}, "a transposed matrix")
    yield "a transposed matrix comes back as it looked"

    kinds = {"a": random_normal(5, 3).bfloat16(), "b": random_normal(7), "c": stack.half()}
    _require_tensors(write_safetensors, kinds, "three dtypes")
    yield "bfloat16, float32 and float16 in one file"

    if header.get("__metadata__") != {"format": "pt"}:
        said = header.get("__metadata__", "missing")
        raise Mistake(
            f'`__metadata__` should be {{"format": "pt"}}, and it is {said}.',
            told_by(mutants.without_the_note),
        )
    yield "and a note that PyTorch wrote it"


def _require_header(part: Part, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The header of a file, where it can be found and its first tensor begins at 0."""
    data = call(part, tensors)
    if not isinstance(data, bytes | bytearray):
        raise Mistake(f"write_safetensors returned a {type(data).__name__}; bytes were wanted.")
    length = int.from_bytes(data[:8], "little")
    if 8 + length > len(data):
        swapped = 8 + int.from_bytes(data[:8], "big") <= len(data)
        raise Mistake(
            f"The first 8 bytes say that the header has {length} bytes, and the file has {len(data)}.",
            told_by(mutants.big_endian) if swapped else "",
        )
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + length])
        first = min(e["data_offsets"][0] for name, e in header.items() if name in tensors)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Mistake(
            f"After the first 8 bytes comes {bytes(data[8 : 8 + min(length, 60)])!r} …, which is no "
            f"header of these tensors ({type(error).__name__}: {error})."
        ) from None
    if first != 0:
        raise Mistake(
            f"The first tensor begins at {first}, and 0 was wanted.",
            told_by(mutants.offsets_from_the_start),
        )
    return header


def _require_tensors(part: Part, tensors: dict[str, Tensor], what: str) -> None:
    header = _require_header(part, tensors)
    for name, tensor in tensors.items():
        if name not in header:
            raise Mistake(f"The file of {what} doesn't have the tensor {name}.")
        begin, end = header[name]["data_offsets"]
        if end - begin > tensor.nbytes:
            wide = header[name].get("dtype") == "F32" and tensor.dtype != torch.float32
            raise Mistake(
                f"{name} of {what} takes {end - begin} bytes, and has {tensor.nbytes}.",
                told_by(mutants.widened if wide else mutants.the_whole_storage),
            )
    try:
        back = load(bytes(call(part, tensors)))
    except (SafetensorError, ValueError, KeyError) as error:
        raise Mistake(f"The safetensors library can't read the file of {what}: {error}.") from None
    for name, tensor in tensors.items():
        if not same(back[name], tensor, 0.0):
            mixed = torch.equal(back[name].flatten().sort()[0], tensor.flatten().sort()[0])
            raise Mistake(
                f"{name} of {what} was {numbers(tensor)}, and comes back as {describe(back[name])}: "
                f"{numbers(back[name])}.",
                told_by(mutants.in_the_order_of_memory) if mixed else "",
            )


def check_mended_stack(mended_stack: Part) -> Iterator[str]:
    """Three experts, then twelve out of order, between other matrices and another layer's."""
    _require_stack(mended_stack, 3, "three experts")
    yield "three experts, in order"
    _require_stack(mended_stack, 12, "twelve experts")
    yield "twelve experts, in the order of their numbers"


def _require_stack(part: Part, experts: int, what: str) -> None:
    stem, tensors = "model.layers.1.mlp.experts", {}
    for step in range(experts):
        expert = (step * 5 + 1) % experts  # out of order, as a file may have them
        for layer in (1, 11):
            name = f"model.layers.{layer}.mlp.experts.{expert}"
            tensors[f"{name}.down_proj.weight"] = torch.full((2, 2), float(100 * layer + expert))
            tensors[f"{name}.gate_proj.weight"] = torch.full((2, 2), -1.0)
    got = call(part, tensors, stem)
    why = usual_reason(MUTANTS["mended_stack"], got, tensors, stem)
    require_tensor(got, [experts, 2, 2], torch.float32, f"mended_stack of {what}", why)
    order = [int(number) - 100 for number in got[:, 0, 0].tolist()]
    if order != list(range(experts)):
        raise Mistake(f"Of {what}, yours stand in the order {order}.", why)


def check_divergence(divergence: Part) -> Iterator[str]:
    """By hand, equal models, random ones, and logits so far apart that a probability is zero."""
    before, after = torch.tensor([[[0.5, 0.5]]]).log(), torch.tensor([[[0.25, 0.75]]]).log()
    _require_divergence(divergence, before, after, "from 1/2, 1/2 to 1/4, 3/4")
    yield "by hand: from 1/2, 1/2 to 1/4, 3/4 it is 0.1438"
    _require_divergence(
        divergence, before + 3, after - 2, "the same, a constant added to the logits"
    )
    yield "a constant added to all logits of a position changes nothing"
    some = random_normal(2, 5, 7), random_normal(2, 5, 7, seed=1)
    _require_divergence(divergence, *some, "random logits")
    _require_divergence(divergence, some[0], some[0].clone(), "two equal models")
    yield "the mean over rows and positions; 0 where nothing has changed"
    _require_divergence(divergence, some[0] * 200, some[1] * 200, "logits that are far apart")
    yield "also where a probability is as good as zero"


def _require_divergence(part: Part, before_BTV: Tensor, after_BTV: Tensor, what: str) -> None:
    got = call(part, before_BTV, after_BTV)
    value = got.item() if isinstance(got, Tensor) and got.numel() == 1 else got
    require_number(value, "divergence")
    p_BTV, q_BTV = (x.double().log_softmax(-1) for x in (before_BTV, after_BTV))
    want = (p_BTV.exp() * (p_BTV - q_BTV)).sum(-1).mean().item()
    if not math.isclose(value, want, rel_tol=1e-3, abs_tol=1e-5):
        raise Mistake(
            f"For {what} it is {want:.4g}, and yours is {value:.4g}.",
            _known(value, before_BTV, after_BTV),
        )


def _known(value: float, *logits: Tensor) -> str:
    """What the known mistake says of itself that gives this number, be it none."""
    for mutant in MUTANTS["divergence"]:
        wrong = mutant(*logits)
        both_none = math.isnan(wrong) and math.isnan(value)
        if both_none or math.isclose(wrong, value, rel_tol=1e-3, abs_tol=1e-6):
            return told_by(mutant)
    return ""
