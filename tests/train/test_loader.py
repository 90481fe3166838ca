"""The loader's promises as properties, and loaders with a known bug that break each of them."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite import Qwen2, Qwen2Config
from qwen2lite.train.loader import Loader, document_mask, document_numbers
from qwen2lite.train.tokens import TokenFile, write_tokens

# A corpus that counts: every id says where it stands, so a window is known by its first id.
SETTINGS = st.fixed_dictionaries(
    {
        "tokens": st.integers(60, 200),
        "length": st.integers(1, 9),
        "batch": st.integers(1, 3),
        "world": st.integers(1, 2),
        "seed": st.integers(0, 2**40),
    }
)
STEPS = st.integers(0, 30)
PLAIN = {"tokens": 101, "length": 7, "batch": 2, "world": 2, "seed": 5}


def loader(kind, plan, rank=0, **changes):
    plan = plan | changes
    ids = np.arange(plan["tokens"], dtype=np.uint16)
    return kind(ids, plan["length"], plan["batch"], plan["seed"], rank, plan["world"])


def batches(source, steps):
    return [(ids_BT.tolist(), targets_BT.tolist()) for ids_BT, targets_BT in islice(source, steps)]


def first_ids(source, steps):
    return [row[0] for ids_BT, _ in batches(source, steps) for row in ids_BT]


def every_window_comes_once_an_epoch(kind, plan):
    plan = plan | {"batch": 1, "world": 1}
    windows = (plan["tokens"] - 1) // plan["length"]
    wanted = [plan["length"] * number for number in range(windows)]
    firsts = first_ids(loader(kind, plan), 3 * windows)
    epochs = [firsts[start : start + windows] for start in range(0, 3 * windows, windows)]
    for epoch in epochs:
        assert sorted(epoch) == wanted
    if windows > 20:  # By chance two orders are equal in one of 20! cases.
        assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
        assert epochs[0] != wanted


def the_target_is_the_token_after(kind, plan):
    for ids_BT, targets_BT in islice(loader(kind, plan), 10):
        assert ids_BT.shape == targets_BT.shape == (plan["batch"], plan["length"])
        assert ids_BT.dtype == targets_BT.dtype == torch.int64
        assert (targets_BT == ids_BT + 1).all()
        assert (ids_BT - ids_BT[:, :1] == torch.arange(plan["length"])).all()


def ranks_share_the_batch_of_one(kind, plan, steps=12):
    world = plan["world"]
    one = batches(loader(kind, plan, world=1, batch=plan["batch"] * world), steps)
    ranks = [batches(loader(kind, plan, rank=rank), steps) for rank in range(world)]
    for step in range(steps):
        together = [[row for rank in ranks for row in rank[step][part]] for part in (0, 1)]
        assert tuple(together) == one[step]


def resuming_changes_nothing(kind, plan, before=9, after=9):
    for rank in range(plan["world"]):
        source = loader(kind, plan, rank)
        batches(source, before)
        state = source.state_dict()
        wanted = batches(source, after)
        resumed = loader(kind, plan, rank)
        batches(resumed, 3)
        resumed.load_state_dict(state)
        assert batches(resumed, after) == wanted
        assert resumed.state_dict() == source.state_dict()


@given(SETTINGS)
def test_every_window_comes_once_an_epoch(plan):
    every_window_comes_once_an_epoch(Loader, plan)


@given(SETTINGS)
def test_the_target_is_the_token_after(plan):
    the_target_is_the_token_after(Loader, plan)


@given(SETTINGS, st.integers(1, 12))
def test_ranks_share_the_batch_of_one(plan, steps):
    ranks_share_the_batch_of_one(Loader, plan, steps)


@given(SETTINGS, STEPS, STEPS)
def test_resuming_changes_nothing(plan, before, after):
    resuming_changes_nothing(Loader, plan, before, after)


@given(SETTINGS, STEPS)
def test_another_number_of_ranks_goes_on_in_the_same_row(plan, before):
    source = loader(Loader, plan)
    batches(source, before)
    alone = loader(Loader, plan, world=1, batch=1)
    whole = first_ids(loader(Loader, plan, world=1, batch=1), source.windows_read + 20)
    alone.load_state_dict(source.state_dict())
    assert first_ids(alone, 20) == whole[source.windows_read :]


class TargetsAreTheIds(Loader):
    def __next__(self):
        ids_BT, _ = super().__next__()
        return ids_BT, ids_BT


class SameOrderEveryEpoch(Loader):
    def _start(self, number):
        return super()._start(number % self.windows)


class NeverShuffles(Loader):
    def _start(self, number):
        return number % self.windows * self.sequence_length


class WindowsOverlap(Loader):
    def _start(self, number):
        return super()._start(number) // 2


class DrawsWithReplacement(Loader):
    def _start(self, number):
        return super()._start(number**2)


class EveryRankReadsTheSame(Loader):
    def __next__(self):
        self.rank = 0
        return super().__next__()


class SeedPerRank(Loader):
    def __init__(self, ids, length, batch, seed, rank, world):
        super().__init__(ids, length, batch, seed + rank, rank, world)


class RepeatsAStep(Loader):
    def load_state_dict(self, state):
        back = self.batch_size * self.world_size
        super().load_state_dict(state | {"windows_read": state["windows_read"] - back})


class SkipsAStep(Loader):
    def load_state_dict(self, state):
        super().load_state_dict(state)
        next(self)


class BeginsTheEpochAnew(Loader):
    def load_state_dict(self, state):
        read = state["windows_read"]
        super().load_state_dict(state | {"windows_read": read - read % self.windows})


class CountsItsOwnWindows(Loader):
    def state_dict(self):
        state = super().state_dict()
        return state | {"windows_read": state["windows_read"] // self.world_size}


@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (TargetsAreTheIds, the_target_is_the_token_after),
        (SameOrderEveryEpoch, every_window_comes_once_an_epoch),
        (NeverShuffles, every_window_comes_once_an_epoch),
        (WindowsOverlap, every_window_comes_once_an_epoch),
        (DrawsWithReplacement, every_window_comes_once_an_epoch),
        (EveryRankReadsTheSame, ranks_share_the_batch_of_one),
        (SeedPerRank, ranks_share_the_batch_of_one),
        (RepeatsAStep, resuming_changes_nothing),
        (SkipsAStep, resuming_changes_nothing),
        (BeginsTheEpochAnew, resuming_changes_nothing),
        (CountsItsOwnWindows, resuming_changes_nothing),
    ],
)
def test_a_loader_with_a_bug_is_caught(kind, promise):
    plan = PLAIN | {"length": 3}
    promise(Loader, plan)
    with pytest.raises(AssertionError):
        promise(kind, plan)


def test_seeds_give_different_orders():
    orders = {tuple(first_ids(loader(Loader, PLAIN, seed=seed), 3)) for seed in range(20)}
    assert len(orders) == 20


def test_the_order_is_the_same_everywhere():
    """A release of numpy that draws otherwise would change every run: better to know."""
    source = loader(Loader, PLAIN, world=1, batch=1, seed=0)
    assert first_ids(source, 16) == [21, 14, 0, 35, 28, 49, 91, 70, 77, 42, 63, 84, 56, 7, 49, 28]


def test_epochs_are_counted():
    source = loader(Loader, PLAIN)  # 14 windows, 4 a step.
    assert source.epochs_read == 0
    batches(source, 7)
    assert source.epochs_read == 2


def test_it_reads_a_token_file(tmp_path):
    facts = {"vocab_size": 9, "eos": 8, "fingerprint": ""}
    write_tokens(tmp_path / "c.bin", [[1, 2, 3], [4, 5]], **facts)
    source = Loader(TokenFile.open(tmp_path / "c.bin").ids, sequence_length=6, batch_size=1)
    ids_BT, targets_BT = next(source)
    assert ids_BT.tolist() == [[1, 2, 3, 8, 4, 5]]
    assert targets_BT.tolist() == [[2, 3, 8, 4, 5, 8]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tokens": 28}, "28 tokens give 3 windows of 7, and a step takes 4; make the corpus"),
        ({"tokens": 0}, "0 tokens give 0 windows"),
        ({"length": 0}, "must be 1 or above"),
        ({"batch": 0}, "must be 1 or above"),
        ({"world": 0}, "must be 1 or above"),
        ({"world": 1, "rank": 1}, "rank below world_size; got 7, 2, 1 and rank 1"),
        ({"rank": -1}, "and rank -1"),
        ({"seed": -1}, "seed must be 0 or above, got -1"),
    ],
)
def test_what_cannot_be_loaded_is_refused(changes, words):
    rank = changes.pop("rank", 0)
    with pytest.raises(ValueError, match=words):
        loader(Loader, PLAIN, rank, **changes)


def test_one_window_for_each_sequence_is_enough():
    assert len(batches(loader(Loader, PLAIN, tokens=29), 5)) == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 6}, "seed was 5 and is 6"),
        ({"tokens": 102}, "tokens was 101 and is 102"),
        ({"length": 6}, "sequence_length was 7 and is 6"),
    ],
)
def test_the_state_of_another_row_is_refused(changes, words):
    state = loader(Loader, PLAIN).state_dict()
    with pytest.raises(ValueError, match=f"can't go on .*{words};"):
        loader(Loader, PLAIN, **changes).load_state_dict(state)


def test_a_state_without_a_place_is_refused():
    state = loader(Loader, PLAIN).state_dict()
    del state["windows_read"]
    with pytest.raises(ValueError, match="can't go on"):
        loader(Loader, PLAIN).load_state_dict(state)


def test_document_numbers_by_hand():
    ids_BT = torch.tensor([[1, 0, 2, 3, 0, 0, 4], [0, 1, 1, 1, 1, 1, 0]])
    wanted = [[0, 0, 1, 1, 1, 2, 3], [0, 1, 1, 1, 1, 1, 1]]
    assert document_numbers(ids_BT, eos=0).tolist() == wanted


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3))
def test_the_mask_sees_back_to_the_last_end(rows):
    ids_BT = torch.tensor(rows)
    mask = document_mask(document_numbers(ids_BT, eos=0))
    assert mask.shape == (len(rows), 1, 6, 6)
    assert mask.dtype == torch.bool
    for row, seen in zip(rows, mask[:, 0].tolist(), strict=True):
        for query in range(6):
            for key in range(6):
                # Nothing between the key and the query, the key included, ends a document.
                wanted = key <= query and 0 not in row[key:query]
                assert seen[query][key] == wanted


def test_with_the_mask_a_document_is_read_as_if_alone():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True,
        initializer_range=0.5,
    )  # fmt: skip
    model = Qwen2(config).eval()
    documents = [[3, 4, 5, 6, 0], [7, 8, 3, 0], [9, 4, 4]]
    packed_BT = torch.tensor([[token for ids in documents for token in ids]])
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor([ids]))[0] for ids in documents])
        mask = document_mask(document_numbers(packed_BT, eos=0))
        packed = model(packed_BT, mask=mask)[0]
        leaking = model(packed_BT)[0]
    assert (packed - alone).abs().max() < 1e-5 * alone.abs().max()
    assert (leaking - alone)[5:].abs().max() > 0.1 * alone.abs().max()
