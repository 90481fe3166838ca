"""Five maps: of the model, training, experts, alignment and use, each step with its lesson."""

# What happens, the lesson that builds it, and whether it is inside what is done many times.
_MODEL = (
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
_TRAINING = (
    ("quality filters", 41, False),
    ("deduplication", 41, False),
    ("decontamination", 41, False),
    ("mixture by shares", 41, False),
    ("choice of the shares", 45, False),
    ("token file", 41, False),
    ("loader", 41, True),
    ("model", 31, True),
    ("loss", 43, True),
    ("gradient", 43, True),
    ("mean over processes", 44, True),
    ("clipping", 42, True),
    ("AdamW, learning rate", 42, True),
    ("checkpoint", 43, False),
)
_EXPERTS = (
    ("copies of its MLPs", 63, False),
    ("shuffle, cut, half anew", 63, False),
    ("norms, attention", 26, True),
    ("router's probabilities", 61, True),
    ("the chosen experts", 61, True),
    ("shared expert, its gate", 62, True),
    ("add to the stream", 26, True),
    ("loss on the next token", 43, False),
    ("balance of the load", 62, False),
)
_ALIGNMENT = (
    ("chat template", 13, False),
    ("which tokens are learnt", 71, False),
    ("whole ones in a row", 71, False),
    ("model", 31, True),
    ("loss of the answers", 71, True),
    ("AdamW, learning rate", 42, True),
    ("rewards from pairs", 72, False),
    ("better answers likelier", 73, False),
    ("merged with what SFT did", 73, False),
    ("a value for every token", 74, False),
    ("an examination", 75, False),
)
_USE = (
    ("tensors out of a file", 32, False),
    ("fewer bits a weight", 82, False),
    ("compiled steps", 83, False),
    ("prefill, KV cache", 34, True),
    ("rows of a batch", 35, True),
    ("bytes and products", 81, True),
    ("next token", 33, True),
    ("guesses ahead, checked", 85, True),
    ("a folder for others", 84, False),
)


def show_map(lesson: int = 0) -> None:
    """Prints a map step by step: ■ built in earlier lessons, ▶ in this one, □ still to come.

    In the lessons 41 to 49 it is the map of training, in 61 to 69 that of experts, in 71 to 79 that of
    alignment, in 81 to 89 that of using a model, else that of the model.

    Args:
        lesson: number of the lesson that one stands in; 0 stands before all of them.
    """
    if lesson // 10 == 4:
        _show("documents", _TRAINING, "every step", "a trained model", lesson)
    elif lesson // 10 == 6:
        _show("a trained dense model", _EXPERTS, "× 28", "a mixture of experts", lesson)
    elif lesson // 10 == 7:
        _show("conversations", _ALIGNMENT, "every step", "a model that answers", lesson)
    elif lesson // 10 == 8:
        _show("a trained model", _USE, "every token", "answers, here and elsewhere", lesson)
    else:
        _show("text", _MODEL, "× 24", "next token, and again from the ids", lesson)


def _show(
    start: str, steps: tuple[tuple[str, int, bool], ...], times: str, end: str, lesson: int
) -> None:
    print(f"        {start}")
    was_inside = False
    for step, built_in, inside in steps:
        if inside != was_inside:
            print(f"      │  {'┌──────────' if inside else f'└────────── {times}'}")
        was_inside = inside
        print(_line(step, built_in, inside, lesson))
    print(f"        {end}")


def _line(step: str, built_in: int, inside: bool, lesson: int) -> str:
    if not built_in:
        return f"        {step}"
    sign = "▶" if built_in == lesson else "■" if built_in < lesson else "□"
    here = "◀ this lesson" if built_in == lesson else ""
    return f" {sign} {built_in} │  {'│ ' if inside else ''}{step:24}{here}".rstrip()
