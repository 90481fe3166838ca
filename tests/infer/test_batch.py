"""Many prompts at once: each gets the tokens that it gets alone, whatever stands beside it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite import CONFIGS, Parts, Qwen2, Qwen2Tokenizer, Sampling
from qwen2lite.infer import batch
from qwen2lite.infer.batch import generate_batch, generate_each
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.packed import PackedQwen2
from qwen2lite.infer.padding import batch_mask, left_pad
from qwen2lite.infer.products import TileLinear
from qwen2lite.model.attention import attend

TINY = Path(__file__).parents[2] / "data" / "qwen2-tiny"
SHAPE = {
    "vocab_size": 61, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 48,
    "initializer_range": 0.5, "rope_theta": 100.0,
}  # fmt: skip
YARN = {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 24}
EXPERTS = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
           "shared_expert_intermediate_size": 20}  # fmt: skip
CHUNKS = {"chunk_size": 8, "local_size": 2}


def tiny_model(parts: Parts | None = None, seed: int = 0, **changes) -> Qwen2:
    torch.manual_seed(seed)
    return Qwen2(replace(CONFIGS["qwen2-0.5b"], **{**SHAPE, **changes}), parts).eval()


def alone(model, prompts, limits, eos_ids=(), new_sampler=None):
    return [
        list(generate_ids(model, prompt, limit, new_sampler and new_sampler(number), eos_ids))
        for number, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]


def sampler_of(number):
    return Sampling(repetition_penalty=1.3, temperature=1.5, top_k=20, seed=number).sampler()


ids = st.integers(0, 60)
prompt_and_limit = st.tuples(st.lists(ids, min_size=1, max_size=20), st.integers(0, 25))


# The same examples each time: in other ones two scores may be equal but for rounding.
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(prompt_and_limit, min_size=1, max_size=9),
    st.integers(1, 10),
    st.sampled_from([{}, {"rope_scaling": YARN}, EXPERTS, {"num_key_value_heads": 4}]),
    st.integers(0, 3),
    st.sampled_from([None, sampler_of]),
)
@pytest.mark.filterwarnings("ignore:this text fits")
def test_each_prompt_gets_the_tokens_that_it_gets_alone(work, rows, changes, seed, new_sampler):
    model = tiny_model(seed=seed, **changes)
    prompts, limits = zip(*work, strict=True)
    stops = {7, 11, 13, 17, 19}
    wanted = alone(model, prompts, limits, stops, new_sampler)
    for steps_ahead in (False, True):  # as on a CPU, and as on a GPU
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "works_beside", lambda _, ahead=steps_ahead: ahead)
            assert generate_batch(model, prompts, limits, new_sampler, stops, rows) == wanted


class Joined:
    """A cache of a learner's, by `torch.cat`."""

    def __init__(self, config, max_length, batch_size=1, dtype=torch.float32, device="cpu"):
        shape = (batch_size, config.num_key_value_heads, 0, config.head_dim)
        self.pairs = [(torch.zeros(shape), torch.zeros(shape))] * config.num_hidden_layers
        self.max_length, self.length = max_length, 0

    def update(self, layer, k, v):
        old = (one[:, :, : self.length] for one in self.pairs[layer])
        both = zip(old, (k, v), strict=True)
        self.pairs[layer] = tuple(torch.cat(pair, dim=2) for pair in both)
        return self.pairs[layer]


PROMPTS = [[5, 9, 2], [1], [3, 4, 5, 6, 7, 8, 9, 10], [60, 2], [44, 5, 17, 23], [8] * 7]
LIMITS = [9, 14, 3, 20, 11, 6]


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 50])
def test_any_number_of_rows_gives_the_same(rows):
    model = tiny_model()
    assert generate_batch(model, PROMPTS, LIMITS, rows=rows) == alone(model, PROMPTS, LIMITS)


@pytest.mark.parametrize(
    "parts", [Parts(cache=Joined), Parts(attend=attend)], ids=["cache", "attend"]
)
def test_parts_of_a_learner_serve_as_well(parts):
    model = tiny_model(parts)
    assert generate_batch(model, PROMPTS, LIMITS, rows=2) == alone(model, PROMPTS, LIMITS)


