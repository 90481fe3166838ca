"""The random model that tests of evaluation read with."""

import torch

from qwen2lite import Qwen2, Qwen2Config


def small(vocab_size: int) -> Qwen2:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=vocab_size, hidden_size=24, intermediate_size=40, num_hidden_layers=2,
        num_attention_heads=6, num_key_value_heads=2, initializer_range=0.3,
        max_position_embeddings=512,
    )  # fmt: skip
    return Qwen2(config).eval()
