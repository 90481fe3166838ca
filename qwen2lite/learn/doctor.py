"""`doctor(parts)` runs a model of your parts beside the reference and names where they part company."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from qwen2lite.learn.check import contracts, examine, is_the_packages_own
from qwen2lite.learn.keep import my_parts
from qwen2lite.learn.watch import Seen, Watch
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Parts, Qwen2

PROBE = Qwen2Config(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
)
WITH_EXPERTS = dataclasses.replace(
    PROBE,
    num_experts=6,
    num_experts_per_tok=2,
    moe_intermediate_size=20,
    shared_expert_intermediate_size=24,
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}


@dataclass(frozen=True)
class Case:
    """One way to run both models: the text in pieces, each after the first with a cache."""

    name: str
    pieces: tuple[int, ...] = (24,)
    dtype: torch.dtype = torch.float32
    config: Qwen2Config = PROBE


CASES = (
    Case("a short text"),
    Case("a text in three pieces, with a cache", pieces=(9, 1, 6)),
    Case("a text of 2,304 tokens", pieces=(2304,)),
    Case("a short text in bfloat16", dtype=torch.bfloat16),
    Case("a model with experts", config=WITH_EXPERTS),
    Case("a model with YaRN", config=dataclasses.replace(PROBE, rope_scaling=YARN)),
)
"""Bugs hide: in bfloat16, far into a text, at the second piece. Each case brings some to light."""


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found. Prints as a few sentences."""

    places: int
    """Places that agreed before the first that didn't."""
    case: str = ""
    place: str = ""
    """The first place that differs; "" if none does."""
    part: str = ""
    """The part at work there; "" where it is none of them."""
    difference: str = ""
    cause: str = ""

    @property
    def healthy(self) -> bool:
        """Whether both models gave the same everywhere."""
        return not self.place

    def __str__(self) -> str:
        if self.healthy:
            return f"✓ Your parts and the reference agree at all {self.places} places."
        part = f" The part at work there is {self.part}." if self.part else ""
        lines = [
            f"✗ {self.case}: {self.places} places agree, then comes {self.place}.",
            f"    {self.difference}{part}",
        ]
        return "\n".join(lines + [f"    → {self.cause}"] * bool(self.cause))

    __repr__ = __str__


def doctor(parts: Parts | None = None, source: str | Path | None = None) -> Diagnosis:
    """Runs a model of your parts beside the reference and names the first place where they differ.

    Both have the same weights. Without a source they are small random models that bring bugs to
    light quickly; with one it is the real model, on a short text in float32.

    Args:
        parts: yours; None is what you kept.
        source: see `qwen2lite.weights.sources`.
    """
    parts = my_parts() if parts is None else parts
    agreed = 0
    cases = CASES if source is None else (Case(f"{source}"),)
    for case in cases:
        reference_watch, reference = _reference(case, source)
        found, places = _compare(case, reference_watch, reference, parts)
        agreed += places
        if found is not None:
            return dataclasses.replace(found, places=agreed, cause=_cause(found.part, parts))
    return _by_checks(parts, agreed)


def _reference(case: Case, source: str | Path | None) -> tuple[Watch, Qwen2]:
    watch = Watch()
    watched = watch.parts(Parts())
    if source is not None:
        model = Qwen2.from_pretrained(source, torch.float32, "cpu", watched)
    else:
        model = Qwen2(case.config, watched)
        _draw_weights(model)
        model = model.to(case.dtype)
    watch.modules(model)
    return watch, model


