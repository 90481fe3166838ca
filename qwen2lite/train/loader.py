r"""From a token file to batches: every window once an epoch, in an order that a seed decides.

Think of one endless row of windows: the corpus shuffled, then shuffled anew, and so on. A step
takes the next B windows of each rank. Where the row has been read to is all there is to save.
"""

from collections.abc import Iterator

import numpy as np
import torch

from qwen2lite.model.attention import causal_mask


class Loader:
    """Gives `(ids_BT, targets_BT)` without end; the target of a token is the token after it.

    The corpus is cut into windows of T tokens that don't overlap, wherever the cuts fall: a document
    longer than T runs on in another window, and one window may hold several documents (see
    `document_mask`). Up to T tokens at the end of the corpus are not read.

    With W ranks, a step reads the next W·B windows, and rank r the r-th B of them. So the batches of
    all ranks, one below the other, are the batch of one process with W·B sequences.

    Args:
        ids: the corpus as one row, such as `TokenFile.ids`.
        sequence_length: T.
        batch_size: B, sequences a step on this rank.
        seed: of the order; 0 or above.
        rank: this process among `world_size`, from 0.
        world_size: processes that share each step.

    Raises:
        ValueError: a corpus with fewer windows than one step takes, or an argument out of range.
    """

    def __init__(
        self,
        ids: np.ndarray,
        sequence_length: int,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        if min(sequence_length, batch_size, world_size) < 1 or not 0 <= rank < world_size:
            raise ValueError(
                "sequence_length, batch_size and world_size must be 1 or above and rank below "
                f"world_size; got {sequence_length}, {batch_size}, {world_size} and rank {rank}"
            )
        if seed < 0:
            raise ValueError(f"seed must be 0 or above, got {seed}")
        # The last window's last target is one token further.
        self.windows = (len(ids) - 1) // sequence_length
        if self.windows < batch_size * world_size:
            raise ValueError(
                f"{len(ids):,} tokens give {max(self.windows, 0)} windows of {sequence_length}, and "
                f"a step takes {batch_size * world_size}; make the corpus larger, or sequences or "
                "batch smaller"
            )
        self._ids = np.asarray(ids)
        self.sequence_length, self.batch_size, self.seed = sequence_length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.windows_read = 0
        """By all ranks together, since the beginning of training."""
        self._epoch = -1

    @property
    def epochs_read(self) -> float:
        """How often the corpus has been read: 2.5 is in the middle of the third time."""
        return self.windows_read / self.windows

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        first = self.windows_read + self.rank * self.batch_size
        starts = [self._start(number) for number in range(first, first + self.batch_size)]
        self.windows_read += self.world_size * self.batch_size
        length = self.sequence_length
        # One token more than T: ids and targets are two views of the same row.
        rows = np.stack([self._ids[start : start + length + 1] for start in starts])
        both = torch.from_numpy(rows.astype(np.int64))
        return both[:, :-1], both[:, 1:]

    def _start(self, number: int) -> int:
        """Where in the corpus the window with this number in the endless row begins."""
        epoch, place = divmod(number, self.windows)
        if epoch != self._epoch:
            chance = np.random.default_rng([self.seed, epoch])
            self._epoch, self._order = epoch, chance.permutation(self.windows)
        return int(self._order[place]) * self.sequence_length

    def state_dict(self) -> dict[str, int]:
        """The place in the row, and what the row depends on. The same on every rank."""
        return {
            "windows_read": self.windows_read,
            "tokens": len(self._ids),
            "sequence_length": self.sequence_length,
            "seed": self.seed,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on where another loader stopped, with as many ranks and sequences as you like.

        Raises:
            ValueError: the other loader read another row: its corpus, length or seed was different.
        """
        self.windows_read = resumed_place(state, self.state_dict(), "windows_read")


def resumed_place(state: dict[str, int], mine: dict[str, int], name: str) -> int:
    """The place of another loader that reads the same row as mine.

    Raises:
        ValueError: it reads another row, for anything but the place differs.
    """
    different = [
        f"{key} was {state.get(key)} and is {mine[key]}"
        for key in mine
        if key != name and state.get(key) != mine[key]
    ]
    if different or name not in state:
        raise ValueError(
            f"can't go on where the other loader stopped: {'; '.join(different) or state}; "
            "open it with the same corpus and settings, or begin anew"
        )
    return state[name]


def document_numbers(ids_BT: torch.Tensor, eos: int) -> torch.Tensor:
    """Numbers the documents of each window from 0, as documents_BT.

    `eos` belongs to the document that it ends.

    Args:
        ids_BT: windows of a packed corpus.
        eos: the id after each document.
    """
    ends_BT = (ids_BT == eos).long()
    return ends_BT.cumsum(-1) - ends_BT


def document_mask(documents_BT: torch.Tensor) -> torch.Tensor:
    """True where a query may look: back, and within its own document; bool, [B, 1, T, T].

    The 1 stands for all heads. Positions need not begin again at each document: rotary attention
    sees only distances.

    Args:
        documents_BT: see `document_numbers`.
    """
    same_BTS = documents_BT[:, :, None] == documents_BT[:, None, :]
    length = documents_BT.shape[-1]
    return (same_BTS & causal_mask(length, length, documents_BT.device))[:, None]
