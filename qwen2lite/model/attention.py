r"""Attention: every token asks the tokens before it, and mixes what they answer.

`attend` is the formula, `fused_attend` the same through PyTorch's fused kernel, and
`GroupedQueryAttention` the layer around either: projections, rotary angles, cache.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.tiles import attend_in_tiles, suits_tiles


def causal_mask(queries: int, keys: int, device: torch.device | None = None) -> torch.Tensor:
    """mask_TS, True where a query may look: at its own position and at all before it.

    The queries are the *last* T of the S positions, so query t stands at position S - T + t.
    """
    ones_TS = torch.ones(queries, keys, dtype=torch.bool, device=device)
    return ones_TS.tril(diagonal=keys - queries)


def attend(
    q_BNTH: torch.Tensor,
    k_BKSH: torch.Tensor,
    v_BKSH: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""Causal scaled dot-product attention, written as its formula.

    $\mathrm{softmax}(q k^\top / \sqrt{H} + mask)\, v$, and query head n reads key/value head
    n // (N/K). Scores and softmax are float32 whatever comes in: Qwen2's key biases reach 200, and
    in float16 their products overflow, in bfloat16 they lose the differences that matter.

    Args:
        q_BNTH: rotated queries of the last T positions.
        k_BKSH: rotated keys of all S positions.
        v_BKSH: values of all S positions.
        mask: bool, True where a query may look, shape [T, S] or one that broadcasts to
            [B, N, T, S]; None is causal.

    Returns:
        mixed_BNTH, in the dtype of the values.

    Source: arXiv 1706.03762, eq. 1; grouping: arXiv 2305.13245, section 2.2.
    """
    group_size = q_BNTH.shape[1] // k_BKSH.shape[1]
    k_BNSH = k_BKSH.repeat_interleave(group_size, dim=1).float()
    v_BNSH = v_BKSH.repeat_interleave(group_size, dim=1)
    if mask is None:
        mask = causal_mask(q_BNTH.shape[2], k_BKSH.shape[2], q_BNTH.device)
    scores_BNTS = q_BNTH.float() @ k_BNSH.transpose(-1, -2) * q_BNTH.shape[-1] ** -0.5
    weights_BNTS = scores_BNTS.masked_fill(~mask, float("-inf")).softmax(-1)
    return weights_BNTS.to(v_BNSH.dtype) @ v_BNSH


def fused_attend(
    q_BNTH: torch.Tensor,
    k_BKSH: torch.Tensor,
    v_BKSH: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """`attend` through PyTorch's fused kernel, or in tiles: float32 inside, never a whole T×S matrix.

    Arguments and result are those of `attend`.
    """
    if mask is None and suits_tiles(q_BNTH, k_BKSH, v_BKSH):
        return attend_in_tiles(q_BNTH, k_BKSH, v_BKSH, is_causal=True)[0]
    queries, keys = q_BNTH.shape[2], k_BKSH.shape[2]
    if queries == 1 and (mask is None or mask.ndim < 3 or mask.shape[-3] == 1):
        # The heads of a group ask the same keys: as rows of one head they read them once.
        q_BKGH = q_BNTH.reshape(*k_BKSH.shape[:2], -1, q_BNTH.shape[-1])
        mixed_BKGH = F.scaled_dot_product_attention(q_BKGH, k_BKSH, v_BKSH, attn_mask=mask)
        return mixed_BKGH.reshape_as(q_BNTH)
    whole_sequence = mask is None and queries == keys
    if mask is None and 1 < queries < keys:
        # A GPU's kernels know this mask by its name; written out it would be the T×S matrix.
        if q_BNTH.device.type == "cuda":
            from torch.nn.attention.bias import causal_lower_right  # takes a second to import

            mask = causal_lower_right(queries, keys)
        else:
            mask = causal_mask(queries, keys, q_BNTH.device)
    return F.scaled_dot_product_attention(
        q_BNTH, k_BKSH, v_BKSH, attn_mask=mask, is_causal=whole_sequence, enable_gqa=True
    )


class GroupedQueryAttention(nn.Module):
    """Projects, rotates, remembers, attends, and projects back.

    N query heads share K key/value heads. Queries, keys and values have a bias; the output has none.

    Args:
        config: gives D, N, K and H.
        apply_rope: turns queries and keys.
        attend: mixes the values.

    Source: arXiv 2407.10671, section 2.2.1.
    """

    def __init__(
        self,
        config: Qwen2Config,
        apply_rope: Callable[..., torch.Tensor],
        attend: Callable[..., torch.Tensor],
    ):
        super().__init__()
        width = config.num_attention_heads * config.head_dim
        kv_width = config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, width)
        self.k_proj = nn.Linear(config.hidden_size, kv_width)
        self.v_proj = nn.Linear(config.hidden_size, kv_width)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)
        self.head_dim = config.head_dim
        self.apply_rope = apply_rope
        self.attend = attend

    def split_heads(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Cuts the last dimension into heads of size H and moves the heads before the positions."""
        return x_BTD.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos_TH: torch.Tensor,
        sin_TH: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> torch.Tensor:
        """Returns the layer's update, shape [B, T, D].

        Args:
            x_BTD: normalised input of T new positions.
            cos_TH: of the new positions.
            sin_TH: of the new positions.
            mask: see `attend`.
            cache: earlier positions; the new ones are added to it.
            layer: this layer's place in the cache.
        """
        q_BNTH = self.apply_rope(self.split_heads(self.q_proj(x_BTD)), cos_TH, sin_TH)
        k_BKSH = self.apply_rope(self.split_heads(self.k_proj(x_BTD)), cos_TH, sin_TH)
        v_BKSH = self.split_heads(self.v_proj(x_BTD))
        if cache is not None:
            k_BKSH, v_BKSH = cache.update(layer, k_BKSH, v_BKSH)
        mixed_BNTH = self.attend(q_BNTH, k_BKSH, v_BKSH, mask)
        return self.o_proj(mixed_BNTH.transpose(1, 2).flatten(-2))
