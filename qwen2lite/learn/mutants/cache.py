"""Wrong versions of `cache`. The docstring of each says what the mistake was."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from qwen2lite.model.cache import KVCache
from qwen2lite.model.config import Qwen2Config


class OnlyTheNew(KVCache):
    """update returns the new positions alone, so a token sees nothing of what came before it.
    Return all of them, from position 0 to the last one stored."""

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        super().update(layer, k_BKTH, v_BKTH)
        return k_BKTH, v_BKTH


class WrittenAtTheStart(KVCache):
    """Every piece is written at position 0, over what was there. It goes behind the `length`
    positions that are filled already (nntrainer #3814, where each turn of a chat began at 0)."""

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        tokens = k_BKTH.shape[2]
        end = self.length + tokens
        self._keys[layer][:, :, :tokens] = k_BKTH
        self._values[layer][:, :, :tokens] = v_BKTH
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]


class WholeRoom(KVCache):
    """update returns the whole room, with zeros where nothing was stored yet. A key of zeros has
    score 0, and 0 is not nothing: it takes its share of the softmax (transformers #30414)."""

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        super().update(layer, k_BKTH, v_BKTH)
        return self._keys[layer], self._values[layer]


class OneMemoryForBoth(KVCache):
    """Keys and values lie in the same memory, and the values have overwritten the keys. In Python
    `a = b = torch.zeros(…)` makes one tensor with two names."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._keys = self._values


class MovesAtEveryLayer(KVCache):
    """update moves `length` on, and it is called once a layer: the second layer then writes behind
    the first one's positions. The model moves it on, after its last layer (mlx-lm #1396)."""

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        seen = super().update(layer, k_BKTH, v_BKTH)
        self.length += k_BKTH.shape[2]
        return seen


class CountsTwice(KVCache):
    """update moves `length` on in the last layer, and the model does so again after it: the next
    token stands too far to the right. A course had its offset jump from 6 to 12 (tiny-llm #46)."""

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        seen = super().update(layer, k_BKTH, v_BKTH)
        if layer == len(self._keys) - 1:
            self.length += k_BKTH.shape[2]
        return seen


class OneForAllLayers(KVCache):
    """All layers write to the same place, so a layer reads what the last one left there at the
    piece before. Each layer has keys and values of its own."""

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        return super().update(0, k_BKTH, v_BKTH)


class RowsAndHeadsMixed(KVCache):
    """Texts and heads change places by `reshape`, which moves no number, where `transpose` was
    meant. With one text nothing shows; with two, each reads keys of the other."""

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        batch, heads, tokens, size = k_BKTH.shape
        other_way = (heads, batch, tokens, size)
        mixed = (one.reshape(other_way).transpose(0, 1) for one in (k_BKTH, v_BKTH))
        return super().update(layer, *mixed)


class NeverForgets(KVCache):
    """Everything that ever came is kept, whatever `length` says. Set back to 0 it has to begin a new
    text, or the next prompt is answered with the last one in mind (litgpt #1596)."""

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        self._stored: dict[int, tuple[Tensor, Tensor]] = {}

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        new = (k_BKTH, v_BKTH)
        earlier = self._stored.get(layer)
        if earlier is not None:
            k_BKSH, v_BKSH = (torch.cat(both, dim=2) for both in zip(earlier, new, strict=True))
            new = (k_BKSH, v_BKSH)
        if new[0].shape[2] > self.max_length:
            raise ValueError("the cache is full")
        self._stored[layer] = new
        return new


class SharedByCaches(KVCache):
    """The memory belongs to the class, so two caches write into the same. Make it in __init__, on
    `self` (two engines shared one cache in deepsparse #1224: the second run of a prompt went wrong)."""

    _made: ClassVar[dict[Any, tuple[list[Tensor], list[Tensor]]]] = {}

    def __init__(self, *arguments: Any, **named: Any):
        super().__init__(*arguments, **named)
        kind = (len(self._keys), self._keys[0].shape, self._keys[0].dtype, self._keys[0].device)
        self._keys, self._values = self._made.setdefault(kind, (self._keys, self._values))


class BoundOnTheNew(KVCache):
    """Only the new tokens are compared with the room. What counts is length + T, where they end. One
    token behind the end goes into an empty slice, which PyTorch takes without a word (candle #3035)."""

    def update(self, layer: int, k_BKTH: Tensor, v_BKTH: Tensor) -> tuple[Tensor, Tensor]:
        if k_BKTH.shape[2] > self.max_length:
            raise ValueError("the cache is full")
        end = self.length + k_BKTH.shape[2]
        self._keys[layer][:, :, self.length : end] = k_BKTH
        self._values[layer][:, :, self.length : end] = v_BKTH
        return self._keys[layer][:, :, :end], self._values[layer][:, :, :end]


class AlwaysFloat32(KVCache):
    """The dtype that was asked for is not used. A bfloat16 model then meets float32 keys, and
    attention refuses them or gets slow (torchtune #398, nanochat #795)."""

    def __init__(
        self,
        config: Qwen2Config,
        max_length: int,
        batch_size: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(config, max_length, batch_size, torch.float32, device)


class OnTheCpu(KVCache):
    """The device that was asked for is not used, and on a GPU the model and its cache don't meet."""

    def __init__(
        self,
        config: Qwen2Config,
        max_length: int,
        batch_size: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(config, max_length, batch_size, dtype, "cpu")


class BytesOfTheKeys(KVCache):
    """nbytes counts the keys and forgets the values, which take as much again."""

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self._keys)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "cache": (
        OnlyTheNew,
        WrittenAtTheStart,
        WholeRoom,
        OneMemoryForBoth,
        MovesAtEveryLayer,
        CountsTwice,
        OneForAllLayers,
        RowsAndHeadsMixed,
        NeverForgets,
        SharedByCaches,
        BoundOnTheNew,
        AlwaysFloat32,
        OnTheCpu,
        BytesOfTheKeys,
    ),
}
"""The wrong versions of the part."""
