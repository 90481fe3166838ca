"""What a config may say of texts beyond training: `rope_scaling`, and `dual_chunk_attention_config`."""

from typing import Any

RECIPE = '{"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}'
"""How the report's models are stretched to 131,072 tokens, as `rope_scaling`."""
_YARN_KEYS = {
    "rope_type",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
}


def rope_settings(values: dict[str, Any]) -> dict[str, Any]:
    """`rope_theta` and `rope_scaling`, from whichever of the two spellings a config.json uses."""
    # Newer files have rope_parameters, and whoever adds the report's recipe adds rope_scaling.
    spelt = [values.get(name) or {} for name in ("rope_scaling", "rope_parameters")]
    if strange := next((one for one in spelt if not isinstance(one, dict)), None):
        raise ValueError(f"RoPE's settings are {strange!r}, and a table was wanted: {RECIPE}")
    settings: dict[str, Any] = {"rope_scaling": spelt[0] or spelt[1]}
    thetas = [one["rope_theta"] for one in (*spelt, values) if one.get("rope_theta") is not None]
    if thetas:
        settings["rope_theta"] = float(theta) if isinstance(theta := thetas[0], int) else theta
    return settings


def checked_scaling(given: dict[str, Any]) -> dict[str, Any] | None:
    """YaRN's settings with the type under its newer name; None where RoPE is left alone."""
    kind = given.get("rope_type", given.get("type", "default"))
    if kind == "default":
        return None
    if kind != "yarn":
        raise ValueError(
            f"rope_scaling of type {kind!r} is not built, only 'yarn'; remove it from the config"
        )
    scaling = {k: v for k, v in given.items() if k not in ("rope_theta", "type")}
    for needed in ("factor", "original_max_position_embeddings"):
        if scaling.get(needed) is None:
            raise ValueError(
                f"rope_scaling of type 'yarn' has no {needed}; Qwen2's own recipe is {RECIPE}"
            )
    unknown = sorted(scaling.keys() - _YARN_KEYS)
    if unknown:
        raise ValueError(
            f"rope_scaling of type 'yarn' has {', '.join(unknown)}, which YaRN has no use for; "
            f"it may have {', '.join(sorted(_YARN_KEYS))}"
        )
    return {**scaling, "rope_type": kind}


def checked_chunks(given: dict[str, Any]) -> dict[str, int]:
    """Dual chunk attention's three numbers; the last is 0 where scores don't grow with length.

    The keys of sparse attention are left out: it makes the same attention faster, and less exact.
    """
    names = ("chunk_size", "local_size", "original_max_position_embeddings")
    unknown = [k for k in given if k not in names and not k.startswith("sparse_attention")]
    if unknown:
        raise ValueError(
            f"dual_chunk_attention_config has {', '.join(unknown)}; it may have {', '.join(names)}"
        )
    chunks = {name: given.get(name) or 0 for name in names}
    if not 0 < chunks["local_size"] < chunks["chunk_size"]:
        raise ValueError(
            "dual_chunk_attention_config needs 0 < local_size < chunk_size, got local_size "
            f"{given.get('local_size')} and chunk_size {given.get('chunk_size')}; "
            "chunk_size 32768 and local_size 1024 suit a model trained on 32768 tokens"
        )
    if chunks["original_max_position_embeddings"] < 0:
        raise ValueError(
            "original_max_position_embeddings in dual_chunk_attention_config is the number of "
            f"tokens the model was trained on, got {chunks['original_max_position_embeddings']}; "
            "leave it out where scores are not to grow with the length of the text"
        )
    return chunks
