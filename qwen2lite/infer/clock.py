"""How long an answer took and how much memory it needed, in the words of the command line."""

import sys
import time


class Clock:
    """Separates the time to the first token from the time of all others. `tick` at each token."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.first = self.last = self.start

    def tick(self) -> None:
        """A piece of text has come."""
        self.last = time.perf_counter()
        if self.first == self.start:
            self.first = self.last

    def rates(self, tokens: int) -> str:
        """Says the wait in seconds and, for two tokens or more, tokens a second after it."""
        wait = f"first token after {self.first - self.start:.2f} s"
        if tokens < 2 or self.last == self.first:
            return wait
        return f"{wait}, then {(tokens - 1) / (self.last - self.first):.1f} tokens/s"


def peak_bytes() -> int:
    """The most memory this process has had, in bytes; 0 where the system keeps no count of it."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def peak_memory() -> str:
    """Peak memory of this process as the end of a sentence, where the system keeps count of it."""
    peak = peak_bytes()
    return f", process peak {peak / 1e6:,.0f} MB" if peak else ""
