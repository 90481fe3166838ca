r"""Decode steps of fixed shape: compiled once, and on a GPU recorded as one CUDA graph.

A step of a small model is hundreds of small operations. A GPU is done with each before Python has sent
the next, so it idles. Three things end that, and each needs the one before it:

* a **static cache**: every step sees all columns of the cache, and a mask hides those not written yet.
  Shapes and addresses are then the same at each step;
* **compilation**: `torch.compile` fuses the small operations between the products;
* a **CUDA graph**: the whole step is recorded, and played back with one call.

Prefill runs as it is: its shapes change with each prompt, and it is bound by arithmetic. So a prompt of
another length never compiles anything.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from qwen2lite.infer.around import AroundQwen2
from qwen2lite.model.cache import KVCache
from qwen2lite.model.qwen2 import Qwen2

MOST_STEPS = 256
"""Steps, each of a size and a batch, that one process compiles."""
LEAST_LENGTH = 256
"""Columns of the shortest static cache; longer ones double, so that few sizes are compiled."""


class CompiledQwen2(AroundQwen2):
    """A `Qwen2` whose decode steps are compiled; it gives what the model gives.

    It keeps one cache for each size, and every `new_cache` of that size starts it anew: two texts
    can't be written at once with one, but `generate_batch` writes many in the rows of one cache.

    Args:
        model: any of the package's models in evaluation mode, packed or not, without dual chunks.
        with_compiler: False leaves `torch.compile` out, and on a GPU records the plain operations.

    Raises:
        ValueError: a model with dual chunk attention, whose tables change with the position.
    """

    def __init__(self, model: Qwen2, with_compiler: bool = True):
        if model.config.dual_chunk_attention_config:
            raise ValueError(
                "a decode step of dual chunk attention changes its shape with the position, and can't "
                "be compiled once; generate with the model as it is"
            )
        super().__init__(model)
        self.with_compiler = with_compiler
        self._steps: dict[tuple[int, int], StaticStep] = {}

    def new_cache(self, max_length: int, batch_size: int = 1) -> KVCache:
        """The cache of the next size up, empty. What an earlier call returned is lost by it."""
        size = LEAST_LENGTH
        while size < max_length:
            size *= 2
        step = self._steps.get((size, batch_size))
        if step is None or max_length > self.config.context_length:
            self.plain.new_cache(max_length, 1)  # raises where the context is too short
            step = self.new_step(size, batch_size)
            self._steps[size, batch_size] = step
        step.cache.length, step.cache.max_length = 0, max_length
        return step.cache

    def new_step(self, size: int, batch_size: int) -> "StaticStep":
        """A step over a cache of that size."""
        return StaticStep(self.plain, size, batch_size, self.with_compiler)

    @torch.inference_mode()
    def forward(
        self,
        ids_BT: torch.Tensor,
        cache: KVCache | None = None,
        mask: torch.Tensor | None = None,
        last_only: bool = False,
    ) -> torch.Tensor:
        """Arguments and result are those of `Qwen2`. The next step overwrites a step's result."""
        self.check_ids(ids_BT)
        own = (step for step in self._steps.values() if step.cache is cache)
        step = next(own, None) if ids_BT.shape[1] == 1 else None
        if step is None:
            return self.plain(ids_BT, cache, mask, last_only)
        return step(ids_BT, mask)


