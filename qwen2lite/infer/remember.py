"""What was read for the last text isn't read again for the next, as far as both begin alike.

Each turn of a conversation is asked with all turns before it. Their keys and values are in the last
text's cache, where they depend on nothing that comes after them: they are copied, which takes
milliseconds, and reading begins at the first token that differs.
"""

from itertools import takewhile

import torch

from qwen2lite.infer.around import AroundQwen2
from qwen2lite.model.cache import KVCache
from qwen2lite.model.qwen2 import Qwen2


class RememberingQwen2(AroundQwen2):
    """A `Qwen2` for a conversation: it gives what the model gives, and keeps the last text's cache.

    It serves whoever writes one text after the other, as `generate_ids` and `speculate_ids` do.

    Args:
        model: with any cache, also one of a learner's own. A `CompiledQwen2` has one cache for texts
            of about the same length, and reads those anew. So does any model on a GPU: each token
            would have to come from there to be compared, and prompts are read fast.
    """

    def __init__(self, model: Qwen2):
        super().__init__(model)
        self.recalled = 0
        """Tokens of the last prompt that were not read again."""
        self._cache: KVCache | None = None
        self._ids: list[int] = []
        self._before: tuple[KVCache, list[int]] | None = None

    def new_cache(self, max_length: int, batch_size: int = 1) -> KVCache:
        """Arguments, result and errors are those of `Qwen2`."""
        cache = self.plain.new_cache(max_length, batch_size)
        if batch_size == 1 and self.device.type != "cuda":
            if self._cache is not None and self._cache is not cache:
                # What lies behind the length are guesses of a draft.
                self._before = self._cache, self._ids[: self._cache.length]
            self._cache, self._ids, self.recalled = cache, [], 0
        return cache

    def forward(
        self,
        ids_BT: torch.Tensor,
        cache: KVCache | None = None,
        mask: torch.Tensor | None = None,
        last_only: bool = False,
    ) -> torch.Tensor:
        """Arguments and result are those of `Qwen2`."""
        if self._cache is not None and self._cache.length > len(self._ids):
            self._cache = None  # somebody filled it in another way, as a batch does
        if cache is not None and cache is self._cache:
            ids = ids_BT[0].tolist()
            self._ids[cache.length :] = ids
            if last_only and not cache.length:
                self.recalled = self._recall(ids, cache)
                ids_BT = ids_BT[:, self.recalled :]
        return self.plain(ids_BT, cache, mask, last_only)

    def read_of(self, prompt: int) -> str:
        """Says how many tokens of a prompt were read, and how many were known from before."""
        known = f", {self.recalled} known" if self.recalled else ""
        return f"{prompt - self.recalled} tokens read{known}"

    @torch.inference_mode()
    def _recall(self, ids: list[int], cache: KVCache) -> int:
        """Fills an empty cache with what is known of a text: at most all of it but the last token."""
        if self._before is None:
            return 0
        (before, known_ids), self._before = self._before, None
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(ids[:-1], known_ids, strict=False))
        count = sum(1 for _ in alike)
        config = self.config
        nothing_BKTH = torch.empty(
            1, config.num_key_value_heads, 0, config.head_dim,
            dtype=self.cache_dtype, device=self.device,
        )  # fmt: skip
        for layer in range(config.num_hidden_layers if count else 0):
            stored = before.update(layer, nothing_BKTH, nothing_BKTH)
            cache.update(layer, *(kept[:, :, :count] for kept in stored))
        cache.length = count
        return count
