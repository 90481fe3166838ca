"""What the exercise 24_gqa asks beside the layer: memory, shared keys, a merge, a measurement."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

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
from qwen2lite.learn.mutants.gqa_tasks import MUTANTS
from qwen2lite.model.config import CONFIGS, Qwen2Config

Part = Callable[..., Any]

_ODD = Qwen2Config(
    vocab_size=7,
    hidden_size=20,
    intermediate_size=5,
    num_hidden_layers=5,
    num_attention_heads=6,
    num_key_value_heads=3,
    head_dim=4,
)


def check_kv_cache_bytes(kv_cache_bytes: Part) -> Iterator[str]:
    """A token by hand, all five sizes, then texts, batches and formats of every size."""
    _require_bytes(kv_cache_bytes, "qwen2-0.5b", CONFIGS["qwen2-0.5b"], 1, 1, 2)
    yield "12,288 bytes, or 12 KiB, for a token of the 0.5B in bfloat16"

    for name, config in CONFIGS.items():
        _require_bytes(kv_cache_bytes, name, config, 1, 1, 2)
    yield "28, 56, 56 and 320 KiB for the others"

    for asked in ((1000, 1, 2), (1, 3, 2), (7, 1, 8), (7, 3, 1)):
        _require_bytes(kv_cache_bytes, "a small model", _ODD, *asked)
    yield "tokens, batch and bytes a number all count, and so does a head_dim of its own"


def _require_bytes(part: Part, name: str, config: Qwen2Config, *asked: int) -> None:
    tokens, batch_size, number_size = asked
    got = call(part, config, *asked)
    require_number(got, "kv_cache_bytes")
    layers, heads = config.num_hidden_layers, config.num_key_value_heads
    want = sum(tokens * batch_size * config.head_dim * number_size for _ in "kv" * layers * heads)
    if got != want:
        why = usual_reason(
            _as_tensors(MUTANTS["kv_cache_bytes"]), torch.tensor(got), config, *asked
        )
        raise Mistake(
            f"For {name}, {tokens} tokens, a batch of {batch_size} and {number_size} bytes a number "
            f"it is {want:,} bytes, and yours is {got:,}.",
            why,
        )


def _as_tensors(mutants: tuple[Part, ...]) -> Iterator[Part]:
    def as_tensor(mutant: Part) -> Part:
        def answer(*inputs: Any) -> torch.Tensor:
            return torch.tensor(mutant(*inputs))

        answer.__doc__ = mutant.__doc__
        return answer

    return map(as_tensor, mutants)


def check_share_keys(share_keys: Part) -> Iterator[str]:
    """Four heads that read two, by hand; uneven sizes; one head for all, and one for each."""
    two = torch.tensor([10.0, 20.0]).view(1, 2, 1, 1).expand(1, 2, 3, 5)
    _require_shared(share_keys, two, 4, [10, 10, 20, 20])
    yield "four query heads over the key heads 10 and 20: 10, 10, 20, 20"

    three = torch.tensor([10.0, 20.0, 30.0]).view(1, 3, 1, 1).expand(1, 3, 4, 5)
    _require_shared(share_keys, three, 6, [10, 10, 20, 20, 30, 30])
    _require_shared(share_keys, two, 6, [10, 10, 10, 20, 20, 20])
    yield "six over three and six over two"

    _require_shared(share_keys, three[:, :1], 6, [10] * 6)
    _require_shared(share_keys, three, 3, [10, 20, 30])
    keys = random_normal(2, 3, 4, 5)
    got = call(share_keys, keys, 6)
    if not same(got, torch.stack([keys[:, n // 2] for n in range(6)], dim=1)):
        raise Mistake("On random keys, positions or numbers within a head have moved.")
    yield "one for all, one for each, and every key stays as it was"


def _require_shared(part: Part, k_BKSH: torch.Tensor, heads: int, want: list[int]) -> None:
    got = call(part, k_BKSH.clone(), heads)
    why = usual_reason(MUTANTS["share_keys"], got, k_BKSH, heads)
    batch, count, keys, size = k_BKSH.shape
    what = f"share_keys of {count} key heads for {heads} query heads"
    require_tensor(got, [batch, heads, keys, size], torch.float32, what, why)
    if got[0, :, 0, 0].tolist() != want:
        raise Mistake(f"{what} gives {numbers(got[0, :, 0, 0])}, and should give {want}.", why)


def check_mended_merge(mended_merge: Part) -> Iterator[str]:
    """Two heads and two tokens by hand, then sizes that all differ."""
    # Head 0 says 1 and 2 to the two tokens, head 1 says 30 and 40.
    mixed = torch.tensor([[1.0, 2.0], [30.0, 40.0]]).view(1, 2, 2, 1)
    got = call(mended_merge, mixed)
    why = usual_reason(MUTANTS["mended_merge"], got, mixed)
    require_tensor(got, [1, 2, 2], torch.float32, "mended_merge", why)
    want = torch.tensor([[[1.0, 30.0], [2.0, 40.0]]])
    if not same(got, want):
        raise Mistake(
            "Head 0 says 1 and 2 to two tokens, head 1 says 30 and 40. The first token should get "
            f"{numbers(want[0, 0])}, the second {numbers(want[0, 1])}; "
            f"got {numbers(got[0, 0])} and {numbers(got[0, 1])}.",
            why,
        )
    yield "each token gets what both heads say to it"

    mixed = random_normal(2, 3, 4, 5)
    got = call(mended_merge, mixed)
    why = usual_reason(MUTANTS["mended_merge"], got, mixed)
    require_tensor(got, [2, 4, 15], torch.float32, "mended_merge", why)
    want = torch.stack([torch.cat(list(mixed[:, :, t].unbind(1)), -1) for t in range(4)], 1)
    if not same(got, want):
        raise Mistake("With three heads of five numbers the numbers are in another order.", why)
    yield "all of head 0, then all of head 1, in every text"


def check_head_similarity(head_similarity: Part) -> Iterator[str]:
    """Cosines of 1 and 0 by hand, then three random heads, pair by pair."""
    right, up = [1.0, 0.0], [0.0, 1.0]
    # At the first token both heads say the same, one of them louder; at the second they don't.
    keys = torch.tensor([[right, right], [[3.0, 0.0], up]])
    _require_similarity(head_similarity, keys, 0.5, "two heads, alike at one of two tokens")
    yield "by hand: cosines of 1 and 0 make 0.5, however long the keys are"

    keys = random_normal(3, 4, 5) + 0.5
    cosines = [
        float(keys[a, s] @ keys[b, s] / keys[a, s].norm() / keys[b, s].norm())
        for a, b in ((0, 1), (0, 2), (1, 2))
        for s in range(4)
    ]
    _require_similarity(head_similarity, keys, sum(cosines) / 12, "three random heads")
    yield "a mean over all pairs of different heads and all tokens"


def _require_similarity(part: Part, k_KSH: torch.Tensor, want: float, what: str) -> None:
    got = call(part, k_KSH)
    if not isinstance(got, float | torch.Tensor) or torch.as_tensor(got).numel() != 1:
        raise Mistake(f"head_similarity returned {describe(got)}; one number was wanted.")
    value = torch.as_tensor(float(got))
    if abs(float(value) - want) > 1e-5:
        why = usual_reason(MUTANTS["head_similarity"], value, k_KSH)
        raise Mistake(f"For {what} it is {want:.4g}, and yours is {value:.4g}.", why)
