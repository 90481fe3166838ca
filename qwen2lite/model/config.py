"""The numbers that make one Qwen2 differ from another, under the names of `config.json`."""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen2lite.model.long_config import checked_chunks, checked_scaling, rope_settings
from qwen2lite.weights.hf import read_json

_COUNTS = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "max_position_embeddings",
)  # fmt: skip
_COUNTS_OF_EXPERTS = (
    "num_experts", "num_experts_per_tok", "moe_intermediate_size",
    "shared_expert_intermediate_size", "decoder_sparse_step",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Qwen2Config:
    """The shape of a model. Fields have the names and defaults of the checkpoint's `config.json`.

    Lengths are in tokens, sizes in numbers of a vector. `num_experts = 0` means a dense model.

    Raises:
        ValueError: numbers that can't belong together, with what to change.

    Source: arXiv 2407.10671, table 1; the published config.json files.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int = 0
    """Size H of one head; 0 stands for hidden_size / num_attention_heads. `dataclasses.replace` keeps
    the size that was worked out: beside another hidden_size it takes `head_dim=0`."""
    max_position_embeddings: int = 32768
    rope_theta: float = 1_000_000.0
    rope_scaling: dict[str, Any] | None = None
    """YaRN's settings; None leaves RoPE as it was trained."""
    dual_chunk_attention_config: dict[str, Any] | None = None
    """`chunk_size` and `local_size`, and `original_max_position_embeddings` where scores are to grow
    with the length of the text; None is full attention."""
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    initializer_range: float = 0.02
    eos_token_id: int | list[int] | None = 151643
    hidden_act: str = "silu"
    use_sliding_window: bool = False

    num_experts: int = 0
    num_experts_per_tok: int = 8
    moe_intermediate_size: int = 2560
    shared_expert_intermediate_size: int = 20480
    norm_topk_prob: bool = False
    decoder_sparse_step: int = 1
    mlp_only_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.num_experts and self.num_experts_per_tok > self.num_experts:
            raise ValueError(
                f"num_experts_per_tok is {self.num_experts_per_tok}, and there are only "
                f"{self.num_experts} experts"
            )
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if not self.head_dim:
            if self.hidden_size % heads:
                raise ValueError(
                    f"hidden_size {self.hidden_size} does not divide into {heads} heads; "
                    "choose a multiple, or give head_dim"
                )
            object.__setattr__(self, "head_dim", self.hidden_size // heads)
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim must be even, because RoPE turns pairs; got {self.head_dim}"
            )
        if heads % kv_heads:
            raise ValueError(
                f"{heads} query heads can't share {kv_heads} key/value heads evenly; "
                "num_attention_heads must be a multiple of num_key_value_heads"
            )
        if self.hidden_act != "silu":
            raise ValueError(
                f"hidden_act must be 'silu', as in every Qwen2; got {self.hidden_act!r}"
            )
        if self.use_sliding_window:
            raise ValueError(
                "use_sliding_window is off in every published Qwen2 and not built here"
            )
        object.__setattr__(self, "rope_scaling", checked_scaling(self.rope_scaling or {}))
        if self.dual_chunk_attention_config is not None:
            chunks = checked_chunks(self.dual_chunk_attention_config)
            object.__setattr__(self, "dual_chunk_attention_config", chunks)

    def _check_kinds(self) -> None:
        """Refuses what a config.json, which anybody can write, may hold in place of a number."""
        for name in _COUNTS if not self.num_experts else (*_COUNTS, *_COUNTS_OF_EXPERTS):
            if type(value := getattr(self, name)) is not int or value < 1:
                raise ValueError(f"{name} must be a whole number from 1 on, got {value!r}")
        for name in ("rope_theta", "rms_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be above 0, got {value!r}")
        for name in ("tie_word_embeddings", "norm_topk_prob"):
            if type(value := getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be true or false, got {value!r}")
        if not isinstance(self.mlp_only_layers, tuple | list):
            raise ValueError(f"mlp_only_layers must be a list, got {self.mlp_only_layers!r}")

    @property
    def yarn(self) -> dict[str, Any]:
        """Arguments of the part `yarn`; empty where RoPE is not stretched.

        Dual chunks never meet a distance beyond training and keep the trained frequencies, so with
        both in a config.json, YaRN's settings are not used. vLLM reads such a file the same way.
        """
        if self.dual_chunk_attention_config or not self.rope_scaling:
            return {}
        return {k: v for k, v in self.rope_scaling.items() if k != "rope_type" and v is not None}

    @property
    def context_length(self) -> int:
        """Tokens that the model can read: max_position_embeddings, or more where YaRN stretches.

        The published recipe adds `rope_scaling` and leaves max_position_embeddings as it was.
        """
        stretched = 0
        if self.yarn:
            stretched = int(self.yarn["factor"] * self.yarn["original_max_position_embeddings"])
        return max(self.max_position_embeddings, stretched)

    def is_sparse(self, layer: int) -> bool:
        """Whether the layer (counted from 0) has experts in place of one dense MLP."""
        if not self.num_experts or layer in self.mlp_only_layers:
            return False
        return (layer + 1) % self.decoder_sparse_step == 0

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Qwen2Config":
        """Builds a config from the content of a config.json, of any age.

        Keys that this class doesn't have are left out. RoPE's settings may stand as `rope_theta` and
        `rope_scaling` or, as newer files have it, together in `rope_parameters`.

        Raises:
            ValueError: another architecture, or a needed key is missing.
        """
        kind = values.get("model_type", "qwen2")
        if kind not in ("qwen2", "qwen2_moe"):
            raise ValueError(f"model_type is {kind!r}; this package runs 'qwen2' and 'qwen2_moe'")
        known = {field.name: field for field in dataclasses.fields(cls)}
        kept = {k: v for k, v in values.items() if k in known and v is not None}
        kept.update(rope_settings(values))
        if kind == "qwen2":
            kept.pop("num_experts", None)
        if isinstance(kept.get("mlp_only_layers"), list):
            kept["mlp_only_layers"] = tuple(kept["mlp_only_layers"])
        needed = [n for n, f in known.items() if f.default is dataclasses.MISSING and n not in kept]
        if needed:
            raise ValueError(
                f"the config has no {', '.join(needed)}; a Qwen2 config.json names them"
            )
        return cls(**kept)

    @classmethod
    def from_json(cls, path: str | Path) -> "Qwen2Config":
        """Reads a config.json file. Raises ValueError where it isn't one."""
        return cls.from_dict(read_json(Path(path)))

    def to_dict(self) -> dict[str, Any]:
        """The content of a config.json that from_dict, and other programs, read back."""
        values = dataclasses.asdict(self)
        kind = "qwen2_moe" if self.num_experts else "qwen2"
        classes = {"qwen2": "Qwen2ForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM"}
        if not self.num_experts:
            start = list(values).index("num_experts")
            values = dict(list(values.items())[:start])
        return {"model_type": kind, "architectures": [classes[kind]], **values}


def _published(
    size: int, width: int, layers: int, heads: int, kv_heads: int, **rest: Any
) -> Qwen2Config:
    """A base model: what they have in common is said here."""
    return Qwen2Config(
        hidden_size=size,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=131072,
        **{"vocab_size": 151936, **rest},
    )


CONFIGS: dict[str, Qwen2Config] = {
    "qwen2-0.5b": _published(896, 4864, 24, 14, 2, tie_word_embeddings=True),
    "qwen2-1.5b": _published(1536, 8960, 28, 12, 2, tie_word_embeddings=True),
    "qwen2-7b": _published(3584, 18944, 28, 28, 4, vocab_size=152064),
    "qwen2-57b-a14b": _published(3584, 18944, 28, 28, 4, num_experts=64),
    "qwen2-72b": _published(8192, 29568, 80, 64, 8, vocab_size=152064, rms_norm_eps=1e-5),
}
"""The five published base models, by name. Source: their config.json files; report, table 1."""
