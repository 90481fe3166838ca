"""The kernels give what the model gives: on a GPU as they are, elsewhere in Triton's interpreter."""

from dataclasses import replace

import pytest
import torch

from qwen2lite import CONFIGS, Parts, Qwen2
from qwen2lite.infer import fused as fused_module
from qwen2lite.infer.ahead import generate_ahead
from qwen2lite.infer.fused import FusedQwen2, fits, fuse
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.packed import PackedQwen2
from qwen2lite.infer.quantized_products import Int4Linear
from qwen2lite.model.mlp import SwiGLU
from tests.infer.test_compile import EXPERTS, SHAPE, small_model

GROUPS = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Before 3.7 the interpreter couldn't count with newer releases of NumPy.
pytest.importorskip(
    "triton", None if DEVICE == "cuda" else "3.7", "not checked: no such Triton here"
)


TINY = {"vocab_size": 33, "hidden_size": 48, "intermediate_size": 40, "num_attention_heads": 3}
"""The interpreter is slow, and a model of a thousand numbers has every border that a large one has."""


def small(**changes) -> Qwen2:
    heads = {"num_key_value_heads": 1, "num_hidden_layers": 1}
    return small_model(**(TINY | heads | changes)).to(DEVICE)


def written_by_steps(model, ids_BT, read):
    """Logits of a text of which all after the first tokens come in steps."""
    cache = model.new_cache(ids_BT.shape[1])
    with torch.inference_mode():
        pieces = [model(ids_BT[:, :read], cache).clone()]
        pieces += [model(ids[:, None], cache).clone() for ids in ids_BT[:, read:].unbind(1)]
    return torch.cat(pieces, 1)


@pytest.mark.parametrize("few", [fused_module.FEW_COLUMNS, 64], ids=["few slices", "many slices"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"tie_word_embeddings": False, "num_hidden_layers": 2}, GROUPS],
    ids=["tied", "untied", "two groups"],
)
def test_logits_are_the_models(changes, few, monkeypatch):
    monkeypatch.setattr(fused_module, "FEW_COLUMNS", few)
    monkeypatch.setattr(fused_module, "FEW_SLICES", 2)
    model = small(**changes)
    for weights in model.parameters():  # biases and norms that are not 0 and 1
        torch.nn.init.normal_(weights, std=0.2)
    ids_BT = torch.randint(0, 33, (1, 140), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    got = written_by_steps(FusedQwen2(model), ids_BT, 138)
    difference = (got - model(ids_BT)).abs().max()
    assert difference <= 2e-5  # float32, summed in another order


def test_in_bfloat16_it_is_as_near_to_the_truth_as_the_model():
    model = small()
    ids_BT = torch.randint(0, 33, (1, 40), generator=torch.Generator().manual_seed(0)).to(DEVICE)
    truth = model(ids_BT)
    model = model.bfloat16()
    errors = [
        (logits.float() - truth)[:, 37:].abs().mean()
        for logits in (written_by_steps(FusedQwen2(model), ids_BT, 37), model(ids_BT))
    ]
    assert errors[0] <= 1.2 * errors[1]


def test_texts_are_those_of_generate_ids_whatever_the_cache_held_before():
    model = small()
    kernels = FusedQwen2(model)
    for prompt in ([1, 2, 3, 4, 5, 6, 7, 8, 9], [7], [9, 8]):
        assert list(generate_ids(kernels, prompt, 4)) == list(generate_ids(model, prompt, 4))


def test_a_hidden_column_is_not_seen():
    model = small()
    ids_BT = torch.tensor([[5, 6, 7, 8]], device=DEVICE)
    mask = torch.tensor([[[[False, True, True, True]]]], device=DEVICE)
    logits = []
    for own in (FusedQwen2(model), model):
        cache = own.new_cache(4)
        with torch.inference_mode():
            own(ids_BT[:, :3], cache)
            logits.append(own(ids_BT[:, 3:], cache, mask).clone())
    assert (logits[0] - logits[1]).abs().max() <= 2e-5
    assert (logits[1] - model(ids_BT)[:, 3:]).abs().max() > 1e-3


@pytest.mark.parametrize("limit", [0, 1, 2, 20, 700])
def test_a_step_ahead_writes_the_same_and_stops_at_the_same(limit):
    model = small()
    for prompt in ([1], [4, 5, 6]):
        wanted = list(generate_ids(model, prompt, limit))
        assert list(generate_ahead(model, prompt, limit)) == wanted
        for eos in wanted[:1], wanted[-1:]:
            stopped = list(generate_ids(model, prompt, limit, eos_ids=eos))
            assert list(generate_ahead(model, prompt, limit, eos_ids=eos)) == stopped


class OwnMLP(SwiGLU):
    """As a learner writes one."""


def test_only_the_packages_own_dense_layers_fit():
    chunks = {"chunk_size": 8, "local_size": 4}
    others = [
        small_model(**EXPERTS),
        small_model(dual_chunk_attention_config=chunks),
        small_model(intermediate_size=98),
        small_model(hidden_size=2112, num_attention_heads=33, num_key_value_heads=1),
        Qwen2(replace(CONFIGS["qwen2-0.5b"], **SHAPE), Parts(mlp=OwnMLP)),
        Qwen2(replace(CONFIGS["qwen2-0.5b"], **SHAPE), Parts(attend=lambda q, k, v, mask: q)),
        PackedQwen2(small_model().bfloat16(), Int4Linear),
    ]
    assert fits(small_model())
    for model in others:
        assert not fits(model)
        assert fuse(model) is model


@pytest.mark.skipif(DEVICE == "cpu", reason="not checked: there is no GPU here")
def test_recorded_on_a_gpu_it_writes_the_same_texts():
    model = small(max_position_embeddings=8192)
    kernels = fuse(model)
    assert isinstance(kernels, FusedQwen2)
    for prompt, limit in (([1, 2, 3], 100), (list(range(33)) * 80, 40), ([9], 100)):
        wanted = list(generate_ids(model, prompt, limit))
        assert list(generate_ahead(kernels, prompt, limit)) == wanted


def test_where_triton_cannot_build_the_plain_step_runs(monkeypatch):
    def no_compiler(*_):
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable")

    model = small(num_hidden_layers=2)
    right = list(generate_ids(model, [3, 1, 4], 12))
    monkeypatch.setattr(fused_module, "Launcher", no_compiler)
    with pytest.warns(UserWarning, match="Triton failed here .Failed to find C compiler"):
        assert list(generate_ids(FusedQwen2(model), [3, 1, 4], 12)) == right