def test_order_and_neighbours_change_nothing():
    model = tiny_model()
    ways = [generate_batch(model, PROMPTS[::way], LIMITS[::way], rows=3)[::way] for way in (1, -1)]
    few = generate_batch(model, PROMPTS[2:4], LIMITS[2:4])
    assert ways[0] == ways[1] and few == ways[0][2:4]


def test_a_text_is_given_as_soon_as_it_is_done():
    """Row 0 writes 2 tokens, row 1 writes 9; the third prompt takes the seat that is free first."""
    model = tiny_model()
    came = list(generate_each(model, [[1, 2, 3], [4, 5], [6]], [2, 9, 3], rows=2))
    assert [number for number, _ in came] == [0, 2, 1]
    assert [len(ids) for _, ids in came] == [2, 3, 9]


def steps(model, prompts, limits, rows):
    """The shapes of all that the model reads, call by call."""
    seen = []
    handle = model.register_forward_pre_hook(lambda _, inputs: seen.append([*inputs[0].shape]))
    generate_batch(model, prompts, limits, rows=rows)
    handle.remove()
    return seen


def test_a_free_seat_is_taken_at_once():
    """Limits of 2, 9 and 3 on two rows: the third text fills up the row of the first."""
    seen = steps(tiny_model(), [[1, 2, 3], [4, 5], [6]], [2, 9, 3], rows=2)
    assert seen == [[2, 3], [2, 1], [1, 1], *[[2, 1]] * 7]


def order_of_events(model, prompts, limits, eos_ids, monkeypatch):
    """What happens one after the other: a step is sent, or the tokens of one are waited for."""
    events = []

    def sent(tokens_B):
        events.append("send")
        return lambda: events.append("wait") or tokens_B.tolist()

    monkeypatch.setattr(batch, "sent", sent)
    monkeypatch.setattr(batch, "works_beside", lambda _: True)
    generate_batch(model, prompts, limits, eos_ids=eos_ids, rows=2)
    return " ".join(events)


def test_a_device_that_works_beside_the_host_is_sent_a_step_before_the_last_one_is_known(
    monkeypatch,
):
    model, prompts = tiny_model(), [[1, 2, 3], [4, 5]]
    order = order_of_events(model, prompts, 3, (), monkeypatch)
    assert order == "send send wait send wait wait"  # nothing ahead of a token known to be the last
    stop = generate_batch(model, prompts, 4)[0][1]
    order = order_of_events(model, prompts[:1], 9, [stop], monkeypatch)
    assert order == "send send wait send wait"  # the third step was for nothing


def test_nothing_is_sent_ahead_of_one_who_joins(monkeypatch):
    order = order_of_events(tiny_model(), [[1], [2], [3]], [2, 9, 2], (), monkeypatch)
    # The second step gives the last token of one of the short texts; for its seat the other one waits.
    assert order.startswith("send send wait wait send send wait send")


def test_where_the_clock_ends_texts_are_read_again_and_go_on():
    model = tiny_model()
    prompts, limits = [[n + 1] * 5 for n in range(12)], [7] * 12
    seen = steps(model, prompts, limits, rows=3)
    # The cache has twice 12 columns. Three texts at a time end at 11, 17 and 23; those that join then
    # have written two tokens at 24.
    assert [shape for shape in seen if shape[1] > 5] == [[3, 7]]
    assert generate_batch(model, prompts, limits, rows=3) == alone(model, prompts, limits)


def test_prompts_fill_the_context_to_its_end():
    model = tiny_model()
    prompts = [[3] * 40, [5] * 47, [7] * 12]
    got = generate_batch(model, prompts, 99, rows=2)
    assert [len(ids) for ids in got] == [8, 1, 36]
    assert got == alone(model, prompts, [99] * 3)


def test_padding_is_not_read(monkeypatch):
    model = tiny_model()
    want = generate_batch(model, PROMPTS, LIMITS)
    monkeypatch.setattr(batch, "left_pad", lambda rows: left_pad(rows, pad_id=60))
    assert generate_batch(model, PROMPTS, LIMITS) == want


def test_padding_that_is_looked_at_would_show(monkeypatch):
    """The tests above would fail if the mask were only causal."""
    model = tiny_model()
    monkeypatch.setattr(
        batch, "batch_mask", lambda padding_B, *sizes: batch_mask(0 * padding_B, *sizes)
    )
    assert generate_batch(model, PROMPTS, LIMITS) != alone(model, PROMPTS, LIMITS)


