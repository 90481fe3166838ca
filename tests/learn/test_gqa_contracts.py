"""The contracts of lesson 24 accept every right answer and tell wrong ones in a clear sentence."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite import CONFIGS
from qwen2lite.learn.checks import gqa
from qwen2lite.model.attention import GroupedQueryAttention, attend
from qwen2lite.model.cache import KVCache
from qwen2lite.model.rope import apply_rope
from tests.learn.verdict import verdict


class ByEinsum(nn.Module):
    """Written with einsum over groups, and its projections filled by hand."""

    def __init__(self, config, apply_rope, attend):
        super().__init__()
        n, k, h, d = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
            config.hidden_size,
        )
        self.heads = {"q_proj": n, "k_proj": k, "v_proj": k}
        for name, heads in self.heads.items():
            setattr(self, name, nn.Linear(d, heads * h, bias=True))
        self.o_proj = nn.Linear(n * h, d, bias=False)
        self.rope, self.mix = apply_rope, attend

    def forward(self, x, cos, sin, mask=None, cache=None, layer=0):
        q, k, v = (
            getattr(self, name)(x).view(*x.shape[:2], heads, -1).permute(0, 2, 1, 3)
            for name, heads in self.heads.items()
        )
        q, k = self.rope(q, cos, sin), self.rope(k, cos, sin)
        if cache:
            k, v = cache.update(layer, k, v)
        mixed = self.mix(q, k, v, mask)
        weight = self.o_proj.weight.view(x.shape[-1], q.shape[1], -1)
        return torch.einsum("bnth,dnh->btd", mixed, weight)


class SharesItself(GroupedQueryAttention):
    """Repeats the heads behind the cache, so that attend has as many keys as queries."""

    def forward(self, x, cos, sin, mask=None, cache=None, layer=0):
        keys = self.apply_rope(self.split_heads(self.k_proj(x)), cos, sin)
        values = self.split_heads(self.v_proj(x))
        queries = self.apply_rope(self.split_heads(self.q_proj(x)), cos, sin)
        if cache is not None:
            keys, values = cache.update(layer, keys, values)
        times = queries.shape[1] // keys.shape[1]
        keys, values = (one.repeat_interleave(times, 1) for one in (keys, values))
        mixed = self.attend(queries, keys, values, mask)
        return self.o_proj(mixed.permute(0, 2, 1, 3).reshape(*x.shape[:2], -1))


class ByChunks(nn.Module):
    """A list of heads, and each cut out with chunk."""

    def __init__(self, config, rope, attend):
        super().__init__()
        self.config, self.parts = config, (rope, attend)
        make = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
        for name, heads in {**make, "v": make["k"]}.items():
            linear = nn.Linear(config.hidden_size, heads * config.head_dim)
            self.add_module(f"{name}_proj", linear)
        self.o_proj = nn.Linear(make["q"] * config.head_dim, config.hidden_size, bias=False)

    def forward(self, x, cos, sin, mask=None, cache=None, layer=0):
        rope, attend = self.parts
        n, k = self.config.num_attention_heads, self.config.num_key_value_heads
        q, k, v = (
            torch.stack(project(x).chunk(heads, -1), 1)
            for project, heads in ((self.q_proj, n), (self.k_proj, k), (self.v_proj, k))
        )
        k = rope(k, cos, sin)
        if cache is not None:
            k, v = cache.update(layer, k, v)
        return self.o_proj(torch.cat(attend(rope(q, cos, sin), k, v, mask).unbind(1), -1))


def bytes_by_cache(config, tokens, batch_size, number_size):
    dtype = {1: torch.int8, 2: torch.half, 4: torch.float, 8: torch.double}[number_size]
    return KVCache(config, tokens, batch_size, dtype, "meta").nbytes


def bytes_by_width(config, tokens, batch_size, number_size):
    width = config.num_key_value_heads * config.head_dim
    return sum(
        batch_size * tokens * width * number_size for _ in range(2 * config.num_hidden_layers)
    )


def shared_by_index(k, heads):
    return k[:, [n // (heads // k.shape[1]) for n in range(heads)]]


def shared_by_expand(k, heads):
    batch, count, keys, size = k.shape
    return k[:, :, None].expand(-1, -1, heads // count, -1, -1).reshape(batch, heads, keys, size)


def similarity_by_pairs(keys):
    found = [F.cosine_similarity(a, b, dim=-1) for a, b in itertools.combinations(keys, 2)]
    return torch.stack(found).mean()


def similarity_by_matrix(keys):
    unit = F.normalize(keys, dim=-1).transpose(0, 1)
    table = unit @ unit.transpose(1, 2)
    other = ~torch.eye(len(keys), dtype=torch.bool)
    return float(table[:, other].mean())


RIGHT = [
    ("attention", ByEinsum),
    ("attention", SharesItself),
    ("attention", ByChunks),
    ("kv_cache_bytes", bytes_by_cache),
    ("kv_cache_bytes", bytes_by_width),
    ("kv_cache_bytes", lambda *asked: float(bytes_by_width(*asked))),
    ("share_keys", shared_by_index),
    ("share_keys", shared_by_expand),
    ("share_keys", lambda k, heads: torch.kron(k, torch.ones(1, heads // k.shape[1], 1, 1))),
    ("mended_merge", lambda mixed: mixed.permute(0, 2, 1, 3).reshape(*mixed[:, 0].shape[:2], -1)),
    ("mended_merge", lambda mixed: torch.cat(mixed.unbind(1), dim=-1)),
    ("mended_merge", lambda mixed: torch.einsum("bnth->btnh", mixed).flatten(2)),
    ("head_similarity", similarity_by_pairs),
    ("head_similarity", similarity_by_matrix),
    ("head_similarity", lambda keys: similarity_by_pairs(keys).item()),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


class OnlyTheLastMerged(GroupedQueryAttention):
    def forward(self, x, *rest):
        return super().forward(x, *rest)[:, -1:]


class RaisesWithACache(ByEinsum):
    def forward(self, x, cos, sin, mask=None, cache=None, layer=0):
        if cache is not None:
            raise ValueError("no cache here")
        return super().forward(x, cos, sin, mask)


class HeadOfItsOwnSize(ByEinsum):
    """Takes D / N for the size of a head, which the checkpoint need not have."""

    def __init__(self, config, *parts):
        super().__init__(config, *parts)
        size = config.hidden_size // config.num_attention_heads
        for name, heads in self.heads.items():
            setattr(self, name, nn.Linear(config.hidden_size, heads * size))


class AnotherMistake(GroupedQueryAttention):
    def split_heads(self, x):
        return super().split_heads(x).flip(-1)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("attention", OnlyTheLastMerged, "float32 [2, 3, 1, 20], and float32 [2, 3, 9, 20]"),
        ("attention", RaisesWithACache, "raised ValueError: no cache here"),
        ("attention", HeadOfItsOwnSize, "lacks q_proj.weight [24, 20]"),
        ("attention", AnotherMistake, "A text of 9 tokens: wrong from token 0 on"),
        ("attention", lambda *_: nn.Linear(20, 20), "lacks q_proj.weight"),
        ("attention", lambda *_: attend, "a torch.nn.Module was wanted"),
        ("kv_cache_bytes", lambda *_: "12 KiB", "a number was wanted"),
        ("kv_cache_bytes", lambda *_: 12_288, "qwen2-1.5b, 1 tokens"),
        ("share_keys", lambda k, heads: k, "share_keys of 2 key heads for 4 query heads returned"),
        (
            "share_keys",
            lambda k, heads: shared_by_index(k, heads).flip(1),
            "gives [20, 20, 10, 10]",
        ),
        ("share_keys", lambda k, heads: shared_by_index(k, heads).flip(2), "have moved"),
        ("mended_merge", lambda mixed: mixed, "returned float32 [1, 2, 2, 1]"),
        ("mended_merge", lambda mixed: mixed.transpose(1, 2).flatten(-2).flip(1), "got [2, 40]"),
        ("head_similarity", lambda keys: keys, "one number was wanted"),
        ("head_similarity", lambda keys: 0.25, "it is 0.5, and yours is 0.25"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong


def test_the_check_compares_with_the_package_and_by_itself():
    """The plain sum of the contract is not the package's code, and says the same."""
    x_BTD = torch.randn(3, 9, 20, generator=torch.Generator().manual_seed(1))
    layer = gqa._build(GroupedQueryAttention, 3, apply_rope, attend)
    mask_TS = torch.ones(9, 9, dtype=torch.bool).tril()
    want = layer(x_BTD, *gqa._tables(0, 9))
    assert torch.allclose(gqa._plain_sum(layer, x_BTD, mask_TS), want, atol=1e-4)


def test_the_five_sizes_of_the_lesson():
    kib = [bytes_by_cache(config, 1, 1, 2) / 1024 for config in CONFIGS.values()]
    assert kib == [12, 28, 56, 56, 320]
