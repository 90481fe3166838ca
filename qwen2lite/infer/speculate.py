r"""Speculative decoding: the same model in fewer bits writes ahead, and the model checks all of it.

A step reads every weight, whether it scores one position or eight: eight take hardly longer. So a draft
of a few likely tokens is worth its time if most of them are what the model would have written. The
model scores all of them in one step, and the first that it would not have written ends the draft; the
model's own token stands in its place. What comes out is the model's text. A bad draft costs time alone.

The draft leans on the model's own cache. What it adds for its guesses is only roughly right, and the
model's step writes over it.

Source: arXiv 2211.17192, section 2. There a rejected guess is drawn anew so that the *distribution*
stays; here the model draws every token itself, so that the *tokens* stay.
"""

from collections.abc import Collection, Iterator, Sequence

import torch

from qwen2lite.infer.cpu import fastest_products
from qwen2lite.infer.generate import room
from qwen2lite.infer.sample import Sampler, Sampling
from qwen2lite.model.cache import KVCache
from qwen2lite.model.qwen2 import Qwen2


@torch.inference_mode()
def speculate_ids(
    model: Qwen2,
    prompt_ids: Sequence[int],
    max_new_tokens: int = 512,
    sampler: Sampler | None = None,
    eos_ids: Collection[int] = (),
    *,
    draft: "Draft",
) -> Iterator[int]:
    """Yields what `generate_ids` yields, some tokens at a time.

    In float32 the tokens are the same, unless two scores differ by rounding alone; in bfloat16
    rounding is coarse, and now and then decides.

    Args:
        model: as in `generate_ids`.
        prompt_ids: as in `generate_ids`.
        max_new_tokens: as in `generate_ids`.
        sampler: as in `generate_ids`; asked once for each token, in their order.
        eos_ids: as in `generate_ids`.
        draft: guesses; of a model with the same layers and heads.

    Raises:
        ValueError: as in `generate_ids`.
    """
    sampler = sampler or Sampling().sampler()
    cache = model.new_cache(room(model, prompt_ids, max_new_tokens))
    ids_BS = torch.zeros(1, cache.max_length, dtype=torch.long, device=model.device)
    length, guesses = len(prompt_ids), 0
    ids_BS[0, :length] = torch.tensor(prompt_ids)
    while length < cache.max_length:
        unread_BT = ids_BS[:, cache.length : length + guesses]
        with fastest_products(model.device, model.dtype, rows=unread_BT.shape[1]):
            logits_BGV = model(unread_BT, cache, last_only=not guesses)
        for logits_BV in logits_BGV.unbind(1):
            token = int(sampler(logits_BV, ids_BS[:, :length]))
            if token in eos_ids:
                return
            yield token
            was_guessed = token == int(ids_BS[0, length])
            ids_BS[0, length] = token
            length += 1
            if not was_guessed:
                break
        cache.length = length - 1
        guesses = draft.guess(ids_BS, length, cache)


class Draft:
    """Guesses how a text goes on, with a faster model.

    Args:
        model: such as `load(source, "int4")`.
        most: guesses in a row, at most.
        least_sure: the guess that makes the product of their probabilities less than this is the
            last of its row.
        chooser: of the guesses; None is greedy. The closer to how the text's own tokens are chosen,
            the more guesses are right, but it must not share a random state with that.
    """

    def __init__(
        self,
        model: Qwen2,
        most: int = 16,
        least_sure: float = 0.3,
        chooser: Sampler | None = None,
    ):
        self.model, self.most, self.least_sure = model, most, least_sure
        self.chooser = chooser or Sampling().sampler()

    def guess(self, ids_BS: torch.Tensor, length: int, cache: KVCache) -> int:
        """Writes guesses behind the first `length` ids, and returns their number.

        Args:
            ids_BS: room for the whole text, B = 1.
            length: of the text so far.
            cache: of all of it but the last token; it is given back as long as it was.
        """
        most = min(self.most, ids_BS.shape[1] - length - 1)
        sure = 1.0
        for number in range(most):
            end = length + number
            logits_BV = self.model(ids_BS[:, end - 1 : end], cache, last_only=True)[:, -1].float()
            guess = int(self.chooser(logits_BV, ids_BS[:, :end]))
            ids_BS[0, end] = guess
            sure *= float((logits_BV[0, guess] - logits_BV.logsumexp(-1)).exp())
            if sure < self.least_sure:
                most = number + 1
                break
        cache.length = length - 1
        return max(most, 0)
