"""What all benchmarks share: medians of interleaved runs, a table for people, JSON for programs."""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial


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
    flags.add_argument("--repeats", type=int, default=5, help="runs of each side (default: 5)")
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
