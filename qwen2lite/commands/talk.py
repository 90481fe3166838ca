"""chat and generate: a loaded model that writes to the screen."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwen2lite import Parts


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds both commands to the command line."""
    chat = commands.add_parser("chat", help="talk with an instruct model")
    chat.add_argument("prompt", nargs="?", help="one question; without it, a conversation")
    _add_model_flags(chat)
    chat.add_argument("--system", help="system prompt (default: the model's own)")
    _add_sampling_flags(chat, temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.1)
    chat.set_defaults(run=_chat)

    generate = commands.add_parser("generate", help="continue a text")
    generate.add_argument("prompt", help="the text to continue")
    _add_model_flags(generate)
    _add_sampling_flags(generate, temperature=0.0, top_k=0, top_p=1.0, repetition_penalty=1.0)
    generate.set_defaults(run=_generate)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", help="name, folder or .gguf file (default: the fetched 0.5B)")
    add("--mine", action="store_true", help="run on the parts that you kept in my_qwen2/")
    add("--device", default="auto", help="auto, cpu, cuda or mps (default: auto)")
    add(
        "--dtype",
        default="auto",
        help="number format of the weights: float32, bfloat16, float16, or int8 and int4 on a CPU "
        "(default: auto, bfloat16 where it is fast)",
    )
    add("--compile", action="store_true", help="compile first: a minute, then faster on a GPU")
    add(
        "--draft",
        choices=("int4", "int8"),
        help="on a CPU: the same model in so few bits writes ahead, and --dtype's checks it",
    )


def _add_sampling_flags(parser: argparse.ArgumentParser, **defaults: float) -> None:
    helps = {
        "temperature": "0 always takes the likeliest token, above 1 is bolder",
        "top_k": "choose among the k likeliest tokens; 0 is off",
        "top_p": "choose among the likeliest tokens that reach this probability; 1 is off",
        "repetition_penalty": "divides the scores of tokens that have occurred; 1 is off",
    }
    for name, default in defaults.items():
        flag = "--" + name.replace("_", "-")
        text = f"{helps[name]} (default: {default})"
        parser.add_argument(flag, type=type(default), default=default, help=text)
    parser.add_argument("--seed", type=int, help="repeats a run (default: another each time)")
    parser.add_argument(
        "--max-new-tokens", type=int, default=512, help="longest answer, in tokens (default: 512)"
    )


def _chat(flags: argparse.Namespace) -> None:
    from qwen2lite.text.chat import encode_chat

    if flags.prompt is not None and not flags.prompt.strip():
        raise ValueError("the prompt is empty: write a question, or leave it out to converse")
    if flags.prompt is None and sys.stdin is None:
        raise ValueError("there is no input to converse by; give the question as an argument")
    session = Session(flags)
    messages = [{"role": "system", "content": flags.system}] if flags.system is not None else []
    questions = [flags.prompt] if flags.prompt else _questions()
    for question in questions:
        messages.append({"role": "user", "content": question})
        prompt_ids = encode_chat(session.tokenizer, messages)
        answer = session.answer(prompt_ids, may_stop=flags.prompt is None)
        messages.append({"role": "assistant", "content": answer})


def _questions() -> Iterator[str]:
    print(
        "Write a question; Ctrl-C stops an answer, an empty line or Ctrl-D ends the conversation."
    )
    while True:
        try:
            question = input("\nyou> ").strip()
        except EOFError:
            return
        if not question:
            return
        yield question


def _generate(flags: argparse.Namespace) -> None:
    if not flags.prompt:
        raise ValueError("the prompt is empty: write the beginning of a text")
    session = Session(flags)
    print(flags.prompt, end="")
    session.answer(session.tokenizer.encode(flags.prompt))


def _kept_parts() -> "Parts":
    from qwen2lite.learn import my_parts

    return my_parts()


