"""Wrong answers to the tasks of the exercise 26_block beside the layer."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from qwen2lite.learn.mutants.block import AttentionForgotten, NormAfter, OneNormTwice, SideBySide

Work = Callable[[Tensor], Tensor]


def not_added(x_BTD: Tensor, norm: Work, work: Work) -> Tensor:
    """This is the update alone. The new stream is the old one *plus* the update."""
    return work(norm(x_BTD))


def added_to_the_copy(x_BTD: Tensor, norm: Work, work: Work) -> Tensor:
    """The update is added to the normed copy. It belongs to the stream as it came in (RiNALMo #9)."""
    copy_BTD = norm(x_BTD)
    return copy_BTD + work(copy_BTD)


def without_the_norm(x_BTD: Tensor, norm: Work, work: Work) -> Tensor:
    """The work reads the stream itself. It reads a normed copy, however loud the stream has become."""
    return x_BTD + work(x_BTD)


def norm_of_the_update(x_BTD: Tensor, norm: Work, work: Work) -> Tensor:
    """The update is normed. The norm comes before the work, and the update is added as it is: a
    layer may say little or much."""
    return x_BTD + norm(work(x_BTD))


def norm_of_the_sum(x_BTD: Tensor, norm: Work, work: Work) -> Tensor:
    """The sum is normed: that is post-norm, the order of the first transformer. In pre-norm nothing
    on the stream itself is ever normed."""
    return norm(x_BTD + work(x_BTD))


def update_doubled(x_BTD: Tensor, norm: Work, work: Work) -> Tensor:
    """The update is added to itself, since it has taken the stream's name: `x = x + x` (BitNet #32)."""
    x_BTD = work(norm(x_BTD))
    return x_BTD + x_BTD


def overwritten_stream(layer: Any, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The normed copy takes the stream's name, so the update is added to the copy, and the stream
    is lost (pytorch #61165, faster-trajectory-transformer #3)."""
    x_BTD = layer.input_layernorm(x_BTD)
    x_BTD = x_BTD + layer.self_attn(x_BTD, cos, sin)
    x_BTD = layer.post_attention_layernorm(x_BTD)
    return x_BTD + layer.mlp(x_BTD)


def _as_function(wrong: Any) -> Callable[..., Any]:
    def forward(layer: Any, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return wrong.forward(layer, x_BTD, cos, sin)

    forward.__name__, forward.__doc__ = wrong.__name__, wrong.__doc__
    return forward


def stream_not_normed(stream_LTD: Tensor, norm: Work, output_VD: Tensor) -> Tensor:
    """The last norm is missing. The output matrix has learnt to read normed vectors, and without it
    a loud stream makes loud logits (asked in DoLa #9)."""
    return stream_LTD @ output_VD.T


def last_scale_for_all(stream_LTD: Tensor, norm: Work, output_VD: Tensor) -> Tensor:
    """All layers are divided by what the last one is divided by. The stream grows, so early layers
    become faint and their answers all alike. Each has its own root mean square (TransformerLens
    #1076)."""
    scale = norm(stream_LTD[-1:]) / stream_LTD[-1:]
    return stream_LTD * scale @ output_VD.T


def shares_in_place_of_logits(stream_LTD: Tensor, norm: Work, output_VD: Tensor) -> Tensor:
    """These are shares, after a softmax. Wanted are the logits before it."""
    return (norm(stream_LTD) @ output_VD.T).softmax(-1)


def only_the_last(stream_LTD: Tensor, norm: Work, output_VD: Tensor) -> Tensor:
    """Only the last layer is read. The lens reads the stream after every layer."""
    return norm(stream_LTD[-1:]) @ output_VD.T


def first_token_too(stream_LTD: Tensor) -> Tensor:
    """The first token is in the mean. Its stream jumps a hundredfold and drowns all others; leave
    it out."""
    steps = (stream_LTD[1:] - stream_LTD[:-1]).norm(dim=-1)
    return (steps / stream_LTD[:-1].norm(dim=-1)).mean(-1)


def by_the_stream_after(stream_LTD: Tensor) -> Tensor:
    """The update is divided by the stream *after* the layer. Wanted: by the one that it was added
    to."""
    return first_token_too(stream_LTD[:, 1:].flip(0)).flip(0)


def growth_alone(stream_LTD: Tensor) -> Tensor:
    """This is by how much the norm changes. An update that turns the stream changes it too, though
    its norm stays; take the norm of the difference, not the difference of the norms."""
    sizes = stream_LTD[:, 1:].norm(dim=-1)
    return ((sizes[1:] - sizes[:-1]).abs() / sizes[:-1]).mean(-1)


def ratio_of_the_means(stream_LTD: Tensor) -> Tensor:
    """The mean update is divided by the mean stream, so a loud token counts more than a quiet one.
    Divide token by token, then take the mean."""
    steps = (stream_LTD[1:, 1:] - stream_LTD[:-1, 1:]).norm(dim=-1)
    return steps.mean(-1) / stream_LTD[:-1, 1:].norm(dim=-1).mean(-1)


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "add_update": (
        not_added,
        added_to_the_copy,
        without_the_norm,
        norm_of_the_update,
        norm_of_the_sum,
        update_doubled,
    ),
    "mended_layer": (
        overwritten_stream,
        *map(_as_function, (NormAfter, OneNormTwice, AttentionForgotten, SideBySide)),
    ),
    "logit_lens": (stream_not_normed, last_scale_for_all, shares_in_place_of_logits, only_the_last),
    "relative_updates": (first_token_too, by_the_stream_after, growth_alone, ratio_of_the_means),
}
"""The wrong versions of each task."""
