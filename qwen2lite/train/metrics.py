"""What a run shows: a progress bar, one JSON object a line, and TensorBoard's curves if asked."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm


class Watch:
    """Counts steps, and shows and keeps what was measured.

    metrics.jsonl is appended to, and every line has the "step" it was measured after. Lines beyond
    `done` are taken out first: a run that died wrote them, and the one that resumes writes them
    again.

    Args:
        folder: of the run; None for a process that shows and writes nothing, because another does.
        done: steps made by earlier runs.
        steps: in all.
        tokens_per_step: for the speed.
        log_every: steps between lines; one more is written with each checkpoint.
        bar: show progress.
        tensorboard: write for TensorBoard too.

    Raises:
        ValueError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path | None,
        done: int,
        steps: int,
        tokens_per_step: int,
        log_every: int = 1,
        bar: bool = True,
        tensorboard: bool = False,
    ):
        self._board = _board(folder / "tensorboard", done) if tensorboard and folder else None
        self._file = _open_after(folder / "metrics.jsonl", done) if folder else _nowhere()
        quiet = not bar or folder is None
        self._bar = tqdm(total=steps, initial=done, unit="step", disable=quiet, dynamic_ncols=True)
        self.tokens_per_step, self.log_every = tokens_per_step, log_every
        self._losses: list[float] = []
        self._shown: dict[str, str] = {}
        self._seconds, self._since = 0.0, time.perf_counter()

    def step(
        self,
        step: int,
        loss: float,
        gradient_norm: float,
        learning_rate: float,
        checkpoint: bool = False,
    ) -> None:
        """A step was made. The loss of a line is the mean since the line before.

        There is a line before each checkpoint, so that the run that goes on from it has nothing to
        remember.
        """
        self._seconds += time.perf_counter() - self._since
        self._losses.append(loss)
        self._bar.update()
        if checkpoint or step % self.log_every == 0:
            speed = len(self._losses) * self.tokens_per_step / self._seconds
            loss = sum(self._losses) / len(self._losses)
            self.write(
                step,
                loss=loss,
                gradient_norm=gradient_norm,
                learning_rate=learning_rate,
                tokens=step * self.tokens_per_step,
                tokens_per_second=round(speed, 1),
            )
            self._show(loss=f"{loss:.3f}", speed=f"{speed:,.0f} tokens/s")
            self._losses, self._seconds = [], 0.0
        self._since = time.perf_counter()

    def held_out(self, step: int, loss: float) -> None:
        """The model was evaluated. That, like all between two steps, doesn't count as training."""
        self.write(step, held_out_loss=loss)
        self._show(held_out=f"{loss:.3f}")
        self._since = time.perf_counter()

    def sample(self, step: int, prompt: str, continuation: str) -> None:
        """The model wrote something."""
        self.write(step, prompt=prompt, sample=continuation)
        if not self._bar.disable:
            self._bar.write(f"step {step}: {prompt}│{continuation}")
        self._since = time.perf_counter()

    def write(self, step: int, **values: Any) -> None:
        """Adds a line. It is in the file at once, for whoever looks while the run goes on."""
        self._file.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")
        self._file.flush()
        for name, value in values.items():
            if self._board and isinstance(value, int | float):
                self._board.add_scalar(name, value, step)

    def _show(self, **values: str) -> None:
        self._shown.update(values)
        self._bar.set_postfix(self._shown)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()
        self._file.close()
        if self._board:
            self._board.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl. One that was cut short or isn't of a run is left out."""
    lines = []
    # Not splitlines(): a sample may hold U+2028 or U+0085, which are line breaks to Python only.
    for line in Path(path).read_text(encoding="utf-8", errors="replace").split("\n"):
        with suppress(json.JSONDecodeError):
            values = json.loads(line)
            if isinstance(values, dict) and isinstance(values.get("step"), int):
                lines.append(values)
    return lines


def _open_after(path: Path, done: int) -> Any:
    """The file with the lines up to step `done`, open for more."""
    lines = read_metrics(path) if path.exists() else []
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            if line["step"] <= done:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    part.replace(path)
    return path.open("a", encoding="utf-8", newline="\n")


def _nowhere() -> Any:
    return Path(os.devnull).open("w", encoding="utf-8")


def _board(folder: Path, done: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "tensorboard = true needs TensorBoard: pip install tensorboard, or set it to false; "
            "metrics.jsonl has the same numbers"
        ) from None
    return SummaryWriter(str(folder), purge_step=done + 1)
