"""`doctor(parts)` runs a model of your parts beside the reference and names where they part company."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from qwen2lite.learn.cases import CASES, Case, draw_weights
from qwen2lite.learn.check import contracts, examine, is_the_packages_own
from qwen2lite.learn.keep import my_parts, without_weights
from qwen2lite.learn.watch import Seen, Watch, difference, side_by_side
from qwen2lite.model.config import Qwen2Config
from qwen2lite.model.qwen2 import Parts, Qwen2


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
    yours = _Checked(parts)
    if endless := yours.endless():
        return endless
    agreed = 0
    cases = CASES if source is None else (Case(f"{source}"),)
    for case in cases:
        reference_watch, reference = _reference(case, source)
        found, places = _compare(case, reference_watch, reference, yours)
        agreed += places
        if found is not None:
            part = yours.to_blame(found.part, reference.config)
            return dataclasses.replace(found, places=agreed, part=part, cause=yours.cause(part))
    return yours.beside_the_model(agreed)


class _Checked:
    """The learner's own parts and what their checks say, which know the usual mistakes.

    Args:
        parts: the learner's, and the package's own where there is none.
    """

    def __init__(self, parts: Parts):
        self.parts = parts
        names = (field.name for field in dataclasses.fields(Parts))
        own = [name for name in names if not is_the_packages_own(name, getattr(parts, name))]
        self.results = {
            name: examine(**{name: getattr(parts, name)}).results[0]
            if name in contracts()
            else None
            for name in own
        }

    def endless(self) -> Diagnosis | None:
        """What to say of a part whose check had to be broken off: no model could be run with it."""
        for name, result in self.results.items():
            if result is not None and "was still running" in result.wrong:
                check = f"the check of {name}"
                return Diagnosis(0, "before any model", check, name, result.wrong, self.cause(name))
        return None

    def is_right(self, part: str) -> bool:
        """Whether it passes its check, as the package's own parts do."""
        result = self.results.get(part)
        return part not in self.results or (result is not None and result.state == "right")

    def may_differ(self, part: str, config: Qwen2Config) -> bool:
        """Whether a right part of the learner's own calls this one, and may call it in another way.
        What it makes of the answers is compared all the same."""
        caller = _callers(config).get(part, "")
        return caller in self.results and self.is_right(caller) and self.is_right(part)

    def to_blame(self, part: str, config: Qwen2Config) -> str:
        """The part itself, or, where that is right, the learner's that gave it what it got."""
        suspect, givers = part, _callers(config) | _TOLD_BY_THE_CACHE
        while suspect and self.is_right(suspect):
            suspect = givers.get(suspect, "")
        return suspect or part

    def cause(self, part: str) -> str:
        """Why the part went wrong, as far as its check can tell."""
        if not part:
            return "No part of yours is at work there; look at the one before."
        if self.is_right(part):
            return f"{part} passes its check, so look at what it is given here."
        result = self.results[part]
        if result is None:
            return f"There is no check for {part}; compare it with the reference, line by line."
        return result.reason or result.wrong or f"{part} is not written yet."

    def beside_the_model(self, agreed: int) -> Diagnosis:
        """A part that does no harm in this model may still break its promise to another."""
        for name, result in self.results.items():
            if result is not None and result.state != "right":
                place = f"the check of {name}"
                return Diagnosis(
                    agreed, "beside the model", place, name, result.wrong, self.cause(name)
                )
        return Diagnosis(agreed)


_TOLD_BY_THE_CACHE = {"rotary_tables": "cache", "dca_positions": "cache"}
"""Parts that are given the positions of new tokens, which go on at the cache's length."""


def _callers(config: Qwen2Config) -> dict[str, str]:
    """The parts that are given to another one, and to which."""
    attention = "dca" if config.dual_chunk_attention_config else "attention"
    return {
        "apply_rope": attention,
        "cache": attention,
        "attend": "attention",
        "merge_pieces": "dca_attend",
        "dca_attend": "dca",
        "route": "moe",
        "mlp": "moe" if config.num_experts else "",
    }


def _reference(case: Case, source: str | Path | None) -> tuple[Watch, Qwen2]:
    watch = Watch()
    watched = watch.parts(Parts())
    if source is not None:
        model = Qwen2.from_pretrained(source, torch.float32, "cpu", watched)
    else:
        model = Qwen2(case.config, watched)
        draw_weights(model)
        model = model.to(case.dtype).eval()
    watch.modules(model)
    return watch, model


def _compare(
    case: Case, watch: Watch, reference: Qwen2, checked: _Checked
) -> tuple[Diagnosis | None, int]:
    """The first difference, if any, and how many places agreed before it."""
    yours = Watch()
    try:
        model = without_weights(reference.config, yours.parts(checked.parts))
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
    for wanted, got in side_by_side(watch.seen, yours.seen, case.dtype):
        mixed = mixed or wanted.part in ("apply_rope", "attend")
        said = difference(wanted, got, case.dtype, mixed)
        if said and not checked.may_differ(wanted.part, reference.config):
            return Diagnosis(0, case.name, wanted.place, wanted.part, said), agreed
        agreed += not said
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
            attention = "dca" if model.config.dual_chunk_attention_config else "attention"
            mlp = "moe" if model.config.num_experts else "mlp"
            part = {"self_attn": attention, "mlp": mlp}.get(place, place)
            return part, f"{name} has shape {mine.get(name)}, the checkpoint {wanted.get(name)}."
    return None


def _raised(case: Case, wanted: list[Seen], got: list[Seen], error: Exception) -> Diagnosis:
    """The place that the learner's model didn't reach."""
    reached = side_by_side(wanted, got)
    after = wanted.index(reached[-1][0]) + 1 if reached else 0
    missing = wanted[after] if after < len(wanted) else Seen("building the model", "", ())
    said = f"It raised {type(error).__name__}: {error}."
    return Diagnosis(0, case.name, missing.place, missing.part, said)
