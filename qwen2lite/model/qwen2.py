"""Qwen2, put together: one layer, the stack, and the language model."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.device import pick_device, pick_dtype
from qwen2lite.model.loading import WithoutInitialising, load_weights
from qwen2lite.model.parts import Parts
from qwen2lite.model.yarn import warn_if_short
from qwen2lite.weights.checkpoint import open_checkpoint


class DecoderLayer(nn.Module):
    """One layer: attention, then the MLP, each adding its update to the stream that passes by.

    Args:
        config: the model's shape.
        layer: this layer's number, from 0.
        parts: what to build it from.
    """

    def __init__(self, config: Qwen2Config, layer: int, parts: Parts):
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.layer = layer
        self.input_layernorm = parts.norm(size, eps)
        if config.dual_chunk_attention_config:
            pieces = (parts.dca_attend, parts.merge_pieces)
            self.self_attn = parts.dca(config, parts.apply_rope, *pieces)
        else:
            self.self_attn = parts.attention(config, parts.apply_rope, parts.attend)
        self.post_attention_layernorm = parts.norm(size, eps)
        if config.is_sparse(layer):
            self.mlp = parts.moe(config, parts.mlp, parts.route)
        else:
            self.mlp = parts.mlp(size, config.intermediate_size)

    def forward(
        self,
        x_BTD: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        mask: torch.Tensor | None = None,
        cache: KVCache | None = None,
    ) -> torch.Tensor:
        """Returns the stream after this layer, shape [B, T, D]."""
        normed_BTD = self.input_layernorm(x_BTD)
        x_BTD = x_BTD + self.self_attn(normed_BTD, cos, sin, mask, cache, self.layer)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Decoder(nn.Module):
    """Embedding, layers, final norm: from token ids to one vector a position.

    Args:
        config: the model's shape.
        parts: what to build it from.
    """

    def __init__(self, config: Qwen2Config, parts: Parts):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, layer, parts) for layer in range(config.num_hidden_layers)
        )
        self.norm = parts.norm(config.hidden_size, config.rms_norm_eps)
        self.rotary_tables, self.dca_positions = parts.rotary_tables, parts.dca_positions
        self.chunks = config.dual_chunk_attention_config
        # Not a buffer: model.to(torch.bfloat16) would round it, and far positions would blur.
        self.frequencies_R = parts.rotary_frequencies(config.head_dim, config.rope_theta)
        self.attention_factor = 1.0
        if config.yarn:
            self.frequencies_R, self.attention_factor = parts.yarn(
                self.frequencies_R, config.rope_theta, **config.yarn
            )

    def tables(self, positions_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosine and sine that the layers turn by, with YaRN's attention factor in them.

        Shape [T, H]; with dual chunks [3, T, H], for the three places where a token can stand.
        """
        frequencies_R = self.frequencies_R.to(positions_T.device)
        if self.chunks:
            sizes = (self.chunks["chunk_size"], self.chunks["local_size"])
            places = self.dca_positions(positions_T, *sizes)
            tables = [self.rotary_tables(place_T, frequencies_R) for place_T in places]
            cos, sin = map(torch.stack, zip(*tables, strict=True))
        else:
            cos, sin = self.rotary_tables(positions_T, frequencies_R)
        return cos * self.attention_factor, sin * self.attention_factor

    def forward(
        self,
        ids_BT: torch.Tensor,
        cache: KVCache | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Returns x_BTD after the final norm. With a cache, ids_BT are the tokens that come next."""
        x_BTD = self.embed_tokens(ids_BT)
        start = cache.length if cache is not None else 0
        positions_T = torch.arange(start, start + ids_BT.shape[1], device=ids_BT.device)
        cos, sin = (table.to(x_BTD.dtype) for table in self.tables(positions_T))
        for layer in self.layers:
            x_BTD = layer(x_BTD, cos, sin, mask, cache)
        if cache is not None:
            cache.length += ids_BT.shape[1]
        return self.norm(x_BTD)


class Qwen2(nn.Module):
    """The language model: for every position, a score for each token that could come next.

    Args:
        config: the shape; `CONFIGS` has the published ones.
        parts: what to build it from.

    Source: arXiv 2407.10671, section 2.2.
    """

    def __init__(self, config: Qwen2Config, parts: Parts | None = None):
        super().__init__()
        self.config = config
        self.parts = parts or Parts()
        self.model = Decoder(config, self.parts)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.apply(self._initialise)

    def _initialise(self, module: nn.Module) -> None:
        """Weights normal with standard deviation initializer_range, biases zero, norms one."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "auto",
        parts: Parts | None = None,
    ) -> "Qwen2":
        """Loads a model from a name, a Hugging Face folder or a .gguf file.

        Args:
            source: see `qwen2lite.weights.sources`. Nothing is downloaded; `fetch` does that.
            dtype: of the weights; None picks bfloat16 where the device is fast in it, else float32.
            device: "auto" or a torch device.
            parts: your own parts, if any.

        Raises:
            FileNotFoundError: nothing there, with the command that fetches it.
            ValueError: a damaged file, or weights that contradict the config or the parts.
        """
        place = pick_device(str(device))
        with open_checkpoint(source) as checkpoint:
            with torch.device("meta"), WithoutInitialising():
                model = cls(Qwen2Config.from_dict(checkpoint.config), parts)
            load_weights(model, checkpoint, dtype or pick_dtype(place), place)
        return model.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights and the stream."""
        return self.model.embed_tokens.weight.dtype

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of the keys and values that are kept."""
        return self.dtype

    @property
    def output_weight_VD(self) -> torch.Tensor:
        """The matrix that turns a vector into scores: the embedding itself where it is tied."""
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def forward(
        self,
        ids_BT: torch.Tensor,
        cache: KVCache | None = None,
        mask: torch.Tensor | None = None,
        last_only: bool = False,
    ) -> torch.Tensor:
        """Scores the next token at every position.

        Args:
            ids_BT: token ids; with a cache, the next piece of the sequence.
            cache: from `new_cache`; keeps what was read.
            mask: see `attend`; None is causal.
            last_only: score only the last position, so that logits are [B, 1, V].

        Returns:
            logits_BTV, in the model's dtype.

        Raises:
            ValueError: ids of another shape, empty, or outside the vocabulary; a full cache.
        """
        self.check_ids(ids_BT)
        x_BTD = self.model(ids_BT, cache, mask)
        scored = x_BTD[:, -1:] if last_only else x_BTD
        return self.score(scored)

    def score(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns logits_BTV of normalised vectors: the output layer alone."""
        return F.linear(x_BTD, self.output_weight_VD)

    def check_ids(self, ids_BT: torch.Tensor) -> None:
        """Raises ValueError for ids of another shape, none, or some outside the vocabulary."""
        if ids_BT.ndim != 2 or not ids_BT.numel():
            raise ValueError(
                f"token ids must have shape [batch, tokens] with at least one token, got "
                f"{list(ids_BT.shape)}; one sequence is ids[None]"
            )
        # On a GPU reading the values back would wait for it at every token.
        if ids_BT.device.type == "cpu":
            low, high = int(ids_BT.min()), int(ids_BT.max())
            if low < 0 or high >= self.config.vocab_size:
                wrong = low if low < 0 else high
                raise ValueError(
                    f"token id {wrong} is outside the vocabulary: ids run from 0 to "
                    f"{self.config.vocab_size - 1}; is this another model's tokenizer?"
                )

    def new_cache(self, max_length: int, batch_size: int = 1) -> KVCache:
        """An empty cache for this model, on its device and in its `cache_dtype`.

        Raises:
            ValueError: more positions than the config's context_length.
        """
        limit = self.config.context_length
        if max_length > limit:
            raise ValueError(
                f"{max_length} tokens don't fit this model's context of {limit}; "
                "shorten the prompt or ask for fewer new tokens"
            )
        if self.config.yarn:
            warn_if_short(max_length, self.config.yarn["original_max_position_embeddings"])
        return self.parts.cache(self.config, max_length, batch_size, self.cache_dtype, self.device)
