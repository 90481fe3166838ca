"""What the way from documents to batches has to do: packing, masks, and going on after a stop."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch

from qwen2lite.learn.contract import Mistake, call, describe, require_tensor, told_by, usual_reason
from qwen2lite.learn.mutants import loader as mutants
from qwen2lite.learn.mutants.loader import MUTANTS

Part = Callable[..., Any]


def check_pack(pack: Part) -> Iterator[str]:
    """Three rows by hand: two documents, one whose end is the end of a window, and a long one."""
    for documents, length, ids, targets, held in (
        (
            [[1, 2, 3], [4, 5]],
            3,
            [[1, 2, 3], [0, 4, 5]],
            [[2, 3, 0], [4, 5, 0]],
            "documents end to end, each with its eos, and targets one token further",
        ),
        ([[1, 2, 3, 4, 5]], 3, [[1, 2, 3]], [[2, 3, 4]], "no window without its last target"),
        (
            [[7], [8], [9, 10, 11, 12]],
            2,
            [[7, 0], [8, 0], [9, 10], [11, 12]],
            [[0, 8], [0, 9], [10, 11], [12, 0]],
            "several documents in a window, several windows in a document",
        ),
    ):
        got = call(pack, documents, 0, length)
        why = usual_reason(MUTANTS["pack"], got, documents, 0, length)
        if not isinstance(got, tuple) or len(got) != 2:
            raise Mistake(f"pack returned {describe(got)}; the pair (ids, targets) was wanted.")
        for name, tensor, want in zip(("ids", "targets"), got, (ids, targets), strict=True):
            if not isinstance(tensor, torch.Tensor) or tensor.dtype != torch.int64:
                raise Mistake(f"{name} are {describe(tensor)}; a tensor of int64 was wanted.")
            if tensor.tolist() != want:
                raise Mistake(
                    f"Documents {documents}, eos 0, windows of {length}: the {name} are "
                    f"{tensor.tolist()}; wanted {want}.",
                    why,
                )
        yield held


def check_document_numbers(document_numbers: Part) -> Iterator[str]:
    """Two windows by hand."""
    ids_BT = torch.tensor([[5, 6, 0, 7, 0, 8], [0, 0, 9, 9, 9, 9]])
    got = call(document_numbers, ids_BT, 0)
    why = usual_reason(MUTANTS["document_numbers"], got, ids_BT, 0)
    require_tensor(got, [2, 6], torch.int64, "document_numbers", why)
    want = [[0, 0, 0, 1, 1, 2], [0, 1, 2, 2, 2, 2]]
    for ids, row, right in zip(ids_BT.tolist(), got.tolist(), want, strict=True):
        if row != right:
            raise Mistake(f"With eos 0, {ids} is numbered {row}; wanted {right}.", why)
    yield "numbered from 0 in each window, eos with the document that it ends"


def check_document_mask(document_mask: Part) -> Iterator[str]:
    """Two windows by hand, whose borders differ."""
    documents_BT = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 2]])
    got = call(document_mask, documents_BT)
    why = usual_reason(MUTANTS["document_mask"], got, documents_BT)
    require_tensor(got, [2, 1, 4, 4], torch.bool, "document_mask", why)
    yield "a table for each window, the same for all heads"

    want = (["1000", "1100", "0010", "0011"], ["1000", "0100", "0110", "0001"])
    for documents, mask, right in zip(documents_BT.tolist(), got, want, strict=True):
        rows = ["".join(str(int(seen)) for seen in row) for row in mask[0].tolist()]
        if rows != right:
            raise Mistake(
                f"For documents {documents} the rows are {', '.join(rows)}; "
                f"wanted {', '.join(right)}.",
                why,
            )
    yield "back, and within the own document"


def check_mended_windows(mended_windows: Part) -> Iterator[str]:
    """Every window once an epoch, in a new order; and going on is as if nothing had happened."""
    windows = 7

    def first(count: int, seed: int = 3, windows_read: int = 0) -> list[int]:
        def read(*inputs: int) -> list[int]:
            return [int(number) for number in islice(mended_windows(*inputs), count)]

        return call(read, windows, seed, windows_read, name="mended_windows")

    whole = first(6 * windows)
    epochs = [whole[start : start + windows] for start in range(0, len(whole), windows)]
    for order in epochs:
        if sorted(order) != list(range(windows)):
            raise Mistake(f"An epoch of 7 windows reads {order}, not each of them once.")
    yield "each window once an epoch"
    if all(order == epochs[0] for order in epochs):
        raise Mistake(
            f"Six epochs, and all of them read {epochs[0]}.", told_by(mutants.one_order_for_all)
        )
    if whole == first(6 * windows, seed=4):
        raise Mistake("Two seeds give the same order.", "The seed decides it; is it used?")
    yield "in an order that seed and epoch decide"

    for read, what in ((3, "first"), (10, "second"), (2 * windows, "third"), (31, "fifth")):
        got, want = first(windows, windows_read=read), whole[read : read + windows]
        if got != want:
            raise Mistake(
                f"Stopped after {read} windows, in the {what} epoch, it goes on with {got}; "
                f"unstopped it would be {want}.",
                _why_it_differs(got, whole, read, windows),
            )
        yield f"stopped after {read} windows, it goes on in the {what} epoch"


def _why_it_differs(got: list[int], whole: list[int], read: int, windows: int) -> str:
    place = read % windows
    next_epoch = read - place + windows
    if got == whole[: len(got)]:
        return told_by(mutants.begins_again)
    if got == whole[read - 1 : read - 1 + len(got)]:
        return told_by(mutants.last_one_again)
    if got == whole[next_epoch : next_epoch + len(got)]:
        return told_by(mutants.on_to_the_next_epoch)
    if got[: windows - place] == whole[place:windows]:
        return told_by(mutants.forgets_the_epoch)
    return ""
