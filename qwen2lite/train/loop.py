r"""The training loop: batch, gradient, clip, step, and from time to time a look at how it goes."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from qwen2lite.infer.generate import generate
from qwen2lite.model.balance import BiasedRoute
from qwen2lite.model.device import pick_device, pick_dtype
from qwen2lite.model.qwen2 import Qwen2
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.folder import Place, RunFolder
from qwen2lite.train.gradients import (
    Batch,
    Cores,
    accumulate,
    autocast,
    targets_in,
    targets_in_all,
)
from qwen2lite.train.loss import NextToken
from qwen2lite.train.metrics import Watch
from qwen2lite.train.optim import AdamW, clip_gradients, parameter_groups
from qwen2lite.train.processes import Alone
from qwen2lite.train.products import use_fastest_products
from qwen2lite.train.recompute import recompute_layers
from qwen2lite.train.settings import TrainSettings

_SMALL = 20_000_000
"""Parameters up to which each core takes sequences of its own; larger products fill all cores."""


class Batches(Place, Protocol):
    """What the loop needs of a `Loader`: batches without end, and the place among them."""

    def __iter__(self) -> Iterator[Batch]:
        """Gives (ids_BT, targets_BT)."""


def train(
    model: Qwen2,
    loader: Batches,
    settings: TrainSettings,
    folder: str | Path,
    *,
    held_out: Sequence[Batch] = (),
    tokenizer: Qwen2Tokenizer | None = None,
    objective: nn.Module | None = None,
    make_optimizer: Callable[[Iterable[Any]], torch.optim.Optimizer] | None = None,
    processes: Alone | None = None,
    may_change: Collection[str] = (),
    bar: bool = True,
) -> Path:
    """Trains a model, and goes on where an earlier run in the same folder stopped.

    The folder gets `metrics.jsonl`, `checkpoints/` and, at the end, `model/`: a Hugging Face folder.
    On a CPU a run that was stopped and resumed makes the same losses, to the last bit, as one that
    was not.

    Args:
        model: in float32; trained in place.
        loader: gives (ids_BT, targets_BT) without end.
        settings: how to train.
        folder: of this run.
        held_out: batches to evaluate on, which the loader doesn't give.
        tokenizer: for samples, and for the exported model; its vocabulary is part of the run.
        objective: gives the mean loss of a batch, and 0 for one without targets; None is
            `NextToken`.
        make_optimizer: takes parameter groups; None is AdamW with the settings' numbers.
        processes: this process's role among several, from `parallel.join`; all of them call this
            function. None trains alone.
        may_change: settings that may differ from those of the run to resume: ("steps",).
        bar: show progress.

    Returns:
        The folder of the trained model.

    Raises:
        ValueError: the weights aren't float32, what is to be resumed was trained otherwise, or the
            loss is no longer a number.
        OSError: the disk is full. The last checkpoint is whole.
    """
    processes = processes or _alone(settings)
    device = processes.device
    dtype = pick_precision(settings, device)
    if model.dtype != torch.float32:
        raise ValueError(
            f"the weights are {model.dtype}, in which small updates round to nothing; load them "
            "with dtype=torch.float32, and set precision for the products"
        )
    model.train()
    objective = objective or NextToken(model, _document_end(model, settings))
    if settings.activation_checkpointing:
        recompute_layers(objective)
    if device.type == "cpu" and dtype == torch.float32:
        use_fastest_products(objective)
    if settings.compile:
        objective.compile()
    objective = processes.wrap(objective, dtype)
    add_gradients = _gradients(model, settings, processes, dtype)
    optimizer = (make_optimizer or _adamw(settings))(parameter_groups(model, settings.weight_decay))
    run = RunFolder(Path(folder), model, optimizer, loader, settings, tokenizer, processes)
    done = run.resume(may_change)
    optimizer.zero_grad()  # a run that was interrupted in this process may have left some
    held_out = [_to(batch, device) for batch in held_out]
    routes = _biased_routes(model)
    rates, batches = settings.learning_rates(), iter(loader)
    with _watch(run.path, done, settings, processes, bar) as watch:
        for step in range(done + 1, settings.steps + 1):
            _set_rate(optimizer, rates(step - 1))
            batch = [_to(next(batches), device) for _ in range(settings.accumulation)]
            loss_tensor = add_gradients(objective, batch)
            norm_tensor = clip_gradients(model.parameters(), settings.max_gradient_norm)
            norm_tensor = processes.whole(norm_tensor)
            loss, norm = torch.stack((loss_tensor, norm_tensor)).tolist()
            if not math.isfinite(loss + norm):
                raise ValueError(run.what_broke(step, loss, norm, batch))
            optimizer.step()
            optimizer.zero_grad()
            for route in routes:
                processes.total(route.counts_E)
                route.update()
            saves = step == settings.steps or _due(step, settings.checkpoint_every)
            watch.step(step, loss, norm, rates(step - 1), saves)
            if held_out and _due(step, settings.evaluate_every):
                watch.held_out(step, evaluate(objective, held_out, dtype))
            if saves:  # before samples, so that one that fails doesn't cost the checkpoint
                run.save(step)
            if tokenizer and _due(step, settings.sample_every):
                with processes.speaking(model), autocast(device, dtype):
                    for prompt in settings.sample_prompts:
                        text = _continue(model, tokenizer, prompt, settings.sample_tokens)
                        watch.sample(step, prompt, text)
    return run.export()


@torch.no_grad()
def evaluate(
    objective: nn.Module, batches: Sequence[Batch], dtype: torch.dtype = torch.float32
) -> float:
    """The mean loss over all targets of some batches, without training on them.

    Raises:
        ValueError: no batch has a target.
    """
    total, loss, training = targets_in_all(batches), 0.0, objective.training
    objective.eval()
    for batch in batches:
        with autocast(batch[0].device, dtype):
            loss += float(objective(*batch)) * targets_in(batch) / total
    objective.train(training)
    return loss


def pick_precision(settings: TrainSettings, device: torch.device) -> torch.dtype:
    """The number format of the matrix products; the weights are float32 in any case."""
    if settings.precision == "auto":
        return pick_dtype(device) if device.type == "cuda" else torch.float32
    return getattr(torch, settings.precision)


def _alone(settings: TrainSettings) -> Alone:
    if settings.parallel != "none":
        raise ValueError(
            f"parallel is {settings.parallel!r}, and train() was given no processes; take them from "
            "qwen2lite.train.parallel.join, or set parallel to 'none'"
        )
    return Alone(pick_device(settings.device))


def _gradients(
    model: Qwen2, settings: TrainSettings, processes: Alone, dtype: torch.dtype
) -> Callable[[nn.Module, Sequence[Batch]], torch.Tensor]:
    """How gradients are made: on a CPU, small models alone share a batch among the cores."""
    if processes.world_size > 1:
        return partial(accumulate, dtype=dtype, processes=processes)
    cores = settings.cores
    if not cores:
        small = sum(p.numel() for p in model.parameters()) <= _SMALL
        cores = min(torch.get_num_threads(), settings.batch_size) if small else 1
    # A biased route counts the tokens of a whole batch, which cores would do at the same time.
    apart = processes.device.type == "cpu" and dtype == torch.float32 and not _biased_routes(model)
    if apart and cores > 1:
        return Cores(cores).accumulate
    return partial(accumulate, dtype=dtype)


def _biased_routes(model: Qwen2) -> list[BiasedRoute]:
    return [module for module in model.modules() if isinstance(module, BiasedRoute)]


def _adamw(settings: TrainSettings) -> Callable[[Iterable[Any]], torch.optim.Optimizer]:
    kind = AdamW if settings.optimizer == "ours" else partial(torch.optim.AdamW, fused=True)
    betas = (settings.beta1, settings.beta2)
    return partial(kind, lr=settings.learning_rate, betas=betas, eps=settings.eps)


def _document_end(model: Qwen2, settings: TrainSettings) -> int | None:
    if not settings.document_mask:
        return None
    eos, size = model.config.eos_token_id, model.config.vocab_size
    eos = eos[0] if isinstance(eos, list) else eos
    if eos is None or eos >= size:
        raise ValueError(
            f"document_mask looks for the id that ends a document, and the config's eos_token_id is "
            f"{eos} in a vocabulary of {size}; set it right, or document_mask to false"
        )
    return eos


def _watch(path: Path, done: int, settings: TrainSettings, processes: Alone, bar: bool) -> Watch:
    tokens = settings.tokens_per_step * processes.world_size
    sizes = (settings.steps, tokens, settings.log_every)
    shown = path if processes.rank == 0 else None
    return Watch(shown, done, *sizes, bar=bar, tensorboard=settings.tensorboard)


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _to(batch: Batch, device: torch.device) -> Batch:
    return batch[0].to(device), batch[1].to(device)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _continue(model: Qwen2, tokenizer: Qwen2Tokenizer, prompt: str, tokens: int) -> str:
    model.eval()
    text = "".join(generate(model, tokenizer, prompt, max_new_tokens=tokens))
    model.train()
    return text