def source_of(flags: argparse.Namespace) -> str:
    """The model that --model names, else the fetched one."""
    from qwen2lite.weights.sources import default_model, resolve

    source = default_model() if flags.model is None else flags.model
    if source is None:
        raise FileNotFoundError("no model is fetched yet; run: python -m qwen2lite fetch")
    resolve(source)  # before a tokenizer is looked for in it
    return source


class Session:
    """A loaded model with its settings: says them first, and speed and memory after each answer."""

    def __init__(self, flags: argparse.Namespace):
        from qwen2lite import Qwen2Tokenizer, Sampling
        from qwen2lite.infer.fused import fuse
        from qwen2lite.infer.load import form, load, weight_bytes
        from qwen2lite.infer.remember import RememberingQwen2

        source = source_of(flags)
        names = ("repetition_penalty", "temperature", "top_k", "top_p", "seed")
        self.sampling = Sampling(**{name: getattr(flags, name) for name in names})
        self.max_new_tokens = flags.max_new_tokens
        if self.max_new_tokens < 1:
            raise ValueError(f"--max-new-tokens must be at least 1, got {self.max_new_tokens}")
        start = time.perf_counter()
        self.tokenizer = Qwen2Tokenizer.from_pretrained(source)
        self.parts = _kept_parts() if flags.mine else None
        model = load(source, flags.dtype, flags.device, flags.compile, self.parts)
        if not flags.compile:
            model = fuse(model)
        self.model = RememberingQwen2(model)
        self.draft = load(source, flags.draft, flags.device) if flags.draft else None
        loaded = [model] if self.draft is None else [model, self.draft]
        self.weight_bytes = weight_bytes(*loaded)
        print(
            f"model {source} · {model.device} · {', drafted in '.join(map(form, loaded))} · "
            f"loaded in {time.perf_counter() - start:.1f} s\n{self.sampling} · "
            f"max_new_tokens={self.max_new_tokens}\n"
        )

    def write_ids(self) -> Callable[..., Iterator[int]]:
        """Token by token, or by drafts."""
        from qwen2lite.infer.ahead import fastest_writer
        from qwen2lite.infer.speculate import Draft, speculate_ids

        if self.draft is None:
            return fastest_writer(self.model)
        likeliest = dataclasses.replace(self.sampling, temperature=0.0).sampler()
        return partial(speculate_ids, draft=Draft(self.draft, chooser=likeliest))

    def answer(self, prompt_ids: list[int], may_stop: bool = False) -> str:
        """Streams an answer to the screen and returns it.

        Args:
            prompt_ids: what it answers.
            may_stop: Ctrl-C ends the answer and nothing else.
        """
        from qwen2lite import generate
        from qwen2lite.infer.clock import Clock, peak_memory
        from qwen2lite.infer.remember import RememberingQwen2

        clock, model = Clock(), self.model
        pieces = []
        stops = self.tokenizer.eos_ids
        settings = (self.max_new_tokens, self.sampling, stops, self.write_ids())
        try:
            for piece in generate(model, self.tokenizer, prompt_ids, *settings):
                clock.tick()
                pieces.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if not may_stop:
                raise
            print(" … stopped", end="")
            self.model = RememberingQwen2(model.plain)  # who knows what half a step has kept
        except Exception as error:
            if self.parts is None or isinstance(error, ValueError | OSError):
                raise
            raise ValueError(
                f"with your parts the model raised {type(error).__name__}: {error}; look closer: "
                "python -m qwen2lite doctor"
            ) from error
        answer = "".join(pieces)
        tokens = len(self.tokenizer.encode(answer, allowed_special="none"))
        read = model.read_of(len(prompt_ids))
        print(f"\n\n{read}, {tokens} written · {clock.rates(tokens)}")
        print(f"memory: weights {self.weight_bytes / 1e6:,.0f} MB{peak_memory()}")
        if self.parts is not None:
            from qwen2lite.learn import receipt

            print(receipt(self.parts, self.model.config))
        return answer
