"""The contracts of lesson 26 accept every right answer and tell wrong ones in a clear sentence."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from qwen2lite.learn.mutants import block
from qwen2lite.model.qwen2 import DecoderLayer
from qwen2lite.model.rope import apply_rope
from tests.learn.verdict import verdict


class ByNames(nn.Module):
    """The usual one: everything is an attribute."""

    def __init__(self, config, number, parts):
        super().__init__()
        self.input_layernorm = parts.norm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = parts.attention(config, parts.apply_rope, parts.attend)
        self.post_attention_layernorm = parts.norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = parts.mlp(config.hidden_size, config.intermediate_size)
        self.number = number

    def forward(self, x, cos, sin, mask=None, cache=None):
        update = self.self_attn(self.input_layernorm(x), cos, sin, mask, cache, self.number)
        between = x + update
        return between + self.mlp(self.post_attention_layernorm(between))


class ByResiduals(ByNames):
    """Keeps the stream aside, as transformers writes it."""

    def forward(self, x, cos, sin, mask=None, cache=None):
        residual = x
        x = self.input_layernorm(x)
        x = self.self_attn(x, cos, sin, mask=mask, cache=cache, layer=self.number)
        x = residual + x
        residual = x
        x = self.post_attention_layernorm(x)
        return residual + self.mlp(x)


class ByKeywords(ByNames):
    """Names what it hands on to attention."""

    def __init__(self, config, number, parts):
        super().__init__(config, number, parts)
        given = {"apply_rope": parts.apply_rope, "attend": parts.attend}
        self.self_attn = parts.attention(config, **given)


class ByTheSum(ByNames):
    """Collects the updates and adds them to the stream at the end."""

    def forward(self, x, cos, sin, mask=None, cache=None):
        updates = [self.self_attn(self.input_layernorm(x), cos, sin, mask, cache, self.number)]
        updates.append(self.mlp(self.post_attention_layernorm(x + updates[0])))
        return torch.stack([x, *updates]).sum(0)


def mended_by_names(layer, x, cos, sin):
    x = x + layer.self_attn(layer.input_layernorm(x), cos, sin)
    return x + layer.mlp(layer.post_attention_layernorm(x))


def mended_by_residuals(layer, x, cos, sin):
    return ByResiduals.forward(LayerNumber(layer), x, cos, sin)


class LayerNumber:
    """A layer with the attribute that `ByResiduals` wants."""

    def __init__(self, layer):
        self.number = 0
        for name in ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp"):
            setattr(self, name, getattr(layer, name))


def mended_by_copies(layer, x, cos, sin):
    copy = layer.input_layernorm(x)
    stream = torch.add(layer.self_attn(copy, cos, sin), x)
    copy = layer.post_attention_layernorm(stream)
    return torch.add(layer.mlp(copy), stream)


def lens_by_loop(stream, norm, output):
    return torch.cat([F.linear(norm(layer), output) for layer in stream.split(1)])


def updates_by_loop(stream):
    ratios = []
    for before, after in itertools.pairwise(stream):
        pairs = zip(before[1:], after[1:], strict=True)
        ratios.append(torch.stack([(b - a).norm() / a.norm() for a, b in pairs]).mean())
    return torch.stack(ratios)


def updates_by_diff(stream):
    later = stream[:, 1:]
    return (later.diff(dim=0).norm(dim=-1) / later[:-1].norm(dim=-1)).mean(dim=1)


def updates_by_squares(stream):
    later = stream[:, 1:]
    squares = later.diff(dim=0).square().sum(-1) / later[:-1].square().sum(-1)
    return squares.sqrt().mean(-1)


RIGHT = [
    ("add_update", lambda x, norm, work: x + work(norm(x))),
    ("add_update", lambda x, norm, work: torch.add(work(norm(x)), x)),
    ("add_update", lambda x, norm, work: torch.stack((x, work(norm(x)))).sum(0)),
    ("decoder_layer", ByNames),
    ("decoder_layer", ByResiduals),
    ("decoder_layer", ByKeywords),
    ("decoder_layer", ByTheSum),
    ("decoder_layer", DecoderLayer),
    ("mended_layer", mended_by_names),
    ("mended_layer", mended_by_residuals),
    ("mended_layer", mended_by_copies),
    ("logit_lens", lens_by_loop),
    ("logit_lens", lambda stream, norm, output: F.linear(norm(stream), output)),
    ("logit_lens", lambda s, norm, output: torch.einsum("ltd,vd->ltv", norm(s), output)),
    ("relative_updates", updates_by_loop),
    ("relative_updates", updates_by_diff),
    ("relative_updates", updates_by_squares),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


class NoSecondNorm(ByNames):
    def __init__(self, config, number, parts):
        super().__init__(config, number, parts)
        self.post_attention_layernorm = self.input_layernorm


class OwnAttention(ByNames):
    """Right with the package's parts, and deaf to others."""

    def __init__(self, config, number, parts):
        super().__init__(config, number, type(parts)())


