"""The models that tests of alignment begin with: the course's tiny one, and one of eight numbers."""

from pathlib import Path

import torch

from qwen2lite import Qwen2, Qwen2Config

TINY = Path(__file__).parents[2] / "data" / "qwen2-tiny"
CONFIG = Qwen2Config(
    vocab_size=11,
    hidden_size=8,
    intermediate_size=5,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=32,
    tie_word_embeddings=True,
    initializer_range=0.7,
)


def tiny() -> Qwen2:
    """data/qwen2-tiny, as it is trained further."""
    return Qwen2.from_pretrained(TINY, dtype=torch.float32, device="cpu")
