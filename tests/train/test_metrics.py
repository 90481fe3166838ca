"""metrics.jsonl line by line, after a death and with a strange text; the bar; TensorBoard's curves."""

import json
import sys
from types import ModuleType

import pytest

from qwen2lite.train import metrics
from qwen2lite.train.metrics import Watch, read_metrics


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: `clock.now += 2`."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(metrics.time, "perf_counter", lambda: Clock.now)
    return Clock


def watch(folder, done=0, steps=9, tokens_per_step=50, **more):
    return Watch(folder, done, steps, tokens_per_step, bar=False, **more)


def raw(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").open(encoding="utf-8")]


def test_a_line_has_the_mean_loss_and_the_speed_since_the_line_before(tmp_path, clock):
    with watch(tmp_path, log_every=2) as it:
        for step in range(1, 5):
            clock.now += 0.25
            it.step(step, loss=float(step), gradient_norm=step / 2, learning_rate=0.1)
    assert raw(tmp_path) == [
        {"step": 2, "loss": 1.5, "gradient_norm": 1.0, "learning_rate": 0.1, "tokens": 100,
         "tokens_per_second": 200.0},
        {"step": 4, "loss": 3.5, "gradient_norm": 2.0, "learning_rate": 0.1, "tokens": 200,
         "tokens_per_second": 200.0},
    ]  # fmt: skip


def test_what_is_not_training_does_not_count_as_training(tmp_path, clock):
    with watch(tmp_path) as it:
        for step in (1, 2):
            clock.now += 0.5
            it.step(step, 1.0, 1.0, 0.1)
            clock.now += 60
            it.held_out(step, 2.0)
            clock.now += 60
            it.sample(step, "Once", " more")
    lines = raw(tmp_path)
    assert [line["tokens_per_second"] for line in lines if "loss" in line] == [100.0, 100.0]
    assert lines[1] == {"step": 1, "held_out_loss": 2.0}
    assert lines[2] == {"step": 1, "prompt": "Once", "sample": " more"}


def test_a_checkpoint_ends_a_line(tmp_path):
    with watch(tmp_path, log_every=4) as it:
        for step in range(1, 8):
            it.step(step, float(step), 1.0, 0.1, checkpoint=step in (3, 7))
    assert [(line["step"], line["loss"]) for line in raw(tmp_path)] == [(3, 2), (4, 4), (7, 6)]


def test_a_line_is_there_at_once(tmp_path):
    with watch(tmp_path) as it:
        it.step(1, 1.0, 1.0, 0.1)
        assert len(raw(tmp_path)) == 1


def test_nothing_of_what_was_resumed_is_twice(tmp_path):
    with watch(tmp_path) as it:
        for step in range(1, 6):
            it.step(step, 1.0, 1.0, 0.1)
            it.held_out(step, 2.0)
    with watch(tmp_path, done=3) as it:
        for step in range(4, 8):
            it.step(step, 3.0, 1.0, 0.1)
    steps = [(line["step"], line.get("loss", "held out")) for line in raw(tmp_path)]
    before = [(step, what) for step in (1, 2, 3) for what in (1.0, "held out")]
    assert steps == before + [(step, 3.0) for step in range(4, 8)]


def test_a_file_that_is_only_appended_to_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics, "_open_after", lambda path, done: path.open("a", encoding="utf-8"))
    with pytest.raises(AssertionError):
        test_nothing_of_what_was_resumed_is_twice(tmp_path)


def test_a_new_run_takes_out_the_lines_of_an_old_one(tmp_path):
    for loss in (1.0, 2.0):
        with watch(tmp_path) as it:
            it.step(1, loss, 1.0, 0.1)
    assert [line["loss"] for line in raw(tmp_path)] == [2.0]


GOOD = '{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n'


@pytest.mark.parametrize("strange", [
    '{"step": 3, "lo', "\n", "3\n", "[3]\n", '{"loss": 3.0}\n', '{"step": "3"}\n', "null\n",
    "\0\0\0\n", "\ufffd",
])  # fmt: skip
def test_a_strange_line_is_left_out_and_no_other(strange, tmp_path):
    path = tmp_path / "metrics.jsonl"
    first, second = GOOD.splitlines(keepends=True)
    for text in (GOOD + strange, first + strange.removesuffix("\n") + "\n" + second):
        path.write_text(text, encoding="utf-8")
        assert [line["loss"] for line in read_metrics(path)] == [2.0, 1.0]
    with watch(tmp_path, done=2) as it:
        it.step(3, 0.5, 1.0, 0.1)
    assert [line["loss"] for line in raw(tmp_path)] == [2.0, 1.0, 0.5]


def test_a_letter_that_was_cut_in_two_is_no_error(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(GOOD.encode() + '{"step": 3, "sample": "你'.encode()[:-1])
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize(
    "text", ["你好 ö", "a\nb\r\nc", "a\u2028b\u2029c\x85d\x0be\x1cf", '"\\', ""]
)
def test_samples_come_back_as_they_were(text, tmp_path):
    for done in (0, 1):
        with watch(tmp_path, done=done) as it:
            it.sample(done + 1, text, text)
    values = {"prompt": text, "sample": text}
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, **values},
        {"step": 2, **values},
    ]


def test_the_bar_begins_where_the_run_does(tmp_path, capsys):
    with Watch(tmp_path, 40, 50, 50, bar=True) as it:
        it.step(41, 1.25, 1.0, 0.1)
        it.held_out(41, 2.5)
        it.sample(41, "Once", " upon")
    shown = capsys.readouterr()
    assert "41/50" in shown.err and "loss=1.250" in shown.err and "held_out=2.500" in shown.err
    assert shown.out == "step 41: Once│ upon\n"


def test_without_a_bar_nothing_is_shown(tmp_path, capsys):
    with watch(tmp_path) as it:
        it.step(1, 1.0, 1.0, 0.1)
        it.sample(1, "Once", " upon")
    assert capsys.readouterr() == ("", "")


def test_without_tensorboard_the_setting_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="needs TensorBoard: pip install tensorboard, or set it"):
        watch(tmp_path, tensorboard=True)
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_gets_the_numbers(tmp_path, monkeypatch):
    """Its own purge_step hides the points of a run that died."""
    seen = []

    class SummaryWriter:
        def __init__(self, folder, purge_step):
            seen.append((folder, purge_step))

        def add_scalar(self, *point):
            seen.append(point)

        def close(self):
            seen.append("closed")

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    with watch(tmp_path, done=3, tensorboard=True) as it:
        it.step(4, 1.5, 2.0, 0.1)
        it.held_out(4, 2.5)
        it.sample(4, "Once", " upon")
    assert seen[0] == (str(tmp_path / "tensorboard"), 4)
    assert {("loss", 1.5, 4), ("gradient_norm", 2.0, 4), ("held_out_loss", 2.5, 4)} <= set(seen)
    assert "sample" not in [point[0] for point in seen] and seen[-1] == "closed"


def test_after_an_error_the_file_is_closed(tmp_path):
    with pytest.raises(KeyboardInterrupt), watch(tmp_path) as it:
        it.step(1, 1.0, 1.0, 0.1)
        raise KeyboardInterrupt
    assert it._file.closed
    assert len(raw(tmp_path)) == 1
