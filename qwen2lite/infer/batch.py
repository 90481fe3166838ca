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

On a GPU a step is sent off before the tokens of the last one are known here, as in `infer/ahead`.

Source: Orca (OSDI 2022), section 3: scheduling step by step.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

import torch

from qwen2lite.infer.ahead import sent, works_beside
from qwen2lite.infer.cpu import fastest_products
from qwen2lite.infer.padding import batch_mask, left_pad
from qwen2lite.infer.sample import Sampler
from qwen2lite.infer.texts import Text, texts_of
from qwen2lite.model.cache import KVCache
from qwen2lite.model.qwen2 import Qwen2

Arriving = tuple[dict[int, Text], Callable[[], list[int]]]
"""Texts by their seats, and what waits for the next token of each seat."""


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
    batch = _Batch(model, min(rows, len(waiting)), max(text.limit for text in texts))
    arriving: Arriving | None = None
    while waiting or batch.texts:
        may_send = arriving is None or batch.can_run_ahead(len(waiting))
        following = batch.send(waiting) if may_send else None
        if arriving:
            yield from batch.take_in(arriving, eos_ids)
        arriving = following


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
        self.unread_B = torch.zeros(seats, dtype=torch.long, device=model.device)
        self.cache = model.new_cache(min(2 * longest, model.config.context_length), seats)

    def can_run_ahead(self, waiting: int) -> bool:
        """Whether another step can be sent while the tokens of the last one are on their way."""
        texts = self.texts.values()
        if not works_beside(self.model.device) or any(text.sampler for text in texts):
            return False
        ending = sum(len(text.ids) + 1 >= text.limit for text in texts)
        someone_joins = waiting and len(texts) - ending < len(self.padding)
        has_room = self.cache.length < self.cache.max_length
        return has_room and ending < len(texts) and not someone_joins

    def send(self, waiting: list[Text]) -> Arriving:
        """Reads the texts that take a seat now; where none does, each row goes on by a token."""
        came = self.take_seats(waiting)
        return self.read(came) if came else self.step()

    def take_seats(self, waiting: list[Text]) -> list[int]:
        """Seats the last of those who wait. Returns the seats whose texts are still to be read."""
        free = [seat for seat in range(len(self.padding)) if seat not in self.texts]
        came = free[: len(waiting)]
        self.texts.update((seat, waiting.pop()) for seat in came)
        if 0 < self.cache.length < self.cache.max_length:
            return came
        self.cache.length, self.padding = 0, [0] * len(self.padding)
        return sorted(self.texts)

    def read(self, seats: list[int]) -> Arriving:
        """Reads whole texts, which then end where the clock stands."""
        ids_BT, padding_B = left_pad([self.texts[seat].ids for seat in seats])
        longest = ids_BT.shape[1]
        clock = self.cache.length or longest
        for seat, padding in zip(seats, padding_B.tolist(), strict=True):
            self.padding[seat] = clock - longest + padding
        self.padding_B = torch.tensor(self.padding, device=self.model.device)
        rows = _SomeRows(self.cache, len(self.padding), seats, clock - longest)
        mask = batch_mask(padding_B, longest, longest) if padding_B.any() else None
        logits_BV = self._score(ids_BT, rows, mask)
        self.cache.length = clock
        self.unread_B[seats] = self._choose(seats, logits_BV)
        return {seat: self.texts[seat] for seat in seats}, sent(self.unread_B)

    def step(self) -> Arriving:
        """Each row goes on by a token."""
        rows, end = range(len(self.padding)), self.cache.length + 1
        mask = batch_mask(self.padding_B, 1, end) if any(self.padding) else None
        logits_BV = self._score(self.unread_B[:, None], self.cache, mask)
        self.unread_B = self._choose(rows, logits_BV)
        return dict(self.texts), sent(self.unread_B)

    def take_in(
        self, arriving: Arriving, eos_ids: Collection[int]
    ) -> Iterator[tuple[int, list[int]]]:
        """Adds tokens to their texts. Yields the number and the new ids of each that ends by it."""
        texts, wait = arriving
        tokens = wait()
        for seat, text in texts.items():
            if self.texts.get(seat) is not text:
                continue  # it had ended, which wasn't known yet when this step was sent
            token = tokens[seat]
            ends = token in eos_ids
            if not ends:
                text.ids.append(token)
            if ends or text.is_full:
                del self.texts[seat]
                yield text.number, text.ids[text.prompt_length :]

    def _score(
        self, ids_BT: torch.Tensor, cache: "KVCache | _SomeRows", mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Returns logits_BV of what comes next."""
        model = self.model
        mask = mask if mask is None else mask.to(model.device)
        with fastest_products(model.device, model.dtype, rows=ids_BT.numel()):
            return model(ids_BT.to(model.device), cache, mask, last_only=True)[:, -1]

    def _choose(self, rows: Sequence[int], logits_BV: torch.Tensor) -> torch.Tensor:
        """Returns the next token of each of those rows; of one where no text is, any."""
        texts = [self.texts.get(row) for row in rows]
        if not any(text and text.sampler for text in texts):
            return logits_BV.max(-1).indices  # argmax takes five times as long in bfloat16
        chosen_B = torch.zeros(len(texts), dtype=torch.long, device=logits_BV.device)
        for row, text in enumerate(texts):
            if text and text.sampler:
                history = torch.tensor([text.ids], device=logits_BV.device)
                chosen_B[row] = text.sampler(logits_BV[row : row + 1], history)[0]
        return chosen_B


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
