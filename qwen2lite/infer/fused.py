r"""A decode step of one text on a GPU, in five kernels a layer: `infer/kernels.py`.

`CompiledQwen2` records what PyTorch and its compiler make of a step. For a batch that is enough. For
one text the kernels are so short that their number decides, and these are fewer.
"""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from qwen2lite.infer.compile import CompiledQwen2, StaticStep, compiles
from qwen2lite.infer.packed import is_plain
from qwen2lite.model.parts import Parts
from qwen2lite.model.qwen2 import Qwen2

ROWS = {"qkv": 4, "mix_slices": 4, "gate_up": 8, "down": 2, "output_layer": 16}
"""Rows of a matrix, for qkv pairs of them, that a program multiplies: the fastest on an H100."""
WARPS = {
    "qkv": 4, "attend_slice": 4, "join": 4, "mix_slices": 4, "gate_up": 4, "down": 8, "output_layer": 4
}  # fmt: skip
LARGEST = 2048
"""Hidden size up to which the kernels run: a program holds whole rows in its registers. Steps of larger
models are bound by memory anyway."""
BLOCK = 64
"""Columns of the cache that a program takes at a time."""
FEW_SLICES, FEW_COLUMNS = 8, 2048
"""Programs that share the columns of a head, up to that many."""
MOST_SLICES = 128
"""In longer caches each has one block, as far as so many programs go, then several."""


def fuse(model: Qwen2) -> Qwen2:
    """The model as it writes one text fastest on a GPU; any other model comes back as it is."""
    return FusedQwen2(model, with_compiler=False) if fuses(model) else model


def fuses(model: Qwen2) -> bool:
    """Whether the kernels can run a model: the package's own dense layers, on a GPU with Triton."""
    has_triton = importlib.util.find_spec("triton") is not None
    return model.device.type == "cuda" and has_triton and fits(model)


def fits(model: Qwen2) -> bool:
    """Whether a model has the parts and shapes that the kernels are written for."""
    config = model.config
    return (
        is_plain(model)
        and model.parts == Parts(cache=model.parts.cache)
        and config.hidden_size <= LARGEST
        and config.head_dim & (config.head_dim - 1) == 0
        and config.head_dim >= 2 * ROWS["qkv"]
        and config.intermediate_size % ROWS["gate_up"] == 0
        and not config.dual_chunk_attention_config
    )


class FusedQwen2(CompiledQwen2):
    """A `CompiledQwen2` that steps one text in few kernels; batches are compiled as there.

    Its kernels are built at the first step, in seconds, and kept on the disk.

    Args:
        model: one that `fuses`.
        with_compiler: for batches, see `CompiledQwen2`.
    """

    def new_step(self, size: int, batch_size: int) -> StaticStep:
        """A step over a cache of that size."""
        if batch_size > 1:
            return super().new_step(size, batch_size)
        return FusedStep(self.plain, size, batch_size, with_compiler=False)


