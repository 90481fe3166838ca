"""What the doctor runs: small models, texts and pieces, each there to bring some bugs to light."""

import dataclasses
from dataclasses import dataclass

import torch

from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Qwen2

PROBE = Qwen2Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
WITH_EXPERTS = dataclasses.replace(
    PROBE,
    num_experts=6,
    num_experts_per_tok=2,
    moe_intermediate_size=20,
    shared_expert_intermediate_size=24,
)
IN_CHUNKS = dataclasses.replace(
    PROBE,
    dual_chunk_attention_config={
        "chunk_size": 7,
        "local_size": 2,
        "original_max_position_embeddings": 16,
    },
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@dataclass(frozen=True)
class Case:
    """One way to run both models: the text in pieces, each after the first with a cache."""

    name: str
    pieces: tuple[int, ...] = (24,)
    dtype: torch.dtype = torch.float32
    config: Qwen2Config = PROBE


CASES = (
    Case("a short text"),
    Case("a text in three pieces, with a cache", pieces=(9, 1, 6)),
    Case("a text of 2,304 tokens", pieces=(2304,)),
    Case("a short text in bfloat16", dtype=torch.bfloat16),
    Case("a model with experts", config=WITH_EXPERTS),
    Case("a model with YaRN", config=dataclasses.replace(PROBE, rope_scaling=YARN)),
    Case("a model in dual chunks", config=IN_CHUNKS),
    Case("a model in dual chunks, in three pieces", pieces=(10, 1, 5), config=IN_CHUNKS),
)
"""Bugs hide: in bfloat16, far into a text, at the second piece. Each case brings some to light."""


def draw_weights(model: Qwen2) -> None:
    """Weights that bring bugs to light: large key biases as Qwen2 has them, a token of zeros, and
    one so quiet that the norm's eps counts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = 0.3 * torch.randn(weight.shape, generator=generator)
            if "norm" in name:
                drawn += 1
            if name.endswith("k_proj.bias"):
                drawn *= 100
            weight.copy_(drawn)
        model.model.embed_tokens.weight[0] = 0
        model.model.embed_tokens.weight[1] *= 1e-2
