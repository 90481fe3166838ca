"""A layer of experts, forward and backward, beside transformers' in the same run.

Hidden size 512, 64 experts of width 256 and top-8, a shared expert of width 256, 2,048 tokens. All
sides hold the same weights. `grouped` is transformers' default, one grouped product for all experts;
`eager` is its loop. On the CPU ours is the loop of `model/moe.py`, in float32 on 2 threads; on a GPU
`model/grouped.py`, in bfloat16, as it comes and compiled, also in the size of a layer of the 57B, and
beside one dense MLP as wide as the experts that a token uses. What is compiled stands beside what is
compiled.
"""

import sys
from collections.abc import Callable, Iterator

import measure
import torch
import transformers
from torch import nn

from qwen2lite.model.config import CONFIGS, Qwen2Config
from qwen2lite.model.grouped import grouped_moe
from qwen2lite.model.mlp import SwiGLU
from qwen2lite.model.moe import MixtureOfExperts, route
from qwen2lite.weights.published import published_tensors

THREADS, TOKENS = 2, 2048
SMALL = Qwen2Config(
    vocab_size=1,
    eos_token_id=None,
    hidden_size=512,
    intermediate_size=2304,
    num_hidden_layers=1,
    num_attention_heads=8,
    num_key_value_heads=8,
    num_experts=64,
    num_experts_per_tok=8,
    moe_intermediate_size=256,
    shared_expert_intermediate_size=256,
)


def main() -> None:
    parser = measure.parser(__doc__)
    parser.add_argument("--gpu", action="store_true", help="only the GPU's rows")
    flags = parser.parse_args()
    torch.set_num_threads(THREADS)
    rows = [] if flags.gpu else list(cpu_rows(flags.repeats))
    if torch.cuda.is_available():
        rows += gpu_rows(flags.repeats, "moe gpu", SMALL)
        rows += gpu_rows(flags.repeats, "moe gpu, 57B's layer", CONFIGS["qwen2-57b-a14b"])
    measure.show(rows, flags.json)
    if not torch.cuda.is_available():
        print("moe gpu: no GPU here: not measured", file=sys.stderr if flags.json else sys.stdout)


def cpu_rows(repeats: int) -> Iterator[measure.Row]:
    torch.manual_seed(0)
    ours = MixtureOfExperts(SMALL, SwiGLU, route)
    x_BTD = torch.randn(1, TOKENS, SMALL.hidden_size)
    sides = [ours, theirs(SMALL, ours), theirs(SMALL, ours, "eager")]
    seconds = measure.median_seconds(repeats, *(step(side, x_BTD) for side in sides))
    peers = ("transformers, its default", "transformers, its eager loop")
    for work, peer, time in zip(("moe cpu", "moe cpu, eager"), peers, seconds[1:], strict=True):
        yield row(work, seconds[0], time, peer)


def gpu_rows(repeats: int, work: str, config: Qwen2Config) -> Iterator[measure.Row]:
    with torch.device("cuda"):
        ours = grouped_moe(config, SwiGLU, route).bfloat16()
        active = config.num_experts_per_tok * config.moe_intermediate_size
        active += config.shared_expert_intermediate_size
        dense = SwiGLU(config.hidden_size, active).bfloat16()
        x_BTD = torch.randn(1, TOKENS, config.hidden_size, dtype=torch.bfloat16)
        sides = [ours, theirs(config, ours).bfloat16(), dense]
    yield from beside(repeats, work, sides, x_BTD, "")
    for side in sides:
        side.compile()
    yield from beside(repeats, work, sides, x_BTD, ", compiled")


def beside(
    repeats: int, work: str, sides: list[nn.Module], x_BTD: torch.Tensor, how: str
) -> Iterator[measure.Row]:
    ours, peer, dense = measure.median_seconds(repeats, *(step(side, x_BTD) for side in sides))
    yield row(work + how, ours, peer, f"transformers, its default{how}")
    yield row(f"{work}, dense{how}", ours, dense, f"a dense MLP of the active size{how}")


def row(work: str, ours: float, peer: float, peer_name: str) -> measure.Row:
    return measure.Row(work, ours * 1e3, peer * 1e3, peer_name, "ms", peer / ours)


def theirs(config: Qwen2Config, ours: nn.Module, experts: str | None = None) -> nn.Module:
    """transformers' layer with our weights, its experts run as it comes or in the way named."""
    values = {k: v for k, v in config.to_dict().items() if k != "architectures"}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.Qwen2MoeConfig(**values | {"num_hidden_layers": 1, "mlp_only_layers": []}),
            experts_implementation=experts,
        )
    layer = model.model.layers[0].mlp.to_empty(device=next(ours.parameters()).device)
    own = published(ours)
    with torch.no_grad():
        for name, weight in published(layer).items():
            weight.copy_(own[name])
    return layer


def published(layer: nn.Module) -> dict[str, torch.Tensor]:
    """The weights under the checkpoint's names, whichever way the layer holds them."""
    return published_tensors(nn.ModuleDict({"mlp": layer}))


def step(layer: nn.Module, x_BTD: torch.Tensor) -> Callable[[], None]:
    """Forward and backward, to the layer's weights and to its input."""

    def run() -> None:
        layer.zero_grad(set_to_none=True)
        leaf = x_BTD.detach().requires_grad_()
        layer(leaf).square().mean().backward()
        if x_BTD.is_cuda:
            torch.cuda.synchronize()

    return run


if __name__ == "__main__":
    main()
