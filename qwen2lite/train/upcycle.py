r"""Upcycling: a mixture of experts that starts from a trained dense model.

What the report says of Qwen2-57B-A14B, which began as Qwen2-7B: copy the dense MLP
$\lceil n \cdot h_E / h_{FFN} \rceil$ times, shuffle each copy along its intermediate dimension, cut
the experts out of the copies, drop what is left over, and start half of each expert's parameters
anew at random. Everything else here is an argument, because the report doesn't say it.

A *column* is one coordinate of the intermediate dimension: a row of gate_proj, the same row of
up_proj and the same column of down_proj. Only together do they compute anything.

Source: arXiv 2407.10671, section 2.2.2.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

import torch

from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.loading import WithoutInitialising
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.weights.published import published_tensors

_EXPERT_FIELDS = (
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "norm_topk_prob",
    "decoder_sparse_step",
    "mlp_only_layers",
)


@dataclass(frozen=True)
class Recipe:
    """What is chosen where the report leaves a choice, or gives a number that one may want to vary.

    Raises:
        ValueError: a share outside of 0 to 1.
    """

    cut: Literal["across", "within"] = "across"
    """Across the copies, laid end to end, so that an expert may get columns of two of them; or
    within each copy. The 57B's numbers decide: its 64 experts need 8.65 copies, and from the
    report's 9 only 63 can be cut within (7 each)."""
    fresh_share: float = 0.5
    """Share of each expert that starts anew; the report's half."""
    fresh: Literal["columns", "numbers"] = "columns"
    """Whole columns, so that the others go on computing what they computed; or single numbers, so
    that every column is half itself and half noise. Columns are what Drop-Upcycling found good
    (arXiv 2502.19261)."""
    fresh_std: float | None = None
    """Standard deviation of what is new; None is the config's initializer_range, as in every new
    Qwen2. The router and the shared expert's gate always start so."""
    shared_fresh_share: float = 0.0
    """The same share for the shared expert. None of it, because it sees every token and is what
    keeps the model speaking while the experts learn."""

    def __post_init__(self) -> None:
        for share in (self.fresh_share, self.shared_fresh_share):
            if not 0 <= share <= 1:
                raise ValueError(f"a share lies between 0 and 1; got {share}")


def upcycle(
    dense: Qwen2, config: Qwen2Config, recipe: Recipe | None = None, seed: int = 0
) -> Qwen2:
    """Builds a model with experts out of a dense one, which stays as it is.

    Its updates are smaller than the dense model's, because the weights of the chosen experts sum to
    less than one: it has to be trained on before it is of use.

    Args:
        dense: where the weights come from.
        config: the dense one's, with experts.
        recipe: None is `Recipe()`.
        seed: of the shuffles and of all that is new.

    Raises:
        ValueError: the configs differ in more than their experts, or there are none.
    """
    _require_the_same_but_for_experts(dense.config, config)
    recipe, rng = recipe or Recipe(), torch.Generator().manual_seed(seed)
    with torch.device("meta"), WithoutInitialising():
        model = Qwen2(config, dense.parts).to(dense.dtype)
    model.to_empty(device=dense.device)
    source, target = published_tensors(dense), published_tensors(model)
    with torch.no_grad():
        for name, weight in target.items():
            if name in source:
                weight.copy_(source[name])
            elif name.endswith("gate.weight"):  # of the router, and of the shared expert
                weight.copy_(config.initializer_range * torch.randn(weight.shape, generator=rng))
        for layer in filter(config.is_sparse, range(config.num_hidden_layers)):
            _fill(source, target, f"model.layers.{layer}.mlp", config, recipe, rng)
    return model.train(dense.training)


def expert_columns(
    dense_width: int, width: int, experts: int, rng: torch.Generator, cut: str = "across"
) -> torch.Tensor:
    """Chooses the dense columns that each expert gets.

    Args:
        dense_width: columns of the dense MLP.
        width: columns of an expert.
        experts: how many.
        rng: shuffles the copies.
        cut: see `Recipe`.

    Returns:
        Numbers of dense columns, a row an expert.

    Raises:
        ValueError: cut within copies, and a copy holds no whole expert.
    """
    usable = dense_width if cut == "across" else dense_width // width * width
    if not usable:
        raise ValueError(
            f"an expert of {width} columns can't be cut within a dense MLP of {dense_width}; "
            "cut across the copies"
        )
    copies = ceil(experts * width / usable)
    shuffled = [torch.randperm(dense_width, generator=rng)[:usable] for _ in range(copies)]
    return torch.cat(shuffled)[: experts * width].view(experts, width)


Matrices = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""gate_proj [F, D], up_proj [F, D] and down_proj transposed, [F, D]: one row a column."""


def start_anew(mlp: Matrices, share: float, fresh: str, std: float, rng: torch.Generator) -> None:
    """Overwrites a share of an MLP with normal numbers, in place; see `Recipe`."""
    width = len(mlp[0])
    chosen = torch.randperm(width, generator=rng)[: round(share * width)]
    for matrix_FD in mlp:
        is_new = torch.zeros(matrix_FD.shape, dtype=torch.bool)
        if fresh == "columns":
            is_new[chosen] = True
        else:
            is_new = torch.rand(matrix_FD.shape, generator=rng) < share
        new_FD = std * torch.randn(matrix_FD.shape, generator=rng)
        matrix_FD.copy_(torch.where(is_new.to(matrix_FD.device), new_FD.to(matrix_FD), matrix_FD))


def _fill(
    source: dict[str, torch.Tensor],
    target: dict[str, torch.Tensor],
    stem: str,
    config: Qwen2Config,
    recipe: Recipe,
    rng: torch.Generator,
) -> None:
    """Gives the experts of one layer, and the shared one, their share of the dense MLP."""
    dense_width, width = config.intermediate_size, config.moe_intermediate_size
    std = config.initializer_range if recipe.fresh_std is None else recipe.fresh_std
    routed = expert_columns(dense_width, width, config.num_experts, rng, recipe.cut)
    # As one expert, which may be wider than the dense MLP: the 57B's is.
    shared = expert_columns(dense_width, config.shared_expert_intermediate_size, 1, rng)
    places = {f"{stem}.experts.{n}": columns for n, columns in enumerate(routed)}
    places[f"{stem}.shared_expert"] = shared[0]
    for place, columns in places.items():
        mlp = _matrices(target, place)
        for new_FD, old in zip(mlp, _matrices(source, stem), strict=True):
            new_FD.copy_(old[columns.to(old.device)])
        is_shared = place.endswith("shared_expert")
        share = recipe.shared_fresh_share if is_shared else recipe.fresh_share
        start_anew(mlp, share, recipe.fresh, std, rng)


def _matrices(weights: dict[str, torch.Tensor], stem: str) -> Matrices:
    gate, up, down = (weights[f"{stem}.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return gate, up, down.T


def _require_the_same_but_for_experts(dense: Qwen2Config, config: Qwen2Config) -> None:
    if dense.num_experts or not config.num_experts:
        raise ValueError(
            f"upcycling goes from a dense model to one with experts; got {dense.num_experts} "
            f"experts in the model and {config.num_experts} in the config"
        )
    experts = {name: getattr(config, name) for name in _EXPERT_FIELDS}
    if replace(dense, **experts) != config:
        raise ValueError(
            "the config differs from the dense model's in more than its experts; make it with "
            "dataclasses.replace(dense.config, num_experts=…, moe_intermediate_size=…)"
        )