def _draw_weights(model: Qwen2) -> None:
    """Weights that bring bugs to light: large key biases as Qwen2 has them, a token of zeros, and
    one so quiet that the norm's eps counts."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = 0.3 * torch.randn(weight.shape, generator=generator)
            if "norm" in name:
                drawn += 1
            if name.endswith("k_proj.bias"):
                drawn *= 100
            weight.copy_(drawn)
        model.model.embed_tokens.weight[0] = 0
        model.model.embed_tokens.weight[1] *= 1e-2


def _compare(
    case: Case, watch: Watch, reference: Qwen2, parts: Parts
) -> tuple[Diagnosis | None, int]:
    """The first difference, if any, and how many places agreed before it."""
    yours = Watch()
    try:
        with torch.device("meta"):
            model = Qwen2(reference.config, yours.parts(parts))
    except Exception as error:
        return _raised(case, watch.seen, yours.seen, error), 0
    if wrong := _other_names(model, reference):
        return Diagnosis(0, case.name, "the weights", *wrong), 0
    model.load_state_dict(reference.state_dict(), assign=True)
    yours.modules(model)
    _run(reference, case, watch)
    broken = None
    try:
        _run(model, case, yours)
    except Exception as error:
        broken = error
    agreed, mixed = 0, False
    for wanted, got in _side_by_side(watch.seen, yours.seen):
        mixed = mixed or wanted.part in ("apply_rope", "attend")
        if said := _difference(wanted, got, case.dtype, mixed):
            return Diagnosis(0, case.name, wanted.place, wanted.part, said), agreed
        agreed += 1
    return (_raised(case, watch.seen, yours.seen, broken) if broken else None), agreed


def _run(model: Qwen2, case: Case, watch: Watch) -> None:
    generator = torch.Generator().manual_seed(1)
    length = sum(case.pieces)
    ids_BT = torch.randint(model.config.vocab_size, (2, length), generator=generator)
    ids_BT[:, :2] = torch.arange(2)  # the token of zeros and the quiet one
    with torch.inference_mode():
        cache = model.parts.cache(model.config, length, 2, model.dtype)
        for piece_BT in ids_BT.split(case.pieces, dim=1):
            logits_BTV = model(piece_BT, cache=cache if len(case.pieces) > 1 else None)
            watch.note("logits", "", logits_BTV)


def _other_names(model: Qwen2, reference: Qwen2) -> tuple[str, str] | None:
    """Part and sentence, where the learner's parameters are not the checkpoint's."""
    mine = {name: list(p.shape) for name, p in model.named_parameters()}
    wanted = {name: list(p.shape) for name, p in reference.named_parameters()}
    for name in sorted(mine.keys() | wanted.keys()):
        if mine.get(name) != wanted.get(name):
            place = next((m for m in ("mlp", "self_attn", "norm") if m in name), "")
            part = {"self_attn": "attention"}.get(place, place)
            return part, f"{name} has shape {mine.get(name)}, the checkpoint {wanted.get(name)}."
    return None


def _side_by_side(wanted: list[Seen], got: list[Seen]) -> list[tuple[Seen, Seen]]:
    """Pairs of the same place, in the reference's order. A place that one side lacks is left out:
    a learner may build a part in another way."""
    waiting: dict[str, list[Seen]] = {}
    for seen in got:
        waiting.setdefault(seen.place, []).append(seen)
    return [(seen, waiting[seen.place].pop(0)) for seen in wanted if waiting.get(seen.place)]


def _difference(wanted: Seen, got: Seen, dtype: torch.dtype, mixed: bool) -> str:
    """How two answers differ, in a sentence; "" where it is no more than rounding.

    Until queries are turned both sides do the same operations, and agree to the last digits. From
    there on right answers may round in another order, which large key biases blow up in bfloat16.
    """
    tight, loose = (1e-3, 0.2) if dtype == torch.bfloat16 else (1e-5, 1e-3)
    if len(wanted.tensors) != len(got.tensors):
        return f"It gives {len(got.tensors)} tensors where {len(wanted.tensors)} are wanted."
    for want, have in zip(wanted.tensors, got.tensors, strict=True):
        for what in ("device", "shape", "dtype"):
            mine, right = getattr(have, what), getattr(want, what)
            if mine != right:
                return f"Its {what} is {mine} and should be {right}."
        off = _relative(want.double(), have.double())
        if not off <= (loose if mixed else tight):
            return f"It is off by {off:.2g} of its size."
    return ""


def _relative(want: torch.Tensor, have: torch.Tensor) -> float:
    """Root mean square of the difference over that of the reference, infinities taken as they are."""
    off = torch.where(want == have, torch.zeros_like(want), want - have)
    size = want[want.isfinite()].square().mean().sqrt().clamp_min(1e-30)
    return float(off.square().mean().sqrt() / size)


def _raised(case: Case, wanted: list[Seen], got: list[Seen], error: Exception) -> Diagnosis:
    """The place that the learner's model didn't reach."""
    reached = _side_by_side(wanted, got)
    after = wanted.index(reached[-1][0]) + 1 if reached else 0
    missing = wanted[after] if after < len(wanted) else Seen("building the model", "", ())
    said = f"It raised {type(error).__name__}: {error}."
    return Diagnosis(0, case.name, missing.place, missing.part, said)


def _by_checks(parts: Parts, agreed: int) -> Diagnosis:
    """A part that does no harm in this model may still break its promise to another."""
    for name in contracts().keys() & {field.name for field in dataclasses.fields(Parts)}:
        part = getattr(parts, name)
        if not is_the_packages_own(name, part):
            result = examine(**{name: part}).results[0]
            if result.state != "right":
                said = (name, result.wrong, result.reason)
                return Diagnosis(agreed, "beside the model", f"the check of {name}", *said)
    return Diagnosis(agreed)


def _cause(part: str, parts: Parts) -> str:
    """What the part's own check says about it, for the check knows the usual mistakes."""
    if not part:
        return "No part of yours is at work there; look at the one before."
    if part not in contracts():
        return f"There is no check for {part}; compare it with the reference, line by line."
    result = examine(**{part: getattr(parts, part)}).results[0]
    if result.state == "right":
        return f"{part} passes its check, so look at what it is given here."
    return result.reason or result.wrong or f"{part} is not written yet."
