"""What the exercise 26_block asks beside the layer: one sum, a mended layer, a lens, a measurement."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from qwen2lite.learn.checks.block import Halve, PlusOne, TimesFour, random_layer, tables
from qwen2lite.learn.contract import (
    Mistake,
    call,
    numbers,
    random_normal,
    require_gradient,
    require_tensor,
    same,
    usual_reason,
)
from qwen2lite.learn.mutants.block_tasks import MUTANTS
from qwen2lite.model.norm import RMSNorm

Part = Callable[..., Any]


def _bare_norm(x: torch.Tensor) -> torch.Tensor:
    return x / x.square().mean(-1, keepdim=True).sqrt()


def _spread(copy_BTD: torch.Tensor) -> torch.Tensor:
    """Reads the first number, writes 30 times of it in the first place and 50 times in the second."""
    return copy_BTD[..., :1] * torch.tensor([30.0, 50.0])


def check_add_update(add_update: Part) -> Iterator[str]:
    """One vector by hand, then random ones, and the gradient."""
    x_BTD = torch.tensor([[[1.0, 7.0]]])
    got = call(add_update, x_BTD, _bare_norm, _spread)
    why = usual_reason(MUTANTS["add_update"], got, x_BTD, _bare_norm, _spread)
    require_tensor(got, [1, 1, 2], torch.float32, "add_update", why)
    if not same(got, torch.tensor([[[7.0, 17.0]]])):
        raise Mistake(
            "The stream [1, 7] has the copy [0.2, 1.4]. Work that writes (30, 50) times its first "
            f"number makes the update [6, 10], and the stream [7, 17]; got {numbers(got)}.",
            why,
        )
    yield "[1, 7] and the update [6, 10] make [7, 17]"

    norm, work = RMSNorm(6), nn.Linear(6, 6, bias=False)
    with torch.no_grad():
        norm.weight.copy_(random_normal(6))
        work.weight.copy_(random_normal(6, 6, seed=1))
    leaf = random_normal(2, 3, 6, seed=2).requires_grad_()
    got = call(add_update, leaf, norm, work)
    why = usual_reason(MUTANTS["add_update"], got, leaf, norm, work)
    require_tensor(got, [2, 3, 6], torch.float32, "add_update", why)
    if not same(got, leaf + work(norm(leaf)), 1e-4):
        raise Mistake("With a random norm and a random matrix, it is wrong.", why)
    require_gradient(got, {"its input": leaf, "the work": work.weight}, "add_update")
    yield "right with a random matrix, and gradients pass"


def check_mended_layer(mended_layer: Part) -> Iterator[str]:
    """One number by hand, then a layer with random weights."""
    layer = SimpleNamespace(
        input_layernorm=Halve(),
        self_attn=PlusOne(),
        post_attention_layernorm=Halve(),
        mlp=TimesFour(),
        layer=0,
    )
    given = (torch.full((1, 1, 1), 4.0), *tables(1))
    got = call(mended_layer, layer, *given)
    why = usual_reason(MUTANTS["mended_layer"], got, layer, *given)
    require_tensor(got, [1, 1, 1], torch.float32, "mended_layer", why)
    if not same(got, torch.full((1, 1, 1), 21.0)):
        raise Mistake(
            "With a norm that halves, attention that adds 1 to what it reads, and an MLP that takes "
            "it four times, the stream goes from 4 to 4 + (2 + 1) = 7 and to 7 + 4 · 3.5 = 21; "
            f"got {numbers(got)}.",
            why,
        )
    yield "4 becomes 4 + 3 = 7, then 7 + 14 = 21"

    real = random_layer()
    given = (random_normal(2, 5, 12), *tables(5))
    got = call(mended_layer, real, *given)
    why = usual_reason(MUTANTS["mended_layer"], got, real, *given)
    require_tensor(got, [2, 5, 12], torch.float32, "mended_layer", why)
    if not same(got, real(*given), 1e-4):
        raise Mistake("On a layer with random weights it is wrong.", why)
    yield "the same as the package's layer, on random weights"


def check_logit_lens(logit_lens: Part) -> Iterator[str]:
    """Two layers by hand, then random ones with weights in the norm."""
    stream_LTD = torch.tensor([[[1.0, 7.0]], [[7.0, 17.0]]])
    output_VD = torch.tensor([[65.0, 0.0], [0.0, 65.0], [65.0, -65.0]])
    got = call(logit_lens, stream_LTD, _bare_norm, output_VD)
    why = usual_reason(MUTANTS["logit_lens"], got, stream_LTD, _bare_norm, output_VD)
    require_tensor(got, [2, 1, 3], torch.float32, "logit_lens", why)
    want = torch.tensor([[[13.0, 91.0, -78.0]], [[35.0, 85.0, -50.0]]])
    if not same(got, want):
        raise Mistake(
            "The streams [1, 7] and [7, 17], divided by 5 and by 13, meet the rows [65, 0], [0, 65] "
            f"and [65, -65]: {numbers(want)}; got {numbers(got)}.",
            why,
        )
    yield "[1, 7] / 5 and [7, 17] / 13, by hand"

    norm = RMSNorm(6)
    with torch.no_grad():
        norm.weight.copy_(random_normal(6).abs() + 1)
    stream_LTD, output_VD = random_normal(4, 3, 6, seed=1), random_normal(9, 6, seed=2)
    got = call(logit_lens, stream_LTD, norm, output_VD)
    why = usual_reason(MUTANTS["logit_lens"], got, stream_LTD, norm, output_VD)
    require_tensor(got, [4, 3, 9], torch.float32, "logit_lens", why)
    if not same(got, norm(stream_LTD) @ output_VD.T, 1e-4):
        raise Mistake("On random streams, with weights in the norm, it is wrong.", why)
    yield "four layers and three tokens, with weights in the norm"


def check_relative_updates(relative_updates: Part) -> Iterator[str]:
    """Two tokens and a loud first one by hand, then random streams, token by token."""
    before = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 10.0]])
    after = torch.tensor([[1000.0, 0.0], [6.0, 8.0], [3.0, 14.0]])
    stream_LTD = torch.stack((before, after))
    got = call(relative_updates, stream_LTD)
    why = usual_reason(MUTANTS["relative_updates"], got, stream_LTD)
    require_tensor(got, [1], torch.float32, "relative_updates", why)
    if not same(got, torch.tensor([0.75])):
        raise Mistake(
            "[3, 4] gets the update [3, 4], as long as itself; [0, 10] gets [3, 4], half as long; "
            f"the first token doesn't count. The mean is 0.75; got {numbers(got)}.",
            why,
        )
    yield "an update of all and one of a half: 0.75, without the first token"

    stream_LTD = random_normal(4, 5, 6)
    got = call(relative_updates, stream_LTD)
    why = usual_reason(MUTANTS["relative_updates"], got, stream_LTD)
    require_tensor(got, [3], torch.float32, "relative_updates", why)
    want = torch.zeros(3)
    for layer in range(3):
        for token in range(1, 5):
            update = stream_LTD[layer + 1, token] - stream_LTD[layer, token]
            want[layer] += (update @ update / (stream_LTD[layer, token] ** 2).sum()).sqrt() / 4
    if not same(got, want, 1e-4):
        raise Mistake("On random streams of three layers and five tokens it is wrong.", why)
    yield "one number for each layer"