class OwnRope(ByNames):
    """Takes the package's apply_rope, and all else from the parts."""

    def __init__(self, config, number, parts):
        super().__init__(config, number, parts)
        self.self_attn = parts.attention(config, apply_rope, parts.attend)


class AlwaysOne(ByNames):
    def __init__(self, config, number, parts):
        super().__init__(config, 1, parts)


class ForgetsInPieces(ByNames):
    def forward(self, x, cos, sin, mask=None, cache=None):
        if cache is not None:
            nothing = torch.zeros(2, 1, x.shape[1], 4)
            cache.update(self.number, nothing, nothing)
        return super().forward(x, cos, sin, mask)


class InPlace(ByNames):
    def forward(self, x, cos, sin, mask=None, cache=None):
        x += self.self_attn(self.input_layernorm(x), cos, sin, mask, cache, self.number)
        return x + self.mlp(self.post_attention_layernorm(x))


class Detached(ByNames):
    def forward(self, x, cos, sin, mask=None, cache=None):
        return super().forward(x.detach(), cos, sin, mask, cache)


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("add_update", lambda x, norm, work: (x + work(norm(x)))[0], "float32 [1, 2]"),
        ("add_update", lambda x, norm, work: x + 2 * work(norm(x)), "got [13, 27]"),
        ("add_update", lambda x, norm, work: x + work(x / x[..., 1:] * 1.4), "it is wrong"),
        ("add_update", lambda x, norm, work: x.add_(work(norm(x))), "changed a tensor"),
        ("add_update", lambda x, norm, work: (x + work(norm(x))).detach(), "stops the gradient"),
        ("decoder_layer", lambda config, number, parts: nn.Linear(3, 3), "lacks input_layernorm"),
        ("decoder_layer", OwnAttention, "21; got"),
        ("decoder_layer", OwnRope, "made with apply_rope and other_attend; wanted are parts."),
        ("decoder_layer", AlwaysOne, "Layer 0 wrote to the place of layer 1"),
        ("decoder_layer", InPlace, "changed a tensor"),
        ("decoder_layer", Detached, "no gradient through to its input"),
        ("decoder_layer", ForgetsInPieces, "in two pieces"),
        ("mended_layer", lambda layer, x, cos, sin: x + 1, "got [5]"),
        ("mended_layer", lambda layer, x, cos, sin: x * 5 + 1, "with random weights"),
        ("logit_lens", lambda s, norm, output: 2 * norm(s) @ output.T, "got [26, 182"),
        ("logit_lens", lambda s, norm, output: (norm(s) @ output.T).tolist(), "returned a list"),
        ("logit_lens", lambda s, n, o: s / s.square().mean(-1, True).sqrt() @ o.T, "On random"),
        ("relative_updates", lambda stream: torch.ones(1), "0.75; got [1]"),
        ("relative_updates", lambda stream: 0.75, "returned a float"),
        ("relative_updates", lambda stream: torch.full((len(stream) - 1,), 0.75), "On random"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong


def test_one_norm_for_both_is_told_by_its_weights():
    assert verdict("decoder_layer", NoSecondNorm).state == "wrong"


def test_a_mutant_has_the_names_of_the_checkpoint():
    assert all(issubclass(mutant, DecoderLayer) for mutant in block.MUTANTS["decoder_layer"])