class StaticCache(KVCache):
    """A cache that also gives all its columns, filled or not, to write into."""

    def columns(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns k_BKSH and v_BKSH of a layer, S being the whole length."""
        return self._keys[layer], self._values[layer]


class StaticStep:
    """One decode step of a model over a cache of fixed size.

    Args:
        model: computes it.
        size: columns of the cache.
        batch_size: rows.
        with_compiler: see `CompiledQwen2`.
    """

    def __init__(self, model: Qwen2, size: int, batch_size: int, with_compiler: bool):
        self.model, device = model, model.device
        self.cache = StaticCache(model.config, size, batch_size, model.cache_dtype, device)
        # What changes from step to step is written to these; a graph reads them where they lie.
        self.ids_BT = torch.zeros(batch_size, 1, dtype=torch.long, device=device)
        self.position_T = torch.zeros(1, dtype=torch.long, device=device)
        self.visible = torch.ones(batch_size, 1, 1, size, dtype=torch.bool, device=device)
        self.columns_S = torch.arange(size, device=device)
        self.tables = model.model.tables(self.columns_S)
        self.run: Callable[[], torch.Tensor] | None = None
        self.with_compiler = with_compiler

    def __call__(self, ids_BT: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Reads one token a row; returns logits_BTV."""
        end = self.cache.length + 1
        if end > self.cache.max_length:
            raise ValueError(
                f"the cache has room for {self.cache.max_length} tokens and would need {end}; "
                "make it longer, or the text shorter"
            )
        self.ids_BT.copy_(ids_BT)
        self.position_T.fill_(self.cache.length)
        self.visible.fill_(True)
        if mask is not None:
            self.visible[..., :end] = mask
        if self.run is None:
            self.run = self.prepared(self.compute)
        logits_BTV = self.run()
        self.cache.length = end
        return logits_BTV

    def prepared(self, run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        """The step compiled and recorded, as far as that can be done here."""
        if self.with_compiler:
            run = compiled(run)
        if self.model.device.type != "cuda":
            return run
        try:
            return recorded(run)
        except RuntimeError as error:  # a step that waits for the GPU, as experts do, can't be
            reason = str(error).strip().splitlines()[0]
            warnings.warn(f"no CUDA graph ({reason}); the step runs without", stacklevel=4)
            return run

    def compute(self) -> torch.Tensor:
        """The step on what was written to the static tensors. Running it twice changes nothing."""
        decoder, keys = self.model.model, Columns(self.cache, self.position_T)
        x_BTD = decoder.embed_tokens(self.ids_BT)
        cos_TH, sin_TH = (table[self.position_T].to(x_BTD.dtype) for table in self.tables)
        mask = self.visible & (self.columns_S <= self.position_T)
        for layer in decoder.layers:
            x_BTD = layer(x_BTD, cos_TH, sin_TH, mask, keys)
        return self.model.score(decoder.norm(x_BTD))


@dataclass
class Columns:
    """A cache as a step of fixed shape meets it: it writes one column, and sees all of them."""

    cache: StaticCache
    position_T: torch.Tensor

    def update(
        self, layer: int, k_BKTH: torch.Tensor, v_BKTH: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Stores a column of one layer, and returns the layer's whole keys and values."""
        k_BKSH, v_BKSH = self.cache.columns(layer)
        k_BKSH.index_copy_(2, self.position_T, k_BKTH.to(k_BKSH.dtype))
        v_BKSH.index_copy_(2, self.position_T, v_BKTH.to(v_BKSH.dtype))
        return k_BKSH, v_BKSH


def compiled(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The function compiled by `torch.compile`, or as it is where that fails, which it says."""
    fast = torch.compile(run, fullgraph=True, dynamic=False)
    # All sizes and batches count as one function, of which PyTorch compiles eight forms else.
    with torch._dynamo.config.patch(recompile_limit=MOST_STEPS):
        return fast if compiles(fast) else run


def compiles(fast: Callable[[], object], compiler: str = "torch.compile") -> bool:
    """Whether a function that is compiled at its first call can be run; why it can't is a warning."""
    try:
        fast()
    except Exception as error:  # PyTorch raises many kinds where a compiler is missing
        reason = str(error).strip().splitlines()[0]
        warnings.warn(
            f"{compiler} failed here ({reason}); it goes on without, as right and slower",
            stacklevel=2,
        )
        return False
    return True


def recorded(run: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The function as a CUDA graph. It must read and write the same tensors at each call."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # allocations and tunings of the first runs aren't recorded
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> torch.Tensor:
        graph.replay()
        return result

    return replay
