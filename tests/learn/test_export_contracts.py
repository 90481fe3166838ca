"""The contracts of lesson 84 accept every right answer and tell wrong ones in a clear sentence."""

import json
import re
import struct

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save

from qwen2lite.learn.mutants.export_tasks import without_the_note
from qwen2lite.weights.export import split
from tests.learn.verdict import verdict


def split_by_lists(tensors, limit):
    shards = []
    for name, tensor in tensors.items():
        last = shards[-1] if shards else None
        if last is None or sum(t.nbytes for t in last.values()) + tensor.nbytes > limit:
            shards.append({})
        shards[-1][name] = tensor
    return shards


def split_by_places(tensors, limit):
    names, start, shards = list(tensors), 0, []
    while start < len(names):
        end = start + 1
        while end < len(names) and sum(tensors[n].nbytes for n in names[start : end + 1]) <= limit:
            end += 1
        shards.append({n: tensors[n] for n in names[start:end]})
        start = end
    return tuple(shards)


def index_by_loop(shards):
    places, total = {}, 0
    for number, shard in enumerate(shards, 1):
        for name, tensor in shard.items():
            places[name] = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            total += tensor.numel() * tensor.element_size()
    return {"weight_map": places, "metadata": {"total_size": total}}


def index_by_names(shards):
    count = str(len(shards)).zfill(5)
    names = [f"model-{str(n + 1).zfill(5)}-of-{count}.safetensors" for n in range(len(shards))]
    pairs = [(t, name) for shard, name in zip(shards, names, strict=True) for t in shard]
    size = sum(t.nbytes for shard in shards for t in shard.values())
    return {"metadata": {"total_size": size}, "weight_map": dict(pairs)}


def index_by_update(shards):
    index = {"metadata": {"total_size": 0}, "weight_map": {}}
    for n, shard in enumerate(shards):
        file = "model-%05d-of-%05d.safetensors" % (n + 1, len(shards))  # noqa: UP031
        index["weight_map"].update(dict.fromkeys(shard, file))
        index["metadata"]["total_size"] += sum(t.nbytes for t in shard.values())
    return index


def file_by_the_library(tensors):
    return save({n: t.contiguous() for n, t in tensors.items()}, metadata={"format": "pt"})


def file_padded(tensors):
    """As the library has it: the header filled up with spaces to a multiple of eight."""
    header, raw, at = {"__metadata__": {"format": "pt"}}, [], 0
    short = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
    for name, tensor in sorted(tensors.items()):
        numbers = tensor.reshape(-1).clone().view(torch.uint8)
        raw.append(bytes(numbers.tolist()))
        place = {"data_offsets": [at, at + len(raw[-1])], "shape": [*tensor.shape]}
        header[name] = {"dtype": short[tensor.dtype], **place}
        at += len(raw[-1])
    text = json.dumps(header)
    text += " " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text.encode("utf-8") + b"".join(raw)


def file_in_one_buffer(tensors):
    body, entries = bytearray(), {}
    for name, tensor in tensors.items():
        begin = len(body)
        body += bytes(tensor.contiguous().clone().untyped_storage())
        kind = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}[str(tensor.dtype)[6:]]
        shape = list(tensor.shape)
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, len(body)]}
    entries["__metadata__"] = {"format": "pt"}
    text = json.dumps(entries, separators=(",", ":")).encode()
    return bytearray(len(text).to_bytes(8, "little") + text) + body


def stack_by_number(tensors, stem):
    kept = {n: t for n, t in tensors.items() if n.startswith(f"{stem}.") and "down_proj" in n}
    return torch.stack([kept[n] for n in sorted(kept, key=lambda n: int(n.split(".")[-3]))])


def stack_by_counting(tensors, stem):
    experts = []
    while (name := f"{stem}.{len(experts)}.down_proj.weight") in tensors:
        experts.append(tensors[name])
    return torch.stack(experts)


def stack_by_pattern(tensors, stem):
    found = {}
    for name, tensor in tensors.items():
        if match := re.fullmatch(re.escape(stem) + r"\.(\d+)\.down_proj\.weight", name):
            found[int(match[1])] = tensor[None]
    return torch.cat([found[n] for n in range(len(found))])


def divergence_by_kl_div(before, after):
    p, q = (x.log_softmax(-1).flatten(0, 1) for x in (before, after))
    return F.kl_div(q, p, reduction="batchmean", log_target=True)


def divergence_by_loop(before, after):
    total, rows = 0.0, 0
    for old, new in zip(before.flatten(0, 1).double(), after.flatten(0, 1).double(), strict=True):
        p, q = old - old.logsumexp(0), new - new.logsumexp(0)
        total += float((p.exp() * (p - q)).sum())
        rows += 1
    return total / rows


def divergence_by_entropies(before, after):
    """Cross entropy less entropy."""
    p = before.softmax(-1)
    cross = -(p * after.log_softmax(-1)).sum(-1)
    return (cross + (p * before.log_softmax(-1)).sum(-1)).mean()


RIGHT = [
    ("split", lambda tensors, limit: split(tensors, limit)),
    ("split", split_by_lists),
    ("split", split_by_places),
    ("index_of", index_by_loop),
    ("index_of", index_by_names),
    ("index_of", index_by_update),
    ("write_safetensors", file_by_the_library),
    ("write_safetensors", file_padded),
    ("write_safetensors", file_in_one_buffer),
    ("mended_stack", stack_by_number),
    ("mended_stack", stack_by_counting),
    ("mended_stack", stack_by_pattern),
    ("divergence", divergence_by_kl_div),
    ("divergence", divergence_by_loop),
    ("divergence", divergence_by_entropies),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def test_the_library_reads_the_file_without_a_note():
    """So that only the contract can ask for it."""
    assert load(without_the_note({"a": torch.ones(2)}))["a"].tolist() == [1.0, 1.0]


def torch_names(tensors):
    return file_by_the_library(tensors).replace(b'"F32"', b'"f32"')


def cut_short(tensors):
    return file_by_the_library(tensors)[:-2]


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("split", lambda tensors, limit: tensors, "a list of dicts of tensors was wanted"),
        (
            "split",
            lambda tensors, limit: [tensors],
            "6 should be [['t0', 't1'], ['t2', 't3'], ['t4']]",
        ),
        (
            "split",
            lambda t, n: [{k: v.clone() for k, v in s.items()} for s in split(t, n)],
            "t0 is not the tensor that was given",
        ),
        ("index_of", lambda shards: {}, "a dict with []"),
        ("index_of", lambda shards: [], "metadata and weight_map was wanted"),
        ("index_of", lambda s: index_by_loop(s) | {"weight_map": {}}, "and yours is {}"),
        ("write_safetensors", lambda tensors: "file", "returned a str; bytes were wanted"),
        ("write_safetensors", lambda tensors: bytes(8), "no header of these tensors"),
        ("write_safetensors", torch_names, "can't read the file of three numbers"),
        ("write_safetensors", cut_short, "can't read the file of three numbers"),
        (
            "write_safetensors",
            lambda tensors: file_by_the_library({n: t * 2 for n, t in tensors.items()}),
            "w of three numbers was [1, 2, 0.5], and comes back as float32 [3]: [2, 4, 1]",
        ),
        ("mended_stack", lambda t, stem: list(t.values()), "returned a list"),
        ("mended_stack", lambda t, stem: stack_by_number(t, stem).flip(0), "the order [2, 1, 0]"),
        ("divergence", lambda p, q: 1.0, "3/4 it is 0.1438, and yours is 1"),
        ("divergence", lambda p, q: p, "a number was wanted"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong
