"""The contracts of lesson 31 accept every right answer and tell wrong ones in a clear sentence."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import DecoderLayer, Qwen2
from qwen2lite.train.cost import parameters
from tests.learn.verdict import verdict


class InADict(nn.Module):
    """One class, with a ModuleDict for the names."""

    def __init__(self, config, parts):
        super().__init__()
        count, self.parts, self.config = config.num_hidden_layers, parts, config
        self.model = nn.ModuleDict()
        self.model["embed_tokens"] = nn.Embedding(config.vocab_size, config.hidden_size)
        layers = [DecoderLayer(config, n, parts) for n in range(count)]
        self.model["layers"] = nn.ModuleList(layers)
        self.model["norm"] = parts.norm(config.hidden_size, config.rms_norm_eps)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def output(self):
        return getattr(self, "lm_head", self.model["embed_tokens"]).weight

    def forward(self, ids, cache=None):
        x, start = self.model["embed_tokens"](ids), 0 if cache is None else cache.length
        config, places = self.config, torch.arange(start, start + ids.shape[1])
        frequencies = self.parts.rotary_frequencies(config.head_dim, config.rope_theta)
        cos, sin = self.parts.rotary_tables(places, frequencies)
        for layer in self.model["layers"]:
            x = layer(x, cos.to(x.dtype), sin.to(x.dtype), cache=cache)
        if cache is not None:
            cache.length = start + ids.shape[1]
        return F.linear(self.model["norm"](x), self.output())


class WithASharedTensor(InADict):
    """Has an lm_head in any case; where it is tied, its weight is the embedding's."""

    def __init__(self, config, parts):
        super().__init__(config, parts)
        if config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            self.lm_head.weight = self.model["embed_tokens"].weight

    def output(self):
        return self.lm_head.weight


class InTwoClasses(Qwen2):
    """The package's own, under another name."""

    def forward(self, ids, cache=None):
        return self.model(ids, cache) @ self.output_weight_VD.T


def loaded_by_state_dict(model, tensors):
    wanted = dict(tensors)
    if model.config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    try:
        model.load_state_dict(wanted, strict=True)
    except RuntimeError as error:
        raise ValueError(str(error)) from None
    return model


def loaded_one_by_one(model, tensors):
    left = dict(tensors)
    for name, parameter in model.named_parameters():
        if name not in left or left[name].shape != parameter.shape:
            raise ValueError(f"{name} is missing or of another shape")
        parameter.data = left.pop(name)
    if left.keys() - {"lm_head.weight"}:
        raise ValueError(f"too much: {list(left)}")
    return model


def loaded_after_comparing(model, tensors):
    want = {name: tuple(p.shape) for name, p in model.named_parameters()}
    got = {name: tuple(t.shape) for name, t in tensors.items()}
    misfits = {name for name, _ in want.items() ^ got.items()}
    if not hasattr(model, "lm_head"):
        misfits.discard("lm_head.weight")
    if misfits:
        raise ValueError(", ".join(misfits))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[name])
    return model


def counted_by_modules(config, active=False):
    with torch.device("meta"):
        model = Qwen2(config)
    idle = config.num_experts - config.num_experts_per_tok if active else 0
    sparse = sum(config.is_sparse(n) for n in range(config.num_hidden_layers))
    an_expert = 3 * config.hidden_size * config.moe_intermediate_size
    return sum(p.numel() for p in model.parameters()) - sparse * idle * an_expert


def counted_in_a_loop(config, active=False):
    size, head = config.hidden_size, config.head_dim
    total = size * (1 + config.vocab_size * (2 - config.tie_word_embeddings))
    for number in range(config.num_hidden_layers):
        total += config.num_attention_heads * head * (2 * size + 1) + 2 * size
        total += config.num_key_value_heads * head * (2 * size + 2)
        widths = [config.intermediate_size]
        if config.is_sparse(number):
            count = config.num_experts_per_tok if active else config.num_experts
            widths = [config.moe_intermediate_size] * count
            widths.append(config.shared_expert_intermediate_size)
            total += size * config.num_experts + size
        total += sum(3 * size * width for width in widths)
    return total


def fits_one_by_one(config, count, memory):
    token = 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    left = memory - 2 * count
    return 0 if left < 0 else left // token


def fits_by_divmod(config, count, memory):
    heads = config.num_key_value_heads * config.head_dim
    tokens, _ = divmod(memory - count * 2, heads * 2 * 2 * config.num_hidden_layers)
    return max(tokens, 0)


def fits_by_halves(config, count, memory):
    numbers = config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return (memory // 2 - count) // 2 // numbers if memory > 2 * count else 0


def fits_in_floats(config, count, memory):
    numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    return int(max(0, memory / 2 - count) / numbers)


def ends_of_a_model(config):
    with torch.device("meta"):
        model = Qwen2(config)
    ends = {model.model.embed_tokens.weight, model.output_weight_VD}
    return sum(weight.numel() for weight in ends)


RIGHT = [
    ("language_model", InADict),
    ("language_model", WithASharedTensor),
    ("language_model", InTwoClasses),
    ("mended_load", loaded_by_state_dict),
    ("mended_load", loaded_one_by_one),
    ("mended_load", loaded_after_comparing),
    ("embedding_parameters", lambda c: c.vocab_size * c.hidden_size * (2 - c.tie_word_embeddings)),
    ("embedding_parameters", lambda c: c.hidden_size * c.vocab_size << (not c.tie_word_embeddings)),
    ("embedding_parameters", ends_of_a_model),
    ("count_parameters", counted_by_modules),
    ("count_parameters", counted_in_a_loop),
    ("count_parameters", lambda config, active=False: parameters(config, active)),
    ("tokens_that_fit", fits_one_by_one),
    ("tokens_that_fit", fits_by_divmod),
    ("tokens_that_fit", fits_by_halves),
    ("tokens_that_fit", fits_in_floats),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


class NotNamed(nn.Module):
    def __init__(self, config, parts):
        super().__init__()
        self.decoder = Qwen2(config, parts).model


class Scaled(InTwoClasses):
    """Embeddings times the root of D, as Gemma has it."""

    def forward(self, ids, cache=None):
        return super().forward(ids, cache) * 2


class WithTablesOfThePackage(InADict):
    """Hands its parts on to the layers, and makes the tables by what it imports."""

    def __init__(self, config, parts):
        super().__init__(config, parts)
        self.parts = Parts()


class Deaf(InTwoClasses):
    def forward(self, ids, cache=None):
        return super().forward(ids)


class Detached(InTwoClasses):
    def forward(self, ids, cache=None):
        return super().forward(ids, cache).detach()


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("language_model", lambda config, parts: "a model", "is a str"),
        ("language_model", NotNamed, "lacks lm_head.weight"),
        ("language_model", Scaled, "the logits are wrong"),
        ("language_model", Deaf, "pieces of 4, 2 and 1"),
        ("language_model", Detached, "stops the gradient"),
        ("language_model", WithTablesOfThePackage, "another `rotary_frequencies`"),
        ("mended_load", lambda model, tensors: dict(model.named_parameters()), "returned a dict"),
        ("mended_load", lambda model, tensors: model, "doesn't hold its tensor"),
        ("embedding_parameters", lambda config: config.vocab_size * 4.0, "whole number"),
        ("embedding_parameters", lambda config: 7, "it is 40, and yours is 7"),
        ("count_parameters", lambda config, active=False: 180, "qwen2-0.5b it is 494,032,768"),
        ("count_parameters", lambda config, active=False: parameters(config), "one token"),
        ("tokens_that_fit", lambda config, count, memory: 10, "it is 9, and yours is 10"),
        ("tokens_that_fit", lambda c, n, m: (m - 2 * n) / 12288, "whole number"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


def silent(model, tensors):
    for name, parameter in model.named_parameters():
        if name not in tensors:
            raise ValueError("something is missing")
        parameter.data.copy_(tensors[name])
    return model


def with_a_key_error(model, tensors):
    for name, parameter in model.named_parameters():
        parameter.data.copy_(tensors[name])
    return model


def test_an_error_has_to_name_the_tensor_and_to_be_a_value_error():
    assert "doesn't name it" in verdict("mended_load", silent).wrong
    assert "it raised KeyError" in verdict("mended_load", with_a_key_error).wrong
