"""A model that remembers its last text gives what it gave without, and reads only what is new."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen2lite import CONFIGS, Parts, Qwen2
from qwen2lite.infer.batch import generate_batch
from qwen2lite.infer.compile import CompiledQwen2
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.remember import RememberingQwen2
from qwen2lite.infer.speculate import Draft, speculate_ids

SHAPE = {
    "vocab_size": 7, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
CHUNKS = {"dual_chunk_attention_config": {"chunk_size": 9, "local_size": 3}}


class GrownCache:
    """A learner's own, which has no room beforehand."""

    def __init__(self, config, max_length, batch_size, dtype, device):
        self.kept, self.length, self.max_length = {}, 0, max_length

    def update(self, layer, k_BKTH, v_BKTH):
        new = (k_BKTH, v_BKTH)
        if self.length:
            before = (kept[:, :, : self.length] for kept in self.kept[layer])
            new = tuple(torch.cat(pair, dim=2) for pair in zip(before, new, strict=True))
        self.kept[layer] = new
        return new


def a_model(parts: Parts | None = None, **changes: object) -> Qwen2:
    torch.manual_seed(0)
    config = dataclasses.replace(
        CONFIGS["qwen2-0.5b"], **{**SHAPE, "initializer_range": 0.3, **changes}
    )
    return Qwen2(config, parts).double().eval()


MODELS = {
    "plain": a_model(),
    "in chunks": a_model(**CHUNKS),
    "own cache": a_model(Parts(cache=GrownCache)),
}
PROMPT = [3, 1, 4, 1, 5, 2, 6, 5, 3, 5]


@pytest.fixture
def read():
    """How many tokens the models read, run by run."""
    counts = []
    hooks = [
        model.model.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].shape[1]))
        for model in MODELS.values()
    ]
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", MODELS)
def test_the_next_turn_reads_only_what_is_new(name, read):
    model = RememberingQwen2(MODELS[name])
    first = list(generate_ids(model, PROMPT, 8))
    assert read == [10, *[1] * 7] and model.recalled == 0
    question = [*PROMPT, *first, 0, 2, 0]
    want = list(generate_ids(MODELS[name], question, 8))
    read.clear()
    assert list(generate_ids(model, question, 8)) == want
    assert read[0] == 4, "the last token of an answer was never read, and three are new"
    assert model.recalled == 17


@pytest.mark.parametrize(
    ("second", "recalled"),
    [
        (PROMPT, 9),  # one must be read, for its scores
        (PROMPT[:4], 3),
        (PROMPT[:1], 0),
        ([*PROMPT[:6], 0, 0, 0, 0], 6),
        ([0, *PROMPT[1:]], 0),
    ],
)
def test_reading_begins_where_two_texts_part(second, recalled, read):
    model = RememberingQwen2(MODELS["plain"])
    list(generate_ids(model, PROMPT, 3))
    read.clear()
    got = list(generate_ids(model, second, 9))
    assert (read[0], model.recalled) == (len(second) - recalled, recalled)
    assert got == list(generate_ids(MODELS["plain"], second, 9))


TEXTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=2, max_size=5)


@settings(max_examples=60, deadline=None)
@given(texts=TEXTS, name=st.sampled_from(sorted(MODELS)), more=st.integers(0, 5))
def test_whatever_was_read_before_the_text_is_the_models(texts, name, more):
    model, draft = RememberingQwen2(MODELS[name]), Draft(MODELS["plain"], most=3, least_sure=0.1)
    for number, text in enumerate(texts):
        want = list(generate_ids(MODELS[name], text, more))
        if number % 2 and name == "plain":
            assert list(speculate_ids(model, text, more, draft=draft)) == want
        else:
            assert list(generate_ids(model, text, more)) == want


def test_a_text_that_was_broken_off_is_remembered_as_far_as_it_was_read(read):
    model = RememberingQwen2(MODELS["plain"])
    writer = generate_ids(model, PROMPT, 20)
    begun = [next(writer) for _ in range(5)]
    writer.close()
    read.clear()
    question = [*PROMPT, *begun, 1]
    assert list(generate_ids(model, question, 5)) == list(
        generate_ids(MODELS["plain"], question, 5)
    )
    assert read[0] == 2


@torch.inference_mode()
def test_what_was_taken_back_is_not_known(read):
    """As drafts take back their wrong guesses."""
    model = RememberingQwen2(MODELS["plain"])
    cache = model.new_cache(20)
    model(torch.tensor([PROMPT]), cache, last_only=True)
    cache.length = 6
    assert list(generate_ids(model, PROMPT, 5)) == list(generate_ids(MODELS["plain"], PROMPT, 5))
    assert model.recalled == 6

    cache = model.new_cache(20)
    model(torch.tensor([PROMPT]), cache, last_only=True)
    cache.length = 6
    model(torch.tensor([[0, 0]]), cache, last_only=True)
    other = [*PROMPT[:6], 0, 0, 1]
    assert list(generate_ids(model, other, 5)) == list(generate_ids(MODELS["plain"], other, 5))
    assert model.recalled == 8


@torch.inference_mode()
def test_all_scores_and_batches_are_given_as_before(read):
    model, plain = RememberingQwen2(MODELS["plain"]), MODELS["plain"]
    assert model.recalled == 0
    list(generate_ids(model, PROMPT, 3))
    ids_BT = torch.tensor([PROMPT])
    read.clear()
    assert torch.equal(model(ids_BT, model.new_cache(20)), plain(ids_BT, plain.new_cache(20)))
    assert read == [10, 10] and model.recalled == 0, "every position was to be scored"
    both_BT = ids_BT.repeat(2, 1)
    caches = model.new_cache(20, 2), plain.new_cache(20, 2)
    assert torch.equal(
        model(both_BT, caches[0], last_only=True), plain(both_BT, caches[1], last_only=True)
    )
    assert torch.equal(model(ids_BT), plain(ids_BT))
    model(torch.zeros_like(both_BT), model.new_cache(20, 2), last_only=True)
    list(generate_ids(model, [0] * 10, 3))
    assert model.recalled == 0, "zeros were read in another cache than the conversation's"


def test_a_compiled_model_writes_the_same():
    model = RememberingQwen2(CompiledQwen2(a_model(max_position_embeddings=600), False))
    plain, text = a_model(max_position_embeddings=600), PROMPT
    for room in (9, 9, 300, 9, 300):  # caches of two sizes, and each again
        want = list(generate_ids(plain, text, room))
        assert list(generate_ids(model, text, room)) == want
        text = [*text, *want[:3], 0]


def test_a_cache_that_a_batch_filled_is_not_taken_for_a_conversation():
    model = a_model()
    remembering = RememberingQwen2(model)
    written = generate_batch(remembering, [PROMPT], 12)[0]
    assert written == list(generate_ids(model, PROMPT, 12))
    again = written[:8]
    assert list(generate_ids(remembering, again, 12)) == list(generate_ids(model, again, 12))


def test_outside_of_inference_mode_it_remembers_as_well():
    model = a_model()
    remembering = RememberingQwen2(model)
    list(generate_ids(remembering, PROMPT, 5))
    with torch.no_grad():
        got = remembering(torch.tensor([PROMPT]), remembering.new_cache(10), last_only=True)
        assert remembering.recalled == 9
        assert torch.allclose(got, model(torch.tensor([PROMPT]), last_only=True))
