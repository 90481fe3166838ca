"""What a step of AdamW, clipping and the groups of parameters have to do.

Expected values are by hand: a first step as long as the learning rate, and a gradient of norm 6.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from qwen2lite.learn.contract import (
    Mistake,
    call,
    describe,
    numbers,
    random_normal,
    require_tensor,
    same,
    told_by,
    usual_reason,
)
from qwen2lite.learn.mutants.optimizer import MUTANTS, packages_step
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Qwen2

Part = Callable[..., Any]


def check_adamw_step(adamw_step: Part) -> Iterator[str]:
    """A first step by hand, decay alone by hand, and a third step against the package's."""
    warm_up_pytorch()
    # Everything counts in this one: each usual mistake gives numbers of its own.
    third = (
        *(random_normal(2, 3), random_normal(2, 3, seed=1)),
        *(random_normal(2, 3, seed=2), random_normal(2, 3, seed=3).square()),
        *(3, 0.1, (0.9, 0.95), 0.3, 0.2),
    )
    got = call(adamw_step, *third)
    _require_state(got)
    why = usual_reason(MUTANTS["adamw_step"], tuple(got), *third)
    yield "weight, mean and square come back, each of the weight's shape"
    yield from _check_by_hand(adamw_step, why)
    for name, mine, wanted in zip(
        ("weight", "mean", "square"), got, packages_step(*third), strict=True
    ):
        if not same(mine, wanted):
            raise Mistake(
                f"In a third step the {name} is {numbers(mine)}, and should be {numbers(wanted)}.",
                why
                or "Decay, the two means, their corrections with β^step, root, eps: one by one.",
            )
    yield "a third step, with decay and a large eps, is PyTorch's"


def _check_by_hand(adamw_step: Part, why: str) -> Iterator[str]:
    zeros, gradient = torch.zeros(3), torch.tensor([1e-3, -1.0, 1e3])
    got = call(adamw_step, torch.ones(3), gradient, zeros, zeros, 1, 0.1, (0.9, 0.95), 1e-12, 0.0)
    step = "After a first step of lr 0.1 from weights of 1 with gradients of 0.001, -1 and 1000"
    _require(got[0], [0.9, 1.1, 0.9], f"{step}, the weights are", why)
    _require(got[1], [1e-4, -0.1, 100.0], f"{step} and β1 = 0.9, the mean is", why)
    _require(got[2], [5e-8, 0.05, 5e4], f"{step} and β2 = 0.95, the square is", why)
    yield "the first step is as long as the learning rate, whatever the gradient"

    zeros = torch.zeros(2)
    weight, settings = torch.tensor([2.0, -1.0]), (1, 0.1, (0.9, 0.95), 1e-8, 0.5)
    got = call(adamw_step, weight, zeros, zeros, zeros, *settings)
    step = "After a step with gradient 0, lr 0.1 and weight_decay 0.5 from weights of 2 and -1"
    _require(got[0], [1.9, -0.95], f"{step}, they are", why)
    yield "a weight without a gradient loses the share lr · weight_decay"


def _require_state(got: Any) -> None:
    if not isinstance(got, tuple | list) or len(got) != 3:
        raise Mistake(
            f"adamw_step returned {describe(got)}; three tensors were wanted.",
            "Return the new weight, the new mean and the new square, in this order.",
        )
    for name, tensor in zip(("weight", "mean", "square"), got, strict=True):
        require_tensor(tensor, [2, 3], torch.float32, f"adamw_step, as the new {name},")


def _require(got: torch.Tensor, want: list[float], what: str, why: str) -> None:
    wanted = torch.tensor(want)
    if not torch.allclose(got.detach(), wanted, rtol=1e-4, atol=0.0):
        raise Mistake(f"{what} {_digits(got)}; wanted {_digits(wanted)}.", why)


def _digits(tensor: torch.Tensor) -> str:
    return f"[{', '.join(f'{value:.4g}' for value in tensor.flatten().tolist())}]"


def check_clip_gradients(clip_gradients: Part) -> Iterator[str]:
    """Gradients (2, -4) and -4 in two tensors, of norm 6: halved, then left alone."""
    got = _seen_of_clipping(clip_gradients)
    why = why_of("clip_gradients", _seen_of_clipping, got)
    # One may divide by the norm and a little more, so it isn't exact to the last digit.
    if abs(float(got[0]) - 6) > 1e-3:
        raise Mistake(f"(2, -4) and -4 have the norm 6; the one returned is {got[0]:.4g}.", why)
    yield "gradients (2, -4) and -4 of two tensors have the norm 6, and that is returned"
    if not torch.allclose(got[1:4], torch.tensor([1.0, -2.0, -2.0]), rtol=1e-3):
        raise Mistake(
            f"Clipped to 3, (2, -4) and -4 become (1, -2) and -2; here they are "
            f"{numbers(got[1:3])} and {numbers(got[3])}.",
            why,
        )
    yield "clipped to 3 they are (1, -2) and -2: half as long, in the same direction"
    if not torch.allclose(got[4:8], torch.tensor([3.0, 1.0, -2.0, -2.0]), rtol=1e-3):
        raise Mistake(
            f"(1, -2) and -2 are shorter than 100 and should stay; they became "
            f"{numbers(got[5:7])} and {numbers(got[7])}.",
            why,
        )
    yield "what is short enough stays as it is"
    if not torch.allclose(got[8:], torch.tensor([6.0, 1.0, -2.0, -2.0]), rtol=1e-3):
        raise Mistake(
            f"Given as an iterator, like model.parameters(), (2, -4) and -4 become "
            f"{numbers(got[9:11])} and {numbers(got[11])}, with a norm of {got[8]:.4g}.",
            why,
        )
    yield "parameters may be an iterator, which can be gone through only once"


