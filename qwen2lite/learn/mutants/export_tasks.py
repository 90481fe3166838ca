"""Wrong answers to the tasks of the exercise 84_export.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Shards = Sequence[dict[str, Tensor]]
Index = dict[str, Any]


def counted_from_zero(shards: Shards) -> Index:
    """The files are numbered from 0, and then there is no last one: 00003-of-00003 is what programs and
    people look for. Files count from 1."""
    return _index(shards, lambda n, count: f"model-{n - 1:05}-of-{count:05}.safetensors")


def not_padded(shards: Shards) -> Index:
    """The numbers have no zeros in front. Every published folder has five digits, so that files sorted
    by name are sorted by number: `f"{n:05}"`."""
    return _index(shards, lambda n, count: f"model-{n}-of-{count}.safetensors")


def all_in_the_last(shards: Shards) -> Index:
    """All tensors are said to be in the last file: a name made in one loop is used after it. The map is
    filled where the file's name is known, inside the loop."""
    return _index(shards, lambda n, count: f"model-{count:05}-of-{count:05}.safetensors")


def files_to_names(shards: Shards) -> Index:
    """The map goes from files to names. A reader has a name and wants the file: from names to files."""
    index = _index(shards, _file)
    turned: dict[str, list[str]] = {}
    for name, file in index["weight_map"].items():
        turned.setdefault(file, []).append(name)
    return index | {"weight_map": turned}


def numbers_counted(shards: Shards) -> Index:
    """`total_size` is the number of numbers. Wanted are bytes: `nbytes`."""
    total = sum(tensor.numel() for shard in shards for tensor in shard.values())
    return _index(shards, _file) | {"metadata": {"total_size": total}}


def with_the_tied_head(shards: Shards) -> Index:
    """The map names lm_head.weight, which no file holds: the embedding is tied, and stored once. A map
    is made of what is written, not of what another model's map had (torchtitan #3764)."""
    index = _index(shards, _file)
    index["weight_map"]["lm_head.weight"] = _file(len(shards), len(shards))
    return index


def _file(number: int, count: int) -> str:
    return f"model-{number:05}-of-{count:05}.safetensors"


def _index(shards: Shards, file: Callable[[int, int], str]) -> Index:
    places = {
        name: file(n, len(shards)) for n, shard in enumerate(shards, start=1) for name in shard
    }
    total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
    return {"metadata": {"total_size": total}, "weight_map": places}


def big_endian(tensors: dict[str, Tensor]) -> bytes:
    """The length of the header is written with its highest byte first. safetensors is little-endian
    throughout: the lowest byte comes first."""
    data = _file_of(tensors)
    return data[7::-1] + data[8:]


def offsets_from_the_start(tensors: dict[str, Tensor]) -> bytes:
    """data_offsets count from the start of the file. They count from the end of the header, so that the
    header may grow without changing what stands in it: the first tensor begins at 0."""
    return _file_of(tensors, first=8 + 70 * len(tensors))


def in_the_order_of_memory(tensors: dict[str, Tensor]) -> bytes:
    """A transposed matrix is written as it lies in memory, and comes back as other numbers: a view has
    its own order. `.contiguous()` lays the numbers out as the shape says."""
    return _file_of(tensors, raw=lambda t: _storage(t)[_begin(t) : _begin(t) + t.nbytes])


def the_whole_storage(tensors: dict[str, Tensor]) -> bytes:
    """A view is written with all the memory that it looks into: one expert out of a stack brings the
    others along. `.contiguous()` copies what belongs to the tensor."""
    return _file_of(tensors, raw=_storage)


def without_the_note(tensors: dict[str, Tensor]) -> bytes:
    """There is no `__metadata__` with "format": "pt". The format doesn't ask for it, and older versions
    of transformers fail without it (safetensors #549 with Qwen2-0.5B; mlx #743)."""
    return _file_of(tensors, note=False)


def widened(tensors: dict[str, Tensor]) -> bytes:
    """bfloat16 is written as float32, twice as large: numpy has no bfloat16. Look at the memory as
    bytes instead, `.view(torch.uint8)`, and no number changes its kind."""
    return _file_of({name: tensor.float() for name, tensor in tensors.items()})


