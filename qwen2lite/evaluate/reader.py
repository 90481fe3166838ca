"""How likely is this or that as what comes next? One text is read, and many continuations of it."""

from collections.abc import Sequence
from itertools import takewhile

import torch

from qwen2lite.infer.around import AroundQwen2
from qwen2lite.infer.cpu import fastest_products
from qwen2lite.model.cache import KVCache
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer


class Reader:
    """Reads one text after the other; what a text has in common with the one before isn't read again.

    The questions of an examination begin alike: first come the same worked examples. Keys and values
    depend on nothing that comes later, so the cache is set back to where the texts part.
    A cache serves one kind of text; who alternates between two kinds takes a reader for each.

    Args:
        model: in evaluation mode, packed or not; of a compiled one it takes the model inside.
        tokenizer: of that model.
    """

    def __init__(self, model: Qwen2, tokenizer: Qwen2Tokenizer):
        while isinstance(model, AroundQwen2):  # a compiled one has one cache, for all readers
            model = model.plain
        self.model, self.tokenizer = model, tokenizer
        self.tokens_read = 0
        """How many tokens went through the model so far."""
        self._cache: KVCache | None = None
        self._ids: list[int] = []

    @torch.inference_mode()
    def logps(self, text: str, continuations: Sequence[str]) -> list[float]:
        r"""$\ln p$ of each continuation, the sum over its tokens.

        The last token of a continuation is only predicted, never read: one of a single token costs
        nothing once the text is read.

        Args:
            text: what comes before, at least a token.
            continuations: at least a token each; one that begins a word begins with a space.

        Raises:
            ValueError: a text or continuation without a token, or a text beyond the model's context.
        """
        before, after = self.ids(text), [self.ids(piece) for piece in continuations]
        if not before or not after or not all(after):
            raise ValueError(
                f"a text and its continuations need a token each; got {text!r} and "
                f"{list(continuations)!r}"
            )
        next_V, cache = self._read(before, max(map(len, after)) - 1)
        found = []
        for ids in after:
            logp = float(next_V[ids[0]])
            if len(ids) > 1:
                cache.length = len(before)
                logps_TV = self._logps(ids[:-1], cache)
                wanted_T = torch.tensor(ids[1:], device=logps_TV.device)
                logp += float(logps_TV.gather(1, wanted_T[:, None]).double().sum())
            found.append(logp)
        return found

    def ids(self, text: str) -> list[int]:
        """Tokens of a text that strangers may have written: none of them is a control token."""
        return self.tokenizer.encode(text, allowed_special="none")

    def _read(self, ids: list[int], more: int) -> tuple[torch.Tensor, KVCache]:
        """Returns ln p of every token after the text, and the cache with room for `more`."""
        needed, limit = len(ids) + more, self.model.config.context_length
        if needed > limit:
            raise ValueError(
                f"a text of {needed} tokens, with what may follow it, doesn't fit this model's context "
                f"of {limit}; give fewer examples before it"
            )
        cache = self._cache
        if cache is None or cache.max_length < needed:
            cache = self.model.new_cache(max(needed, min(2 * needed, limit)))
            self._cache, self._ids = cache, []
        # The last token is read in any case: its scores are what is asked for.
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(ids[:-1], self._ids, strict=False))
        cache.length = sum(1 for _ in alike)
        logps_TV = self._logps(ids[cache.length :], cache, last_only=True)
        self._ids = ids
        return logps_TV[-1], cache

    def _logps(self, ids: list[int], cache: KVCache, last_only: bool = False) -> torch.Tensor:
        """Reads tokens into the cache. In float32, for bfloat16 has three digits."""
        self.tokens_read += len(ids)
        model = self.model
        with fastest_products(model.device, model.dtype, rows=len(ids)):
            logits_BTV = model(torch.tensor([ids], device=model.device), cache, None, last_only)
        return logits_BTV[0].float().log_softmax(-1)