def _seen_of_clipping(part: Part) -> torch.Tensor:
    """Norm and gradients after clipping to 3, then to 100, and anew to 3 from an iterator."""
    weight, bias, idle = parameters = [nn.Parameter(torch.zeros(size)) for size in (2, 1, 1)]
    seen = []
    for longest, given in ((3.0, parameters), (100.0, parameters), (3.0, iter(parameters))):
        if longest == 3:
            weight.grad, bias.grad = torch.tensor([2.0, -4.0]), torch.tensor([-4.0])
        norm = call(part, given, longest, name="clip_gradients")
        if not isinstance(norm, float | torch.Tensor) or torch.as_tensor(norm).numel() != 1:
            raise Mistake(
                f"clip_gradients returned {describe(norm)}; the norm, one number, was wanted."
            )
        if weight.grad is None or bias.grad is None or idle.grad is not None:
            raise Mistake(
                "A gradient is missing afterwards, or a parameter got one that had none.",
                "Change the gradients that are there, and pass over those that are None.",
            )
        seen += [float(norm), *weight.grad.tolist(), *bias.grad.tolist()]
    return torch.tensor(seen)


def check_parameter_groups(parameter_groups: Part) -> Iterator[str]:
    """Each parameter of a small Qwen2 in one group; the matrices decay and nothing else does."""
    for tied in (True, False):
        model = Qwen2(_small(tied))
        names = {id(parameter): name for name, parameter in model.named_parameters()}

        def probe(part: Part) -> dict[str, float]:
            return _decays(call(part, model, 0.25, name="parameter_groups"), names)  # noqa: B023

        got = probe(parameter_groups)
        want = {
            name: 0.25 if name.endswith("proj.weight") or name == "lm_head.weight" else 0.0
            for name in names.values()
        }
        if got != want:
            raise Mistake(_first_difference(got, want), why_of("parameter_groups", probe, got))
        head = "the embedding is the output layer" if tied else "with an output layer of its own"
        yield f"matrices decay; norms, biases and the embedding don't ({head})"


def _small(tied: bool) -> Qwen2Config:
    return Qwen2Config(
        vocab_size=20, hidden_size=8, intermediate_size=12, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip


def _decays(groups: Any, names: dict[int, str]) -> dict[str, float]:
    """The decay of each parameter by its name, from groups as an optimizer takes them."""
    if not isinstance(groups, list | tuple) or not all(
        isinstance(g, dict) and {"params", "weight_decay"} <= g.keys() for g in groups
    ):
        raise Mistake(
            f"parameter_groups returned {describe(groups)}; a list of dicts was wanted.",
            'Each is {"params": [...], "weight_decay": ...}, as PyTorch\'s optimizers take them.',
        )
    found: dict[str, float] = {}
    for group in groups:
        for parameter in group["params"]:
            name = names.get(id(parameter))
            if name is None:
                raise Mistake(
                    f"A group holds {describe(parameter)}, which is no parameter of the model.",
                    "Put the parameters themselves in, not their names and not copies.",
                )
            if name in found:
                raise Mistake(
                    f"{name} is in the groups twice, and PyTorch refuses that.",
                    "What went into one group has to be left out of the other.",
                )
            found[name] = float(group["weight_decay"])
    return found


def _first_difference(got: dict[str, float], want: dict[str, float]) -> str:
    name = next(name for name in want if got.get(name) != want[name])
    if name not in got:
        return f"{name} is in no group, so it is never trained."
    return f"{name} has weight_decay {got[name]:g}, and should have {want[name]:g}."


def warm_up_pytorch() -> None:
    """Makes an optimizer. The first one lets PyTorch import for seconds, which must not be taken for
    an endless loop of the learner's."""
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])


def why_of(name: str, probe: Callable[[Part], Any], got: Any) -> str:
    """What the known mistake says of itself that makes a probe see the same, or "".

    For parts that work on things other than tensors, where `usual_reason` can't compare.

    Args:
        name: of the part.
        probe: uses a part on something fresh and returns what it saw.
        got: what it saw of the learner's.
    """
    for mutant in MUTANTS[name]:
        try:
            wrong = probe(mutant)
        except Exception:  # a mutant may be unable to answer; then it is not this mistake
            continue
        if same(got, wrong) if isinstance(got, torch.Tensor) else got == wrong:
            return told_by(mutant)
    return ""
