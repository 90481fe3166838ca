"""Wrong answers to the tasks of the exercise 24_gqa that are no part."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen2lite.model.config import Qwen2Config


def keys_alone(config: Qwen2Config, tokens: int, batch_size: int, number_size: int) -> int:
    """Only the keys are counted. The cache holds keys and values: twice as much."""
    layers, heads = config.num_hidden_layers, config.num_key_value_heads
    return layers * heads * config.head_dim * number_size * tokens * batch_size


def of_the_query_heads(config: Qwen2Config, tokens: int, batch_size: int, number_size: int) -> int:
    """This counts N query heads. Stored are the K key/value heads, and that is the whole point of
    sharing (torchtune #38 made its cache N heads wide)."""
    return keys_alone(config, tokens, batch_size, number_size) * 2 * _group_size(config)


def divided_by_the_heads(
    config: Qwen2Config, tokens: int, batch_size: int, number_size: int
) -> int:
    """num_key_value_heads is taken for the size of a group, and N divided by it. It is the number of
    heads K itself (LLMs-from-scratch #922)."""
    bytes_a_head = 2 * keys_alone(config, tokens, batch_size, number_size)
    heads = config.num_key_value_heads
    return bytes_a_head // heads * (config.num_attention_heads // heads)


def times_the_hidden_size(
    config: Qwen2Config, tokens: int, batch_size: int, number_size: int
) -> int:
    """Each head is counted as wide as the whole model. A head has head_dim numbers (vllm-fit #14
    multiplied the heads by the hidden size)."""
    correct = 2 * keys_alone(config, tokens, batch_size, number_size)
    return correct // config.head_dim * config.hidden_size


def of_one_layer(config: Qwen2Config, tokens: int, batch_size: int, number_size: int) -> int:
    """One layer is counted. Every layer has keys and values of its own."""
    correct = 2 * keys_alone(config, tokens, batch_size, number_size)
    return correct // config.num_hidden_layers


def of_one_text(config: Qwen2Config, tokens: int, batch_size: int, number_size: int) -> int:
    """The batch is left out: every text that is read at once has keys of its own."""
    return 2 * keys_alone(config, tokens, 1, number_size)


def always_two_bytes(config: Qwen2Config, tokens: int, batch_size: int, number_size: int) -> int:
    """A number is taken to have 2 bytes, as in bfloat16. How many it has is given."""
    return 2 * keys_alone(config, tokens, batch_size, 2)


def _group_size(config: Qwen2Config) -> int:
    return config.num_attention_heads // config.num_key_value_heads


def in_turn(k_BKSH: Tensor, query_heads: int) -> Tensor:
    """The heads come as 0, 1, 0, 1: that is `repeat`. Neighbouring query heads share one, 0, 0, 1,
    1: that is `repeat_interleave` (onnx #7274, jax-js #180)."""
    return k_BKSH.repeat(1, query_heads // k_BKSH.shape[1], 1, 1)


def number_over_k(k_BKSH: Tensor, query_heads: int) -> Tensor:
    """Query head n reads n // K. It reads n // (N/K): divide by the size of a group, not by their
    number; the two are easily confused, since they may be equal (ONNXim #34)."""
    heads = k_BKSH.shape[1]
    chosen = [min(n // heads, heads - 1) for n in range(query_heads)]
    return k_BKSH[:, chosen]


def repeated_n_times(k_BKSH: Tensor, query_heads: int) -> Tensor:
    """Each head is repeated N times, which makes K · N heads. N/K times each makes N."""
    return k_BKSH.repeat_interleave(query_heads, dim=1)


def along_the_positions(k_BKSH: Tensor, query_heads: int) -> Tensor:
    """The positions are repeated in place of the heads: in [B, K, S, H] the heads are dimension 1
    (VeOmni #162 repeated along the wrong one)."""
    return k_BKSH.repeat_interleave(query_heads // k_BKSH.shape[1], dim=2)


def merged_as_they_lie(mixed_BNTH: Tensor) -> Tensor:
    """The numbers lie head by head, and `reshape` takes them as they lie, so that a token gets numbers
    of other tokens. Move the positions before the heads first (transformer-from-scratch #6)."""
    batch, heads, tokens, size = mixed_BNTH.shape
    return mixed_BNTH.reshape(batch, tokens, heads * size)


def numbers_before_heads(mixed_BNTH: Tensor) -> Tensor:
    """Each token gets the first number of all heads, then the second. It gets all of head 0, then all
    of head 1: o_proj expects them so."""
    return mixed_BNTH.permute(0, 2, 3, 1).flatten(-2)


def last_head_first(mixed_BNTH: Tensor) -> Tensor:
    """The heads come in reverse order."""
    return mixed_BNTH.flip(1).transpose(1, 2).flatten(-2)


def texts_and_positions_swapped(mixed_BNTH: Tensor) -> Tensor:
    """Texts and positions have changed places: the result is [T, B, N · H]."""
    return mixed_BNTH.permute(2, 0, 1, 3).flatten(-2)


def with_itself(k_KSH: Tensor) -> Tensor:
    """Each head is compared with itself too, which always gives 1. Wanted are pairs of different
    heads."""
    keys = F.normalize(k_KSH, dim=-1)
    return torch.einsum("ksh,jsh->kjs", keys, keys).mean()


def not_normalised(k_KSH: Tensor) -> Tensor:
    """These are dot products, which grow with the keys' lengths. A cosine divides by both lengths."""
    return _mean_of_pairs(k_KSH)


def of_the_mean_keys(k_KSH: Tensor) -> Tensor:
    """This is the cosine of two mean keys. Wanted is the mean of the cosines: compare at each position,
    then average."""
    return _mean_of_pairs(F.normalize(k_KSH.mean(1, keepdim=True), dim=-1))


def across_positions(k_KSH: Tensor) -> Tensor:
    """Keys of different positions are compared too. Both keys are to be those of the same token."""
    keys = F.normalize(k_KSH, dim=-1)
    return _mean_of_pairs(keys.mean(1, keepdim=True))


def _mean_of_pairs(keys_KSH: Tensor) -> Tensor:
    heads, positions, _ = keys_KSH.shape
    products_KK = torch.einsum("ksh,jsh->kj", keys_KSH, keys_KSH) / positions
    return (products_KK.sum() - products_KK.trace()) / (heads * (heads - 1))


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "kv_cache_bytes": (
        keys_alone,
        of_the_query_heads,
        divided_by_the_heads,
        times_the_hidden_size,
        of_one_layer,
        of_one_text,
        always_two_bytes,
    ),
    "share_keys": (in_turn, number_over_k, repeated_n_times, along_the_positions),
    "mended_merge": (
        merged_as_they_lie,
        numbers_before_heads,
        last_head_first,
        texts_and_positions_swapped,
    ),
    "head_similarity": (with_itself, not_normalised, of_the_mean_keys, across_positions),
}
"""The wrong versions of each task."""
