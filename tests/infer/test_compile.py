"""Static decode steps give what the model gives, compiled or not; on a GPU recorded too."""

import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch

from qwen2lite import CONFIGS, Qwen2
from qwen2lite.infer import compile
from qwen2lite.infer.batch import generate_batch
from qwen2lite.infer.compile import CompiledQwen2
from qwen2lite.infer.generate import generate_ids
from qwen2lite.infer.packed import PackedQwen2
from qwen2lite.infer.quantized_products import Int4Linear
from qwen2lite.weights.export import export

SHAPE = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 600,
}  # fmt: skip
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
}


def small_model(**changes) -> Qwen2:
    torch.manual_seed(0)
    config = replace(CONFIGS["qwen2-0.5b"], **{**SHAPE, "initializer_range": 0.2, **changes})
    return Qwen2(config).eval()


@pytest.mark.parametrize("changes", [{}, EXPERTS], ids=["dense", "experts"])
def test_steps_of_fixed_shape_give_the_models_logits(changes):
    model = small_model(**changes)
    static = CompiledQwen2(model, with_compiler=False)
    ids_BT = torch.randint(0, 97, (2, 23), generator=torch.Generator().manual_seed(0))
    cache = static.new_cache(23, batch_size=2)
    with torch.inference_mode():
        pieces = [static(ids_BT[:, :9], cache).clone()]
        pieces += [static(ids_BT[:, t : t + 1], cache).clone() for t in range(9, 23)]
        difference = torch.cat(pieces, 1) - model(ids_BT)
    assert difference.abs().max() <= 2e-5  # float32, summed in another order


def test_what_an_earlier_text_left_in_the_cache_is_not_seen():
    model = small_model()
    static = CompiledQwen2(model, with_compiler=False)
    for prompt in ([1, 2, 3, 4, 5, 6, 7, 8, 9], [7], [9, 8]):
        right = list(generate_ids(model, prompt, 30))
        assert list(generate_ids(static, prompt, 30)) == right


def test_a_batch_of_left_padded_rows_gives_each_its_own_text():
    model = small_model()
    static = CompiledQwen2(model, with_compiler=False)
    prompts = [[1], [2, 3, 4, 5], [6, 7], [8, 9, 10], [11, 12, 13, 14, 15]]
    wanted = [list(generate_ids(model, prompt, 12)) for prompt in prompts]
    assert generate_batch(static, prompts, 12, rows=2) == wanted


def test_sizes_double_so_that_few_are_compiled():
    static = CompiledQwen2(small_model(), with_compiler=False)
    caches = [static.new_cache(length) for length in (10, 200, 256, 257, 600)]
    assert len({id(cache) for cache in caches}) == 3
    assert caches[-1].max_length == 600


def test_bad_input_is_refused_as_by_the_model():
    static = CompiledQwen2(small_model(), with_compiler=False)
    with pytest.raises(ValueError, match="601 tokens don't fit this model's context of 600"):
        static.new_cache(601)
    cache = static.new_cache(1)
    static(torch.tensor([[5]]), cache)
    with pytest.raises(ValueError, match="the cache has room for 1 tokens and would need 2"):
        static(torch.tensor([[5]]), cache)
    with pytest.raises(ValueError, match="token id 97 is outside the vocabulary"):
        static(torch.tensor([[97]]), static.new_cache(4))
    chunks = {"chunk_size": 8, "local_size": 4, "original_max_position_embeddings": 16}
    with pytest.raises(ValueError, match="dual chunk attention changes its shape"):
        CompiledQwen2(small_model(dual_chunk_attention_config=chunks))


def test_where_nothing_can_be_compiled_it_says_so_and_runs(monkeypatch):
    def no_compiler(run, **_):
        def fail():
            raise RuntimeError("no C++ compiler was found\nand a long trace")

        return fail

    monkeypatch.setattr(compile.torch, "compile", no_compiler)
    model = small_model()
    with pytest.warns(UserWarning, match=r"failed here \(no C\+\+ compiler was found\); it goes"):
        got = list(generate_ids(CompiledQwen2(model), [1, 2, 3], 9))
    assert got == list(generate_ids(model, [1, 2, 3], 9))


@pytest.mark.parametrize("quantised", [False, True], ids=["as it is", "int4"])
def test_compiled_steps_write_the_same_tokens(quantised):
    model = small_model()
    if quantised:
        model = PackedQwen2(model.bfloat16(), Int4Linear)
    with_compiler = CompiledQwen2(model)
    with torch.no_grad():
        for prompt in ([1, 2, 3], [4, 5, 6, 7, 8]):
            got = list(generate_ids(with_compiler, prompt, 20))
            assert got == list(generate_ids(model, prompt, 20))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="not checked: there is no GPU here")
@pytest.mark.parametrize("with_compiler", [False, True])
def test_a_recorded_step_writes_the_same_tokens_on_a_gpu(with_compiler):
    model = small_model().cuda()
    recorded = CompiledQwen2(model, with_compiler)
    for prompt in ([1, 2, 3], [4, 5, 6, 7, 8], [9]):
        right = list(generate_ids(model, prompt, 30))
        assert list(generate_ids(recorded, prompt, 30)) == right


@pytest.mark.skipif(not torch.cuda.is_available(), reason="not checked: there is no GPU here")
@pytest.mark.parametrize("recorded", [False, True])
def test_a_batch_on_a_gpu_gives_each_its_own_text(recorded):
    model = small_model().cuda()
    prompts, limits = [[n + 1] * (n % 5 + 1) for n in range(12)], [3, 40, 17] * 4
    stops = {5, 7}
    wanted = [
        list(generate_ids(model, prompt, limit, eos_ids=stops))
        for prompt, limit in zip(prompts, limits, strict=True)
    ]
    batched = CompiledQwen2(model, with_compiler=False) if recorded else model
    assert generate_batch(batched, prompts, limits, eos_ids=stops, rows=4) == wanted


def test_any_number_of_batch_sizes_is_compiled(monkeypatch):
    """PyTorch compiles eight forms of a function, and all steps are one to it."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    static, ids_BT = CompiledQwen2(small_model()), torch.tensor([[1]])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for rows in range(1, 12):
            static(ids_BT.expand(rows, 1), static.new_cache(8, rows))


def test_what_the_context_cannot_hold_is_refused_each_time():
    static = CompiledQwen2(small_model(max_position_embeddings=300), with_compiler=False)
    static.new_cache(290)
    with pytest.raises(ValueError, match="400 tokens don't fit this model's context of 300"):
        static.new_cache(400)
    with pytest.raises(ValueError, match="token ids must have shape"):
        static(torch.tensor([1]), static.new_cache(5))


def test_an_output_layer_of_its_own_is_exported_under_its_name(tmp_path):
    model = small_model(tie_word_embeddings=False)
    folder = export(CompiledQwen2(model, with_compiler=False), tmp_path / "model")
    again = Qwen2.from_pretrained(folder, torch.float32, "cpu")
    assert torch.equal(again.output_weight_VD, model.output_weight_VD)
