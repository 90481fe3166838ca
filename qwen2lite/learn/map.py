"""The map of the model: what happens to a text, in order, and which lesson builds it."""

# What happens, the lesson that builds it, and whether it is inside a layer.
_STEPS = (
    ("byte-level BPE", 11, False),
    ("Qwen2's own tokenizer", 12, False),
    ("chat template", 13, False),
    ("token ids", 0, False),
    ("embedding", 31, False),
    ("RMSNorm", 21, True),
    ("queries, keys, values", 24, True),
    ("RoPE", 22, True),
    ("attention", 23, True),
    ("add to the stream", 26, True),
    ("RMSNorm", 21, True),
    ("SwiGLU", 25, True),
    ("add to the stream", 26, True),
    ("RMSNorm", 21, False),
    ("output matrix", 31, False),
    ("a score for every token", 0, False),
    ("sampling", 33, False),
)


def show_map(lesson: int = 0) -> None:
    """Prints the model step by step: ■ built in earlier lessons, ▶ in this one, □ still to come.

    Args:
        lesson: number of the lesson that one stands in; 0 stands before all of them.
    """
    print("        text")
    was_inside = False
    for step, built_in, inside in _STEPS:
        if inside != was_inside:
            print(f"      │  {'┌──────────' if inside else '└────────── × 24'}")
        was_inside = inside
        print(_line(step, built_in, inside, lesson))
    print("        next token, and again from the ids")


def _line(step: str, built_in: int, inside: bool, lesson: int) -> str:
    if not built_in:
        return f"        {step}"
    sign = "▶" if built_in == lesson else "■" if built_in < lesson else "□"
    here = "◀ this lesson" if built_in == lesson else ""
    return f" {sign} {built_in} │  {'│ ' if inside else ''}{step:24}{here}".rstrip()