class FusedStep(StaticStep):
    """A `StaticStep` for one row. On a CPU it runs in Triton's interpreter only."""

    def prepared(self, run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """The step recorded; the plain one where Triton lacks a C compiler or Python's headers."""
        return super().prepared(
            run if compiles(run, "Triton") else partial(StaticStep.compute, self)
        )

    def compute(self) -> torch.Tensor:
        """The step on what was written to the static tensors. Running it twice changes nothing."""
        decoder = self.model.model
        x_D = decoder.embed_tokens(self.ids_BT).flatten()
        launch = Launcher(x_D.device)
        for number, layer in enumerate(decoder.layers):
            self._attention(launch, x_D, layer, number)
            self._mlp(launch, x_D, layer)
        weight_VD, norm = self.model.output_weight_VD, decoder.norm
        logits_V = x_D.new_empty(len(weight_VD))
        launch.rows(
            "output_layer", len(weight_VD), x_D, norm.weight, norm.eps, weight_VD, logits_V,
            len(weight_VD), D=len(x_D), WIDTH=_room(len(x_D)),
        )  # fmt: skip
        return logits_V[None, None]

    def _attention(self, launch: "Launcher", x_D: torch.Tensor, layer: Any, number: int) -> None:
        config, attention, norm = self.model.config, layer.self_attn, layer.input_layernorm
        heads, kv_heads, head_dim = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim
        )  # fmt: skip
        keys, values = self.cache.columns(number)
        q_NH = x_D.new_empty(heads, head_dim)
        launch.rows(
            "qkv", (heads + 2 * kv_heads) * head_dim // 2,
            x_D, norm.weight, norm.eps, self.position_T, *self.tables,
            *_weights(attention.q_proj), *_weights(attention.k_proj), *_weights(attention.v_proj),
            q_NH, keys, values, keys.shape[2],
            N=heads, K=kv_heads, H=head_dim, D=len(x_D), WIDTH=_room(len(x_D)),
        )  # fmt: skip
        mixed_SNH, counts = self._slices(launch, q_NH, keys, values)
        launch.rows(
            "mix_slices", len(x_D), x_D, mixed_SNH, *counts, attention.o_proj.weight,
            N=heads, H=head_dim, D=len(x_D), WIDTH=_room(heads * head_dim), SLICES=len(mixed_SNH),
        )  # fmt: skip

    def _slices(
        self, launch: "Launcher", q_NH: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What each slice of the columns gives, and its largest score and sum for each head."""
        (heads, head_dim), (_, kv_heads, size, _) = q_NH.shape, keys.shape
        slices = FEW_SLICES if size <= FEW_COLUMNS else min(size // BLOCK, MOST_SLICES)
        mixed_SNH = torch.empty(slices, heads, head_dim, device=q_NH.device)
        counts = torch.empty(2, slices, heads, device=q_NH.device)
        launch(
            "attend_slice", (heads, slices), q_NH, keys, values, self.visible.view(torch.uint8),
            self.position_T, mixed_SNH, *counts, size, head_dim**-0.5,
            N=heads, K=kv_heads, H=head_dim, SLICES=slices, BLOCK=BLOCK,
        )  # fmt: skip
        if slices <= FEW_SLICES:
            return mixed_SNH, counts
        whole = torch.empty(1, heads, head_dim, device=q_NH.device)
        launch("join", (heads,), mixed_SNH, *counts, whole, N=heads, H=head_dim, SLICES=slices)
        return whole, torch.ones(2, 1, heads, device=q_NH.device)

    def _mlp(self, launch: "Launcher", x_D: torch.Tensor, layer: Any) -> None:
        mlp, norm = layer.mlp, layer.post_attention_layernorm
        width = self.model.config.intermediate_size
        wide_F = x_D.new_empty(width)
        launch.rows(
            "gate_up", width, x_D, norm.weight, norm.eps, mlp.gate_proj.weight, mlp.up_proj.weight,
            wide_F, D=len(x_D), WIDTH=_room(len(x_D)),
        )  # fmt: skip
        launch.rows(
            "down", len(x_D), x_D, wide_F, mlp.down_proj.weight,
            D=len(x_D), F=width, WIDTH=_room(width),
        )  # fmt: skip


class Launcher:
    """Starts kernels by name, each with its number of programs and warps.

    Args:
        device: where; from Hopper on a kernel starts while the one before it ends.
    """

    def __init__(self, device: torch.device):
        from qwen2lite.infer import kernels  # Triton comes with PyTorch for a GPU only

        self.kernels: Any = kernels
        on_gpu = device.type == "cuda"
        self.early = on_gpu and torch.cuda.get_device_capability(device) >= (9, 0)

    def __call__(self, name: str, programs: tuple[int, ...], *args: Any, **shape: int) -> None:
        """Starts a kernel."""
        options: dict[str, Any] = {"launch_pdl": True} if self.early else {}
        kernel = getattr(self.kernels, name)[programs]
        kernel(*args, EARLY=self.early, num_warps=WARPS[name], **shape, **options)

    def rows(self, name: str, count: int, *args: Any, **shape: int) -> None:
        """Starts a kernel of which each program multiplies some of that many rows."""
        rows = ROWS[name]
        own = {"PAIRS" if name == "qkv" else "ROWS": rows}
        self(name, (-(-count // rows),), *args, **shape, **own)


def _weights(linear: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return linear.weight, linear.bias


def _room(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