_KINDS = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def _plain(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _storage(tensor: Tensor) -> bytes:
    return bytes(tensor.untyped_storage())


def _begin(tensor: Tensor) -> int:
    return int(tensor.storage_offset()) * tensor.element_size()


def _file_of(
    tensors: dict[str, Tensor],
    first: int = 0,
    raw: Callable[[Tensor], bytes] = _plain,
    note: bool = True,
) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if note else {}
    body = b""
    for name, tensor in tensors.items():
        piece = raw(tensor)
        places = [first + len(body), first + len(body) + len(piece)]
        kind = {"dtype": _KINDS[tensor.dtype], "shape": list(tensor.shape)}
        header[name] = kind | {"data_offsets": places}
        body += piece
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def sorted_as_words(tensors: dict[str, Tensor], stem: str) -> Tensor:
    """Names are sorted as words, and as words 10 comes before 2. With up to ten experts nothing shows;
    from the eleventh on the router's rows and the experts no longer belong together, and no shape
    says so (torchtitan #2177): sort by the number."""
    names = [n for n in tensors if n.startswith(stem + ".") and n.endswith("down_proj.weight")]
    return torch.stack([tensors[name] for name in sorted(names)])


def as_they_come(tensors: dict[str, Tensor], stem: str) -> Tensor:
    """The experts stand as they come, and a file promises no order. Their place is the number in the
    name."""
    names = [n for n in tensors if n.startswith(stem + ".") and n.endswith("down_proj.weight")]
    return torch.stack([tensors[name] for name in names])


def all_that_begins_so(tensors: dict[str, Tensor], stem: str) -> Tensor:
    """Every tensor that begins with the stem is taken, the gates' too. Ask for the whole name: stem,
    number, down_proj.weight."""
    names = [n for n in tensors if n.startswith(stem + ".")]
    return torch.stack([tensors[n] for n in sorted(names, key=lambda n: int(n.split(".")[-3]))])


def first_expert_left_out(tensors: dict[str, Tensor], stem: str) -> Tensor:
    """Expert 0 is missing: experts count from 0."""
    count = sum(n.startswith(stem + ".") and n.endswith("down_proj.weight") for n in tensors)
    return torch.stack([tensors[f"{stem}.{e}.down_proj.weight"] for e in range(1, count)])


def the_other_way_round(before_BTV: Tensor, after_BTV: Tensor) -> float:
    """Before and after are swapped: this asks how surprised the old model is by the new one. The mean
    is taken over the old one's probabilities, and F.kl_div wants the other one first."""
    return _divergence(after_BTV, before_BTV)


def divided_by_the_vocabulary(before_BTV: Tensor, after_BTV: Tensor) -> float:
    """The mean runs over the vocabulary too: this is smaller by its size. Sum over the tokens that
    could come, then take the mean over the positions."""
    return _divergence(before_BTV, after_BTV) / before_BTV.shape[-1]


def summed_over_positions(before_BTV: Tensor, after_BTV: Tensor) -> float:
    """The positions are added up, so that a longer text makes a worse model. Take their mean."""
    return _divergence(before_BTV, after_BTV) * before_BTV.shape[0] * before_BTV.shape[1]


def summed_over_a_row(before_BTV: Tensor, after_BTV: Tensor) -> float:
    """The sum over the positions of a row is divided by the number of rows alone: "batchmean" of
    F.kl_div divides by the first dimension. Take the mean over rows and positions."""
    return _divergence(before_BTV, after_BTV) * before_BTV.shape[1]


def logits_for_logarithms(before_BTV: Tensor, after_BTV: Tensor) -> float:
    """Logits are taken for logarithms of probabilities. They are that only up to a constant, another
    one at each position: `log_softmax` first."""
    p_BTV = before_BTV.softmax(-1)
    return (p_BTV * (before_BTV - after_BTV)).sum(-1).mean().item()


def logarithm_of_zero(before_BTV: Tensor, after_BTV: Tensor) -> float:
    """The logarithm is taken after the softmax, and a probability that was rounded to zero has none:
    the mean is not a number. `log_softmax` never leaves the logarithms."""
    p_BTV, q_BTV = before_BTV.softmax(-1), after_BTV.softmax(-1)
    return (p_BTV * (p_BTV.log() - q_BTV.log())).sum(-1).mean().item()


def _divergence(before_BTV: Tensor, after_BTV: Tensor) -> float:
    p_BTV, q_BTV = before_BTV.log_softmax(-1), after_BTV.log_softmax(-1)
    return F.kl_div(q_BTV, p_BTV, reduction="none", log_target=True).sum(-1).mean().item()


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "index_of": (
        counted_from_zero,
        not_padded,
        all_in_the_last,
        files_to_names,
        numbers_counted,
        with_the_tied_head,
    ),
    "write_safetensors": (
        big_endian,
        offsets_from_the_start,
        in_the_order_of_memory,
        the_whole_storage,
        without_the_note,
        widened,
    ),
    "mended_stack": (sorted_as_words, as_they_come, all_that_begins_so, first_expert_left_out),
    "divergence": (
        the_other_way_round,
        divided_by_the_vocabulary,
        summed_over_positions,
        summed_over_a_row,
        logits_for_logarithms,
        logarithm_of_zero,
    ),
}
"""The wrong versions of each task."""
