r"""Activation checkpointing: keep what enters a layer, and compute the rest a second time.

Backward needs what forward computed. Kept, that is about twenty tensors a layer; with this, one, and
those of a single layer while its gradient is made. The price is a second forward pass: of the 6
floating-point operations that a weight and a token cost, 2 are done twice.
"""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from qwen2lite.model.qwen2 import DecoderLayer


def recompute_layers(objective: nn.Module) -> None:
    """Has every layer of a model forget its activations. The numbers stay the same to the last bit.

    Not "checkpoint" as in a file: here it is the point from which a layer is computed again.

    Args:
        objective: holds the model; changed in place, its parameters keep their names.

    Source: arXiv 1604.06174, section 3.
    """
    for layer in objective.modules():
        if isinstance(layer, DecoderLayer):
            # No layer draws random numbers, so there is no generator to wind back.
            again = partial(
                checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False
            )
            layer.forward = again  # type: ignore[method-assign]
