"""Generation on a small model: stops, limits, and the detours of the CPU."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from qwen2lite.infer import cpu
from qwen2lite.infer.generate import generate, generate_ids
from qwen2lite.infer.sample import Sampling
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer

TINY = Path(__file__).parents[2] / "data" / "qwen2-tiny"


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=30,
        initializer_range=0.5,
    )
    return Qwen2(config).eval()


def without_cache(model: Qwen2, ids: list[int], count: int) -> list[int]:
    """Greedy decoding in the slow and obvious way: read everything again for each token."""
    start = len(ids)
    for _ in range(count):
        ids = [*ids, int(model(torch.tensor([ids]))[0, -1].argmax())]
    return ids[start:]


def test_cached_decoding_gives_the_tokens_of_reading_everything_again(model):
    got = list(generate_ids(model, [3, 1, 4, 1, 5], max_new_tokens=20))
    assert got == without_cache(model, [3, 1, 4, 1, 5], 20)


def test_a_stop_token_ends_the_text_and_is_not_part_of_it(model):
    free = list(generate_ids(model, [3, 1, 4], max_new_tokens=12))
    stop = free[6]
    assert list(generate_ids(model, [3, 1, 4], 12, eos_ids={stop})) == free[: free.index(stop)]


def test_generation_ends_where_the_context_does(model):
    assert len(list(generate_ids(model, [1] * 25, max_new_tokens=99))) == 5


def test_text_comes_in_whole_characters_and_half_a_one_at_the_end(model):
    tokenizer = Qwen2Tokenizer.from_pretrained(TINY)
    written, asked = tokenizer.encode("a smile: 🙂 and 你好"), []

    def write_ids(*arguments):
        asked.append(arguments)
        return iter(written)

    pieces = list(generate(model, tokenizer, "Hello", 9, write_ids=write_ids))
    assert "".join(pieces) == "a smile: 🙂 and 你好" and "" not in pieces
    assert asked[0][:3] == (model, tokenizer.encode("Hello"), 9)
    assert asked[0][4] == tokenizer.eos_ids
    written.pop()
    bold = Sampling(temperature=99.0, seed=0)
    assert list(generate(model, tokenizer, [1, 2], 9, bold, {3}, write_ids))[-1] == "\ufffd"
    assert asked[1][1] == [1, 2] and asked[1][4] == {3}
    logits_BV, history_BT = torch.arange(50.0)[None], torch.zeros(1, 1, dtype=torch.long)
    greedy, drawn = ({int(a[3](logits_BV, history_BT)) for _ in range(9)} for a in asked)
    assert greedy == {49} and len(drawn) > 1


@pytest.mark.parametrize(
    ("prompt", "says"),
    [([], "empty"), ([1] * 30, "has 30 tokens"), ([1, 61], "id 61"), ([-1, 2], "id -1")],
)
def test_prompts_that_cannot_be_continued(model, prompt, says):
    with pytest.raises(ValueError, match=says):
        next(generate_ids(model, prompt))


def test_detours_give_the_same_products_and_leave_no_trace():
    x = torch.randn(3, 40).bfloat16()
    weight, bias = torch.randn(50, 40).bfloat16(), torch.randn(50).bfloat16()
    plain = F.linear(x, weight, bias)
    exact = F.linear(x.double(), weight.double(), bias.double())
    enabled = torch._C._get_mkldnn_enabled()
    for detour in (cpu.without_onednn, cpu.WideProducts):
        with detour():
            got = F.linear(x, weight, bias)
        assert got.dtype == torch.bfloat16
        assert (got - exact).abs().max() <= (plain - exact).abs().max() + 0.13  # half a step at 32
    assert torch._C._get_mkldnn_enabled() == enabled


def test_of_two_that_leave_onednn_the_last_turns_it_on_again():
    assert torch._C._get_mkldnn_enabled()
    first, second = cpu.without_onednn(), cpu.without_onednn()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch._C._get_mkldnn_enabled()
    second.__exit__(None, None, None)
    assert torch._C._get_mkldnn_enabled()


def test_fewer_than_no_tokens_are_refused(model):
    with pytest.raises(ValueError, match="max_new_tokens must be 0 or more, got -5"):
        next(generate_ids(model, [1, 2, 3], -5))
    assert list(generate_ids(model, [1, 2, 3], 0)) == []


def test_the_wide_detour_leaves_alone_what_it_does_not_know():
    x, weight, bias = torch.ones(3, 4).bfloat16(), torch.ones(2, 4).bfloat16(), torch.ones(2)
    bias = bias.bfloat16()
    with cpu.WideProducts():
        assert torch.equal(F.linear(x, weight, bias=bias), torch.full((3, 2), 5.0).bfloat16())
        assert torch.equal(F.linear(input=x, weight=weight), torch.full((3, 2), 4.0).bfloat16())
        assert torch.equal(F.linear(x[0], weight, bias), torch.full((2,), 5.0).bfloat16())
