"""Settings from TOML: defaults, what is refused, and which sentence says so."""

import dataclasses
import math

import pytest

from qwen2lite.train.schedule import SCHEDULES
from qwen2lite.train.settings import TrainSettings, build, read_toml


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "run.toml"
    path.write_bytes(text.encode(encoding))
    return path


def test_what_is_not_there_has_its_default(tmp_path):
    assert TrainSettings.from_toml(written(tmp_path, "")) == TrainSettings()
    got = TrainSettings.from_toml(written(tmp_path, "[train]\nsteps = 300\n[other]\nx = 1"))
    assert got == dataclasses.replace(TrainSettings(), steps=300)


def test_every_setting_can_be_written(tmp_path):
    text = """[train]
        steps = 7
        learning_rate = 1
        schedule = "cooldown"
        warmup_steps = 3
        cooldown_steps = 4
        max_gradient_norm = inf
        document_mask = true
        sample_prompts = ["Es war", "你好"]
    """
    got = TrainSettings.from_toml(written(tmp_path, text))
    assert got.learning_rate == 1.0, "a whole number is a number"
    assert got.max_gradient_norm == math.inf
    assert got.document_mask is True
    assert got.sample_prompts == ("Es war", "你好")


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    path = written(tmp_path, "[train]\nsteps = 300", encoding="utf-8-sig")
    assert TrainSettings.from_toml(path).steps == 300


@pytest.mark.parametrize(
    "key, near",
    [
        ("learnin_rate", "learning_rate"),
        ("lr_schedule", "schedule"),
        ("warmup", "warmup_steps"),
        ("batchsize", "batch_size"),
        ("Seed", "seed"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path, key, near):
    with pytest.raises(ValueError) as caught:
        TrainSettings.from_toml(written(tmp_path, f"[train]\n{key} = 1"))
    assert f"[train] has no setting {key!r}; did you mean {near!r}? It may have " in str(
        caught.value
    )
    assert "keep_checkpoints" in str(caught.value), "all settings are listed"


@pytest.mark.parametrize(
    "line, wanted",
    [
        ("steps = 10.0", "steps in [train] must be a whole number, such as 1000; got 10.0"),
        ("steps = true", "steps in [train] must be a whole number, such as 1000; got True"),
        ("learning_rate = '1e-3'", "learning_rate in [train] must be a number, such as 0.003; got"),
        ("floor = false", "floor in [train] must be a number, such as 0.1; got False"),
        ("compile = 1", "compile in [train] must be true or false, such as False; got 1"),
        ("device = 0", "device in [train] must be a string, such as 'auto'; got 0"),
        ("sample_prompts = 'Once'", "sample_prompts in [train] must be a list, such as ()"),
        ("sample_prompts = ['a', 1]", "sample_prompts must be strings that aren't empty, got"),
        ("sample_prompts = ['']", "sample_prompts must be strings that aren't empty, got ('',)"),
    ],
)
def test_a_value_of_another_kind_is_refused(tmp_path, line, wanted):
    with pytest.raises(ValueError) as caught:
        TrainSettings.from_toml(written(tmp_path, f"[train]\n{line}"))
    assert wanted in str(caught.value)


@pytest.mark.parametrize("changes", [{"steps": 1e3}, {"learning_rate": "1e-3"}, {"compile": 0}])
def test_kinds_are_checked_in_python_too(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"{name} in TrainSettings must be .* such as .* got"):
        TrainSettings(**changes)


def test_a_list_of_prompts_will_do_in_python():
    assert list(TrainSettings(sample_prompts=["a"]).sample_prompts) == ["a"]


@pytest.mark.parametrize(
    "changes, wanted",
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"seed": -1}, "seed must be 0 or above"),
        ({"seed": 2**64}, "seed must be 0 or above, and below 2^64"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or above"),
        ({"weight_decay": math.inf}, "weight_decay must be 0 or above, and not infinite, got inf"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and not infinite, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate must be above 0 and not infinite, got nan"),
        ({"learning_rate": math.inf}, "learning_rate must be above 0 and not infinite, got inf"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be above 0, got 0.0"),
        ({"beta2": 1.0}, "beta2 must be at least 0 and below 1, got 1.0"),
        ({"floor": 1.1}, "floor must be from 0 to 1, got 1.1"),
        ({"schedule": "step"}, "schedule must be one of cosine, linear, cooldown; got 'step'"),
        ({"optimizer": "adam"}, "optimizer must be one of fused, ours; got 'adam'"),
        ({"precision": "fp16"}, "precision must be one of auto, float32, bfloat16; got 'fp16'"),
        (
            {"steps": 10, "warmup_steps": 6, "cooldown_steps": 5},
            "warmup_steps 6 and cooldown_steps 5 don't fit into 10 steps; make them fewer",
        ),
    ],
)
def test_a_value_out_of_range_is_refused(changes, wanted):
    with pytest.raises(ValueError) as caught:
        TrainSettings(**changes)
    assert wanted in str(caught.value)


def test_at_the_edge_of_the_range(tmp_path):
    TrainSettings(
        steps=10, warmup_steps=6, cooldown_steps=4, floor=0.0, beta1=0.0, evaluate_every=0
    )
    TrainSettings(warmup_steps=0, floor=1.0, weight_decay=0.0, max_gradient_norm=math.inf)


@pytest.mark.parametrize(
    "text",
    [b"steps 10", b"[train\nsteps = 1", b"[train]\nsteps = 1\nsteps = 2", b"\xff\xfe[train]"],
)
def test_what_is_not_toml_is_refused_with_its_place(tmp_path, text):
    path = tmp_path / "run.toml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match="run.toml is not TOML: "):
        TrainSettings.from_toml(path)


def test_train_must_be_a_table(tmp_path):
    for text in ("train = 3", "[[train]]\nsteps = 3"):
        with pytest.raises(ValueError, match=r"train must be a table, which begins with \[train\]"):
            TrainSettings.from_toml(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no .*nowhere.toml; runs/ holds files"):
        read_toml(tmp_path / "nowhere.toml")
    with pytest.raises(FileNotFoundError, match="there is no"):
        read_toml(tmp_path)


def test_a_table_may_have_keys_that_it_needs():
    @dataclasses.dataclass
    class Model:
        layers: int
        path: str | None = None

    assert build(Model, {"layers": 2, "path": "x"}, "model") == Model(2, "x")
    with pytest.raises(ValueError, match=r"\[model\] has no layers, which it needs"):
        build(Model, {"path": "x"}, "model")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_learning_rates_are_the_schedule_times_the_peak(schedule):
    settings = TrainSettings(
        steps=20, warmup_steps=4, cooldown_steps=6, learning_rate=0.02, floor=0.25,
        schedule=schedule,
    )  # fmt: skip
    rates = [settings.learning_rates()(step) for step in range(20)]
    assert rates[:4] == pytest.approx([0.005, 0.01, 0.015, 0.02], rel=1e-12)
    assert rates[-1] == 0.02 * 0.25
    plateau = rates[4:14] == [0.02] * 10
    assert plateau == (schedule == "cooldown")


def test_tokens_of_a_step():
    settings = TrainSettings(sequence_length=7, batch_size=5, accumulation=3)
    assert settings.tokens_per_step == 105
