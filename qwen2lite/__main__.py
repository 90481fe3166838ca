"""The command line: python -m qwen2lite COMMAND; the longer commands stand in commands/."""

import argparse
import os
import sys

from qwen2lite.commands import bench, evaluate, talk, train

PROGRAM = "python -m qwen2lite"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command. Returns 0, 2 for a wrong input or a missing file, 130 for Ctrl-C, 141 where
    nobody reads on, as after `| head -1`; `doctor` 1 where it found a fault."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console may not speak UTF-8 by itself
            stream.reconfigure(encoding="utf-8", errors="replace")
    flags = _parser().parse_args(arguments)
    try:
        status = flags.run(flags) or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # what can't be written is to be said here, not when Python ends
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the rest goes nowhere
        return 141
    except (ValueError, OSError, ModuleNotFoundError) as error:
        # Python names the module that it didn't find; the package's own say what to install.
        if isinstance(error, ModuleNotFoundError) and error.name:
            raise
        print(f"{PROGRAM}: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def _sentence(error: Exception) -> str:
    """The package's own words, or the system's without its numbers."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.filename is None:  # it may be the output, or a connection
        return error.strerror
    return f"{error.filename} can't be used ({error.strerror}); choose another place"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Qwen2 from scratch.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    fetch = commands.add_parser("fetch", help="download a model into the cache, once")
    fetch.add_argument(
        "model",
        nargs="?",
        default="default",
        help="name (default: the 0.5B for chat, about 0.5–1 GB)",
    )
    fetch.set_defaults(run=_fetch)

    talk.add(commands)
    train.add(commands)
    bench.add(commands)
    evaluate.add(commands)

    encode = commands.add_parser("encode", help="show the tokens of a text")
    encode.add_argument("text", help="any text")
    encode.add_argument("--model", help="name, folder or .gguf file (default: the fetched 0.5B)")
    encode.set_defaults(run=_encode)

    doctor = commands.add_parser("doctor", help="lay the parts you kept beside the reference")
    doctor.add_argument("--model", help="real weights too: name, folder or .gguf file")
    doctor.set_defaults(run=_doctor)

    report = commands.add_parser("report", help="write a page on your model, to hand in")
    report.add_argument("--model", help="name, folder or .gguf file (default: the fetched 0.5B)")
    report.set_defaults(run=_report)

    lab = commands.add_parser("lab", help="copy the lessons to work/ and open them in JupyterLab")
    lab.set_defaults(run=_lab)
    return parser


def _fetch(flags: argparse.Namespace) -> None:
    from qwen2lite.weights.fetch import fetch

    print(fetch(flags.model))


def _encode(flags: argparse.Namespace) -> None:
    from qwen2lite.text.tokenizer import Qwen2Tokenizer

    tokenizer = Qwen2Tokenizer.from_pretrained(talk.source_of(flags))
    ids = tokenizer.encode(flags.text)
    for token in ids:
        print(f"{token:>7}  {tokenizer.decode([token])!r}")
    print(f"{len(ids)} tokens, {len(flags.text)} characters")


def _doctor(flags: argparse.Namespace) -> int:
    from qwen2lite.learn import my_parts, receipt
    from qwen2lite.learn.doctor import doctor
    from qwen2lite.learn.keep import require_yours

    parts = my_parts()
    require_yours(parts)
    print(receipt(parts))
    found = doctor(parts)
    if found.healthy and flags.model:
        found = doctor(parts, flags.model)
    print(found)
    return 0 if found.healthy else 1


def _report(flags: argparse.Namespace) -> None:
    from qwen2lite.learn.report import write_report

    print(write_report(flags.model))


def _lab(flags: argparse.Namespace) -> None:
    from qwen2lite.learn.work import lab

    lab()


if __name__ == "__main__":
    sys.exit(main())
