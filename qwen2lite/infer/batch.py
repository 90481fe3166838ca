r"""Many prompts at once: a step fetches every weight once, for all rows of the batch.

The rows share one clock. Column t of the cache is position t for all of them; a prompt is put so that
it *ends* where the clock stands, and what lies before it in its row is padding, which the mask hides.
RoPE sees only differences of positions, so a text that begins at position 700 reads like one that
begins at 0, and the model need not know that rows differ. When a row is done, the next prompt is read
into the columns before the clock and goes on with the others (continuous batching).

The other way is a clock for each row: then each has angles of its own, `apply_rope` takes tables of
another shape, and every new key is scattered to its row's place. One clock changes no part of the
model, and its price is this: the columns before a text take memory and are looked at for nothing; the
cache is up to twice as long as the longest text; and when the clock reaches its end, texts that aren't
done are read once more, from the left. Rows for which no prompt is waiting run along idle.

Source: Orca (OSDI 2022), section 3: scheduling step by step.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from qwen2lite.infer.cpu import fastest_products
from qwen2lite.infer.padding import batch_mask, left_pad
from qwen2lite.infer.sample import Sampler
from qwen2lite.infer.texts import Text, texts_of
from qwen2lite.model.cache import KVCache
from qwen2lite.model.qwen2 import Qwen2


def generate_batch(
    model: Qwen2,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int] = 512,
    new_sampler: Callable[[int], Sampler] | None = None,
    eos_ids: Collection[int] = (),
    rows: int = 8,
) -> list[list[int]]:
    """Continues each prompt as `generate_ids` would alone, in a fraction of the time.

    In float32 the tokens are the same whatever the batch, unless two scores differ by rounding alone.
    In bfloat16 rounding is coarse, and now and then decides.

    Args:
        model: a loaded model, packed or not, with full attention.
        prompts: token ids, at least one each.
        max_new_tokens: for all prompts, or one number for each; fewer where the context is full.
        new_sampler: makes the sampler of a prompt, given its number; None is greedy. One sampler for
            all would let a text depend on its neighbours' draws.
        eos_ids: stop tokens; the one that ends a text is not part of it.
        rows: texts that are written at once. The cache grows with it.

    Returns:
        The new ids of each prompt, in the order of the prompts.

    Raises:
        ValueError: no prompt, an empty one, one that fills the context, ids outside the vocabulary,
            limits that don't fit the prompts, no row, or a model with dual chunk attention.
    """
    found = dict(generate_each(model, prompts, max_new_tokens, new_sampler, eos_ids, rows))
    return [found[number] for number in range(len(prompts))]


@torch.inference_mode()
def generate_each(
    model: Qwen2,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int] = 512,
    new_sampler: Callable[[int], Sampler] | None = None,
    eos_ids: Collection[int] = (),
    rows: int = 8,
) -> Iterator[tuple[int, list[int]]]:
    """Yields the number of a prompt and its new ids as soon as it is done. See `generate_batch`.

    Long prompts come first: one that joins later is then never longer than the clock has run.
    """
    if rows < 1:
        raise ValueError(f"a batch needs at least one row, got rows={rows}")
    texts = texts_of(model, prompts, max_new_tokens, new_sampler)
    yield from ((text.number, []) for text in texts if text.is_full)
    waiting = sorted((t for t in texts if not t.is_full), key=lambda text: len(text.ids))
    seats = min(rows, len(waiting))
    batch = _Batch(model, seats, max(text.limit for text in texts))
    while waiting or batch.texts:
        came = batch.take_seats(waiting)
        for seat, token in batch.read(came) if came else batch.step():
            text, ends = batch.texts[seat], token in eos_ids
            if not ends:
                text.ids.append(token)
            if ends or text.is_full:
                del batch.texts[seat]
                yield text.number, text.ids[text.prompt_length :]


class _Batch:
    """Texts on their seats, which are the rows of one cache. Its length is the clock.

    Args:
        model: reads and scores.
        seats: rows.
        longest: tokens of the longest text, when it is done.
    """

    def __init__(self, model: Qwen2, seats: int, longest: int):
        self.model = model
        self.texts: dict[int, Text] = {}
        self.padding = [0] * seats
        self.cache = model.new_cache(min(2 * longest, model.config.context_length), seats)

    def take_seats(self, waiting: list[Text]) -> list[int]:
        """Seats the last of those who wait. Returns the seats whose texts are still to be read."""
        free = [seat for seat in range(len(self.padding)) if seat not in self.texts]
        came = free[: len(waiting)]
        self.texts.update((seat, waiting.pop()) for seat in came)
        if 0 < self.cache.length < self.cache.max_length:
            return came
        self.cache.length, self.padding = 0, [0] * len(self.padding)
        return sorted(self.texts)

    def read(self, seats: list[int]) -> Iterator[tuple[int, int]]:
        """Reads whole texts, which then end where the clock stands. Yields each seat's next token."""
        ids_BT, padding_B = left_pad([self.texts[seat].ids for seat in seats])
        longest = ids_BT.shape[1]
        clock = self.cache.length or longest
        for seat, padding in zip(seats, padding_B.tolist(), strict=True):
            self.padding[seat] = clock - longest + padding
        rows = _SomeRows(self.cache, len(self.padding), seats, clock - longest)
        mask = batch_mask(padding_B, longest, longest) if padding_B.any() else None
        logits_BV = self._score(ids_BT, rows, mask)
        self.cache.length = clock
        yield from self._choose(seats, logits_BV)

    def step(self) -> Iterator[tuple[int, int]]:
        """Each row goes on by a token. Yields each seat's next token."""
        seats, padding_B = sorted(self.texts), torch.tensor(self.padding)
        unread_BT = torch.zeros(len(padding_B), 1, dtype=torch.long)
        unread_BT[seats, 0] = torch.tensor([self.texts[seat].ids[-1] for seat in seats])
        mask = batch_mask(padding_B, 1, self.cache.length + 1) if padding_B.any() else None
        yield from self._choose(seats, self._score(unread_BT, self.cache, mask)[seats])

    def _score(
        self, ids_BT: torch.Tensor, cache: "KVCache | _SomeRows", mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns logits_BV of what comes next."""
        model = self.model
        mask = mask if mask is None else mask.to(model.device)
        with fastest_products(model.device, model.dtype, rows=ids_BT.numel()):
            return model(ids_BT.to(model.device), cache, mask, last_only=True)[:, -1]

    def _choose(self, seats: list[int], logits_BV: torch.Tensor) -> Iterator[tuple[int, int]]:
        texts = [self.texts[seat] for seat in seats]
        samplers = [text.sampler for text in texts if text.sampler]
        if not samplers:
            best = logits_BV.max(-1).indices  # argmax takes five times as long in bfloat16
            yield from zip(seats, best.tolist(), strict=True)
            return
        rows = zip(seats, texts, samplers, logits_BV.cpu().split(1), strict=True)
        for seat, text, sampler, scores in rows:
            yield seat, int(sampler(scores, torch.tensor([text.ids])))


class _SomeRows:
    """The cache as prompts meet it that join: empty, and what they store goes to their own rows.

    It asks of the cache what every KV cache can do, so a learner's own will serve.

    Args:
        cache: of the batch.
        batch_size: its rows.
        rows: those that are read.
        start: their first column.
    """

    def __init__(self, cache: KVCache, batch_size: int, rows: list[int], start: int):
        self.cache, self.batch_size, self.rows = cache, batch_size, rows
        self.length = start
        self._filled = cache.length

    def update(
        self, layer: int, k_BKTH: torch.Tensor, v_BKTH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores the texts' keys and values of a layer, and returns them: they see nothing else."""
        new = (k_BKTH, v_BKTH)
        nothing = k_BKTH[:1, :, :0].expand(self.batch_size, -1, -1, -1)
        self.cache.length = self._filled
        stored = self.cache.update(layer, nothing, nothing)
        self.cache.length = self.length
        self.cache.update(layer, *map(self._put_in, stored, new))
        return new

    def _put_in(self, stored: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        """All rows from the first new column on: the texts' own, and the others as they are."""
        whole = new.new_zeros(self.batch_size, *new.shape[1:])
        kept = stored[:, :, self.length :]
        whole[:, :, : kept.shape[2]] = kept
        whole[self.rows] = new
        return whole