def test_left_pad_and_mask_by_hand():
    ids_BT, padding_B = left_pad([[5], [6, 7, 8]], pad_id=9)
    assert ids_BT.tolist() == [[9, 9, 5], [6, 7, 8]] and padding_B.tolist() == [2, 0]
    seen = batch_mask(padding_B, 3, 3).int().tolist()
    assert seen == [[[[1, 0, 0], [0, 1, 0], [0, 0, 1]]], [[[1, 0, 0], [1, 1, 0], [1, 1, 1]]]]
    assert batch_mask(padding_B, 1, 4).int().tolist() == [[[[0, 0, 1, 1]]], [[[1, 1, 1, 1]]]]


@pytest.fixture(scope="module")
def trained():
    return Qwen2.from_pretrained(TINY, dtype=torch.float32, device="cpu")


@pytest.fixture(scope="module")
def texts():
    tokenizer = Qwen2Tokenizer.from_pretrained(TINY)
    stories = ["Once upon a time", "The", "She opened the door and saw", "2 + 2 =", "A cat sat"]
    return [tokenizer.encode(story) for story in stories]


def test_the_trained_tiny_model(trained, texts):
    stops = {trained.config.eos_token_id}
    got = generate_batch(trained, texts, 40, eos_ids=stops, rows=3)
    assert got == alone(trained, texts, [40] * len(texts), stops)


def test_the_tokens_of_transformers(trained, texts):
    """The same prompts padded to the left, in a single batch, by `generate`."""
    values = trained.config.to_dict()
    peer = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**values)).eval()
    peer.load_state_dict(trained.state_dict(), strict=False)
    ids_BT, padding_B = left_pad(texts)
    attended = (torch.arange(ids_BT.shape[1]) >= padding_B[:, None]).long()
    theirs = peer.generate(
        ids_BT, attention_mask=attended, max_new_tokens=30, min_new_tokens=30, do_sample=False,
        pad_token_id=0, eos_token_id=None,
    )  # fmt: skip
    assert generate_batch(trained, texts, 30) == theirs[:, ids_BT.shape[1] :].tolist()


@pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines,
    reason="not checked: this processor's PyTorch has no FBGEMM",
)
def test_the_packed_model():
    packed = PackedQwen2(tiny_model().to(torch.bfloat16), TileLinear)
    assert generate_batch(packed, PROMPTS, LIMITS, rows=2) == alone(packed, PROMPTS, LIMITS)


@pytest.mark.parametrize(
    ("prompts", "limits", "rows", "says"),
    [
        ([], 5, 8, "there is no prompt"),
        ([[1], []], 5, 8, "prompt 1 is empty"),
        ([[1], [1] * 48], 5, 8, "prompt 1 has 48 tokens and the model's context holds 48"),
        ([[1, 61]], 5, 8, "prompt 0 has the token id 61, and ids run from 0 to 60"),
        ([[-1]], 5, 8, "prompt 0 has the token id -1"),
        (["hello"], 5, 8, "prompt 0 has the token id 'h'.*encode a text first"),
        ([[1], [2]], [5], 8, r"max_new_tokens is \[5\], and there are 2 prompts"),
        ([[1]], -1, 8, "max_new_tokens is -1"),
        ([[1]], 5, 0, "at least one row, got rows=0"),
    ],
)
def test_bad_input(prompts, limits, rows, says):
    with pytest.raises(ValueError, match=says):
        generate_batch(tiny_model(), prompts, limits, rows=rows)


def test_dual_chunks_are_refused():
    model = tiny_model(dual_chunk_attention_config=CHUNKS)
    with pytest.raises(ValueError, match="dual chunk attention counts its chunks from the beg"):
        generate_batch(model, PROMPTS)


def test_nothing_to_write_needs_no_step():
    assert generate_batch(tiny_model(), PROMPTS, 0) == [[]] * len(PROMPTS)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_ids_of_arrays_and_tensors_are_ids(kind):
    model = tiny_model()
    assert generate_batch(model, [kind([1, 2, 3])], 5) == generate_batch(model, [[1, 2, 3]], 5)
