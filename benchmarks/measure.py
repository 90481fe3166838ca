"""What all benchmarks share: medians of interleaved runs, a table for people, JSON for programs."""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any


@dataclass
class Row:
    """One comparison. `ratio` > 1 means ours is better, whichever way the unit counts."""

    work: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    ratio: float


def parser(description: str) -> argparse.ArgumentParser:
    """A command line with the flags that every benchmark has: --json and --repeats."""
    flags = argparse.ArgumentParser(description=description)
    flags.add_argument("--json", action="store_true", help="print one JSON object a line")
    flags.add_argument(
        "--repeats", type=int, default=5, help="runs of each side (default: %(default)s)"
    )
    return flags


def medians(repeats: int, *sides: Callable[[], float]) -> list[float]:
    """Runs the sides in turn, so that a slow moment of the machine hits all; median of each.

    Each side runs once more before that, and what it then returns doesn't count.
    """
    for run in sides:
        run()
    results: list[list[float]] = [[] for _ in sides]
    for _ in range(repeats):
        for values, run in zip(results, sides, strict=True):
            values.append(run())
    return [statistics.median(values) for values in results]


def median_seconds(repeats: int, *sides: Callable[[], object]) -> list[float]:
    """`medians` of the time that each side takes."""
    return medians(repeats, *(partial(seconds, run) for run in sides))


def seconds(run: Callable[[], object]) -> float:
    """Time of one run."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextmanager
def processes(
    make: Callable[[str], Callable], names: Iterable[str]
) -> Iterator[dict[str, Callable]]:
    """Gives each side a process of its own: in one, a side's speed depends on what the others left of
    the memory. Calls wait for their result, so that no two sides run at once.

    Args:
        make: called in the process with the side's name; returns what the calls call. At the top of
            a module.
        names: of the sides.
    """
    context = multiprocessing.get_context("spawn")
    ends, children = {}, []
    for name in names:
        ends[name], theirs = context.Pipe()
        children.append(context.Process(target=_serve, args=(make, name, theirs), daemon=True))
        children[-1].start()
        theirs.close()
    try:
        yield {name: partial(_call, end) for name, end in ends.items()}
    finally:
        for end, child in zip(ends.values(), children, strict=True):
            end.close()
            child.join()


def _serve(make: Callable[[str], Callable], name: str, end: Connection) -> None:
    run = make(name)
    with suppress(EOFError):  # the other end is closed
        while True:
            end.send(run(*end.recv()))


def _call(end: Connection, *arguments: object) -> Any:
    end.send(arguments)
    return end.recv()


def show(rows: list[Row], as_json: bool) -> None:
    """Prints the rows as a table, or as one JSON object a line."""
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row)))
        return
    width = max(len(row.work) for row in rows)
    peer_width = max(len(row.peer_name) for row in rows)
    print(f"{'work':<{width}}  {'ours':>9}  {'peer':>9}  {'unit':<9}  {'ratio':>6}  peer")
    for row in rows:
        print(
            f"{row.work:<{width}}  {row.ours:>9.2f}  {row.peer:>9.2f}  {row.unit:<9}  "
            f"{row.ratio:>5.2f}×  {row.peer_name:<{peer_width}}"
        )
