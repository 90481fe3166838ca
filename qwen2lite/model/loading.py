"""From a checkpoint's tensors to a model's parameters, one at a time, with every misfit named."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from qwen2lite.weights.checkpoint import Checkpoint
from qwen2lite.weights.published import published_parts, published_tensors

TIED = "lm_head.weight"
"""A tied checkpoint may store it a second time; the model then has no such parameter."""


class WithoutInitialising(TorchFunctionMode):
    """Inside this context `torch.nn.init` leaves its tensors as they are.

    For models on the meta device: the first random numbers asked of it make PyTorch import its
    symbolic shapes and sympy, which takes longer than loading the 0.5B.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Called by PyTorch in place of every function."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def load_weights(
    model: nn.Module, checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device
) -> None:
    """Gives every parameter of a model built on the meta device its tensor.

    Tensors are read, converted and placed one by one, so the peak is the model itself and one
    tensor more. What a tied checkpoint stores twice is left out.

    Args:
        model: on the meta device; its parameter names are the checkpoint's. Experts may be stacked.
        checkpoint: where the tensors come from.
        dtype: of the parameters afterwards.
        device: of the parameters afterwards.

    Raises:
        ValueError: a parameter without a tensor, a tensor without a parameter, another shape, or an
            output layer that is tied and stored with other numbers than the embedding.
    """
    _check_names_and_shapes(model, checkpoint)
    if TIED in checkpoint.shapes() and TIED not in dict(model.named_parameters()):
        _check_tied(checkpoint)
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        tensor = _read(checkpoint, name, tuple(parameter.shape), dtype).to(device)
        loaded = nn.Parameter(tensor, requires_grad=parameter.requires_grad)
        setattr(model.get_submodule(owner), leaf, loaded)


def _read(
    checkpoint: Checkpoint, name: str, shape: tuple[int, ...], dtype: torch.dtype
) -> torch.Tensor:
    parts = published_parts(name, shape)
    if name in parts:
        return checkpoint.tensor(name, dtype)
    stacked = torch.empty(shape, dtype=dtype)
    for part, index in parts.items():
        stacked[index] = checkpoint.tensor(part, dtype)
    return stacked


def _check_names_and_shapes(model: nn.Module, checkpoint: Checkpoint) -> None:
    found = checkpoint.shapes()
    wanted = {name: tuple(tensor.shape) for name, tensor in published_tensors(model).items()}
    for name, shape in wanted.items():
        if name not in found:
            raise ValueError(
                f"the checkpoint has no {name} {list(shape)}, which {_owner(model, name)} asks for; "
                "parameter names must be the checkpoint's, and config.json must describe its weights"
            )
        if found[name] != shape:
            raise ValueError(
                f"{name} has shape {list(found[name])} in the checkpoint, but {_owner(model, name)} "
                f"wants {list(shape)}; config.json and the weights are not of the same model"
            )
    extra = sorted(found.keys() - wanted.keys() - {TIED})
    if extra:
        owner = _owner(model, extra[0])
        raise ValueError(
            f"{owner} has no {extra[0]} {list(found[extra[0]])}, which the checkpoint holds"
            + (f" (and {len(extra) - 1} more)" if len(extra) > 1 else "")
        )


def _check_tied(checkpoint: Checkpoint) -> None:
    head, embedding = (
        checkpoint.tensor(name, torch.float32) for name in (TIED, "model.embed_tokens.weight")
    )
    if not torch.equal(head, embedding):
        raise ValueError(
            f"config.json ties the output layer to the embedding, and the checkpoint holds a {TIED} "
            "with other numbers; set tie_word_embeddings to false in config.json to use it, or take "
            "it out of the weights"
        )


def _owner(model: nn.Module, name: str) -> str:
    """The class nearest to a parameter that is a part of the model: 'SwiGLU of layer 3'."""
    module: nn.Module = model
    owner = type(model).__name__
    for step in name.split(".")[:-1]:
        found = getattr(module, step, module)
        module = found if isinstance(found, nn.Module) else module
        if not isinstance(module, nn.Linear | nn.Embedding | nn.ModuleList):
            owner = type(module).__name__
    return owner
