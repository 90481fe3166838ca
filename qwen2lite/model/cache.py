"""The KV cache: keys and values of the tokens already read, so that no token is read twice."""

import torch

from qwen2lite.model.config import Qwen2Config


class KVCache:
    """Room for the keys and values of every layer, for a known number of positions.

    The memory is taken once, so a step writes in place and never copies what is there. It costs
    2 · layers · K · H numbers a token: 12 KiB in bfloat16 for the 0.5B.

    Args:
        config: gives layers, key/value heads K and head size H.
        max_length: positions to make room for.
        batch_size: sequences B read at once.
        dtype: of the keys and values; the model's.
        device: the model's.
    """

    def __init__(
        self,
        config: Qwen2Config,
        max_length: int,
        batch_size: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        heads, head_dim = config.num_key_value_heads, config.head_dim
        shape = (batch_size, heads, max_length, head_dim)
        layers = range(config.num_hidden_layers)
        # A tensor for each: a compiled step would copy the whole of a larger one to write to a part.
        self._keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self._values = [torch.zeros_like(kept) for kept in self._keys]
        self.max_length = max_length
        self.length = 0
        """Positions filled so far. The model moves it on after its last layer."""

    def update(
        self, layer: int, k_BKTH: torch.Tensor, v_BKTH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores T new positions of one layer and returns all S = length + T of them.

        Args:
            layer: counted from 0.
            k_BKTH: keys, already rotated.
            v_BKTH: values.

        Returns:
            k_BKSH and v_BKSH, views of the cache.

        Raises:
            ValueError: the sequence is longer than max_length.
        """
        end = self.length + k_BKTH.shape[2]
        if end > self.max_length:
            raise ValueError(
                f"the cache has room for {self.max_length} tokens and would need {end}; "
                "make it longer, or the text shorter"
            )
        self._keys[layer][:, :, self.length : end] = k_BKTH
        self._values[layer][:, :, self.length : end] = v_BKTH
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]

    @property
    def nbytes(self) -> int:
        """Memory that the cache holds, in bytes."""
        return sum(layer.nbytes for layer in (*self._keys, *self._values))
