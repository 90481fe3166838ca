"""What models have in common that generate in a way of their own, around a model that computes."""

import torch
from torch import nn

from qwen2lite.model.qwen2 import Qwen2


class AroundQwen2(Qwen2):
    """A `Qwen2` with the weights of another, and no more than that.

    Args:
        model: any of the package's models, or one of a learner's own parts.
    """

    def __init__(self, model: Qwen2):
        nn.Module.__init__(self)
        self.config, self.parts, self.model = model.config, model.parts, model.model
        if hasattr(model, "lm_head"):
            self.lm_head = model.lm_head
        self.plain = model

    @property
    def dtype(self) -> torch.dtype:
        """Of the stream."""
        return self.plain.dtype

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of the keys and values that are kept."""
        return self.plain.cache_dtype

    def score(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Returns logits_BTV."""
        return self.plain.score(x_BTD)
