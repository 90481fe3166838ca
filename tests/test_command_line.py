"""The command line as a person meets it: a real process, its words and its exit status."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import qwen2lite
from qwen2lite.__main__ import _parser, main
from qwen2lite.commands.evaluate import BY
from qwen2lite.evaluate.choice import WAYS, is_right, read_questions, score_questions
from qwen2lite.evaluate.uncertainty import wilson
from qwen2lite.infer.load import load
from qwen2lite.infer.sample import CHAT_SAMPLING, Sampling
from qwen2lite.text.tokenizer import Qwen2Tokenizer
from qwen2lite.train.plan import plan
from qwen2lite.train.world import CITIES, people
from tests.conftest import REAL_MODEL

TINY = str(Path(__file__).parents[1] / "data" / "qwen2-tiny")
SUMS = str(Path(__file__).parents[1] / "data" / "exam" / "sums.jsonl")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "qwen2lite", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize(
    "command", ["fetch", "chat", "generate", "train", "plan", "encode", "doctor", "lab", "bench",
                "evaluate", "report"],
)  # fmt: skip
def test_every_command_has_help(command):
    result = run(command, "--help")
    assert result.returncode == 0
    assert "usage" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["chat", " "], "the prompt is empty"),
        (["generate", ""], "the prompt is empty: write the beginning"),
        (["doctor"], "no part of yours is kept yet"),
        (["generate", "Hello"], "no model is fetched yet"),
        (["encode", "Hello", "--model", "qwen2-0.5c"], "did you mean qwen2-0.5b"),
        (["encode", "Hello", "--model", "qwen2-72b"], "python -m qwen2lite fetch qwen2-72b"),
        (["train", "nowhere.toml"], "there is no file nowhere.toml"),
        (["plan", "--memory", "inf"], "memory must be above 0 and not infinite"),
        (["plan", "--model", "8b"], "no published Qwen2 is called '8b'"),
        (["evaluate", "nowhere.jsonl"], "there is no file nowhere.jsonl; name one of questions"),
        (["evaluate", "."], "there is no file ."),
        (["fetch", ""], "the model's name is empty"),
        (["generate", "Hello", "--model", ""], "the model's name is empty"),
        (["generate", "Hello", "--model", f"{TINY}/model.safetensors"], "or the folder that holds"),
        (["encode", "Hello", "--model", r"C:\models\qwen2"], r"is called 'C:\models\qwen2'"),
        (["generate", "Hello", "--model", TINY, "--device", "meta"], "device 'meta' can't be used"),
        (
            ["generate", "Hello", "--model", TINY, "--seed", str(2**64)],
            "seed must be a number of 64",
        ),
        (["evaluate", SUMS, "--shots", "-1"], "--shots must be 0 or more"),
        (["evaluate", SUMS], "no model is fetched yet"),
        (["fetch", "qwen3"], "no file, folder or model is called 'qwen3'"),
    ],
)
def test_wrong_input_is_one_clear_sentence_and_status_2(arguments, says, tmp_path):
    places = {"QWEN2LITE_CACHE": str(tmp_path), "QWEN2LITE_HOME": str(tmp_path)}
    result = run(*arguments, **places)
    assert result.returncode == 2
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_a_place_that_cannot_be_used_is_named_without_the_systems_numbers(tmp_path, capsys):
    recipe, file = tmp_path / "run.toml", tmp_path / "a file"
    recipe.write_text("[model]\nlike = 'qwen2-0.5b'", "utf-8")
    file.touch()
    assert main(["train", str(recipe), "--folder", str(file)]) == 2
    said = capsys.readouterr().err
    assert str(file) in said and "can't be used" in said and "Errno" not in said


def shell(pipeline: str) -> str:
    """What a pipeline says, and how the command in it ended."""
    command = f"{shlex.quote(sys.executable)} -m qwen2lite"
    text = pipeline.format(command=command) + "; echo status ${{PIPESTATUS[0]}}".format()
    done = subprocess.run([BASH, "-c", text], capture_output=True, text=True, encoding="utf-8")
    return done.stdout + done.stderr


BASH = shutil.which("bash")


@pytest.mark.skipif(BASH is None, reason="not checked: there is no bash here")
def test_a_reader_that_leaves_early_gets_no_complaint():
    said = shell("{command} plan | true")
    assert said.split() == ["status", "141"]


@pytest.mark.skipif(BASH is None, reason="not checked: there is no bash here")
def test_a_conversation_without_input_is_refused_and_a_question_needs_none():
    said = shell(f"{{command}} chat --model {shlex.quote(TINY)} <&-")
    assert "give the question as an argument" in said and "Traceback" not in said
    assert said.splitlines()[0] == "status 2"
    said = shell(f"{{command}} chat Hello --model {shlex.quote(TINY)} --max-new-tokens 2 <&-")
    assert "2 written" in said and "status 0" in said


def test_a_library_that_is_to_be_installed_is_named_and_a_broken_import_shows(
    monkeypatch, capsys, tmp_path
):
    recipe = tmp_path / "run.toml"
    recipe.write_text('[model]\nlike = "qwen2-0.5b"\n[data]\nsources = ["hub:a/b"]', "utf-8")
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert main(["train", str(recipe), "--folder", str(tmp_path / "run")]) == 2
    assert "pip install datasets" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "qwen2lite.train.recipe", None)
    with pytest.raises(ModuleNotFoundError, match="qwen2lite.train.recipe"):
        main(["train", str(recipe)])


@pytest.mark.real
def test_encode_shows_tokens(real_tokenizer):
    result = run("encode", "Hello world", "--model", REAL_MODEL)
    assert result.returncode == 0
    assert "9707  'Hello'" in result.stdout
    assert "2 tokens" in result.stdout


@pytest.mark.real
def test_chat_answers_and_says_settings_first_and_speed_last(real_tokenizer):
    question = "Write a Python function that reverses a string."
    result = run("chat", question, "--model", REAL_MODEL, "--temperature", "0",
                 "--max-new-tokens", "80")  # fmt: skip
    assert result.returncode == 0, result.stderr
    first, *_, last = result.stdout.strip().splitlines()
    assert first.startswith(f"model {REAL_MODEL}")
    assert "def " in result.stdout
    assert "[::-1]" in result.stdout or "reversed" in result.stdout
    assert "tokens/s" in result.stdout
    assert last.startswith("memory: weights")


def test_ctrl_c_stops_an_answer_and_the_conversation_goes_on(monkeypatch, capsys):
    asked, questions = [], iter(["Who is Ada Ash?", "And Ben Brook?", ""])

    def broken_off(model, tokenizer, prompt_ids, *_):
        asked.append(tokenizer.decode(prompt_ids))
        yield from ("A ", "lake")
        if len(asked) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(qwen2lite, "generate", broken_off)
    monkeypatch.setattr("builtins.input", lambda _: next(questions))
    assert main(["chat", "--model", TINY]) == 0
    out = capsys.readouterr().out
    assert "A lake … stopped" in out and out.count("A lake") == 2
    assert "Ada Ash" in asked[1] and "A lake<|im_end|>" in asked[1] and "Ben Brook" in asked[1]

    asked.clear()
    assert main(["chat", "Who is Ada Ash?", "--model", TINY]) == 130, (
        "there is nothing to go on with"
    )


@pytest.mark.parametrize("temperature", ["0", "0.8"])
def test_a_draft_changes_no_token(temperature, tmp_path):
    common = ("generate", "One sunny morning", "--model", TINY, "--dtype", "float32", "--seed", "3",
              "--temperature", temperature, "--max-new-tokens", "60")  # fmt: skip
    plain = run(*common)
    drafted = run(*common, "--draft", "int4", QWEN2LITE_CACHE=str(tmp_path))
    assert drafted.returncode == 0, drafted.stderr
    assert "drafted in int4" in drafted.stdout
    text, other = (r.stdout.split("max_new_tokens=60")[1] for r in (plain, drafted))
    assert text.split("tokens read")[0] == other.split("tokens read")[0]


def test_the_plan_of_a_large_run_is_a_table():
    result = run("plan", "--model", "7b", "--gpus", "8")
    assert result.returncode == 0, result.stderr
    assert "7,615,616,512 parameters" in result.stdout and "8 GPUs" in result.stdout
    assert "total" in result.stdout and "FLOPs a token" in result.stdout


def test_every_setting_of_a_plan_arrives_in_its_unit(capsys):
    assert main(["plan"]) == 0
    assert capsys.readouterr().out == f"{plan('0.5b', memory=80e9)}\n"
    words = "--gpus 2 --memory 40 --sequence-length 2048 --batch-size 3 --activation-checkpointing"
    words += " --peak-flops 1e14 --mfu 0.3 --tokens 2e12"
    assert main(["plan", "--model", "1.5b", *words.split()]) == 0
    wanted = plan(
        "1.5b", gpus=2, memory=40e9, parallel="fsdp", sequence_length=2048, batch_size=3,
        activation_checkpointing=True, peak_flops=1e14, mfu=0.3, tokens=2e12,
    )  # fmt: skip
    assert capsys.readouterr().out == f"{wanted}\n"


def test_a_plan_in_float32_takes_longer(capsys):
    speeds = []
    for precision in ("bfloat16", "float32"):
        assert main(["plan", "--precision", precision]) == 0
        speeds.append(
            float(re.search(r"([\d,]+) tokens/s", capsys.readouterr().out)[1].replace(",", ""))
        )
    assert speeds[0] / speeds[1] == pytest.approx(989 / 67, rel=1e-3)


def keep_a_norm(home: Path, line: str) -> None:
    (home / "my_qwen2").mkdir()
    (home / "my_qwen2" / "norm.py").write_text(
        "import torch\n\nfrom qwen2lite.model.norm import RMSNorm\n\n\n"
        "class norm(RMSNorm):\n    def forward(self, x_BTD):\n        " + line + "\n",
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("line", "says", "status"),
    [
        ("return super().forward(x_BTD)", "agree at all", 0),
        (
            "return super().forward(x_BTD - x_BTD.mean(-1, keepdim=True))",
            "layer 0, input_layernorm",
            1,
        ),
    ],
)
def test_the_doctor_looks_at_what_was_kept(line, says, status, tmp_path):
    keep_a_norm(tmp_path, line)
    result = run("doctor", QWEN2LITE_HOME=str(tmp_path))
    assert result.returncode == status, result.stderr
    assert "norm                 yours" in result.stdout
    assert says in result.stdout


def test_a_model_of_ones_own_parts_speaks_and_gives_a_receipt(tmp_path):
    keep_a_norm(tmp_path, "return super().forward(x_BTD)")
    tiny = str(Path(__file__).parents[1] / "data" / "qwen2-tiny")
    result = run("generate", "Hello", "--mine", "--model", tiny, "--max-new-tokens", "4",
                 QWEN2LITE_HOME=str(tmp_path))  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "1 of " in result.stdout and "norm                 yours" in result.stdout


def test_a_part_that_breaks_in_an_answer_is_told_of_without_a_traceback(tmp_path):
    keep_a_norm(tmp_path, "return x_BTD[0, 0, 0, 0]")
    result = run("generate", "Hello", "--mine", "--model", TINY, QWEN2LITE_HOME=str(tmp_path))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert "with your parts the model raised IndexError: too many indices" in result.stderr
    assert "look closer: python -m qwen2lite doctor" in result.stderr


def test_the_readme_is_short_and_names_both_commands():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    assert "make lab" in readme
    assert "make test" in readme


def exam_file(folder: Path, *lines: dict[str, object]) -> str:
    file = folder / "exam.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(file)


def choices_of_the_world() -> list[dict[str, object]]:
    """Where some of its people live; their jobs are the subjects."""
    lines: list[dict[str, object]] = []
    for number, person in enumerate(people()[:12]):
        choices = [city for city in CITIES if city != person.city][:3]
        choices.insert(number % 4, person.city)
        fields = {"question": f"Where is the home of {person.name}?", "subject": person.job}
        lines.append({**fields, "choices": choices, "answer": "ABCD"[number % 4]})
    return lines


@pytest.mark.parametrize("by", ["letter", "byte"])
def test_evaluate_counts_right_answers_by_subject_and_in_all(by, tmp_path, capsys):
    file = exam_file(tmp_path, *choices_of_the_world())
    model, tokenizer = load(TINY, "float32", "cpu"), Qwen2Tokenizer.from_pretrained(TINY)
    wanted = Counter()
    for scored in score_questions(model, tokenizer, read_questions(file)):
        wanted.update({scored.question.subject: is_right(scored, by), "all": is_right(scored, by)})
    assert 0 < wanted["all"] < 12

    common = ["evaluate", file, "--model", TINY, "--shots", "0", "--by", by, "--dtype", "float32"]
    assert main(common) == 0
    *rows, note = capsys.readouterr().out.splitlines()
    found = {row.split()[0]: int(re.search(r" %  (\d+) of \d+$", row)[1]) for row in rows}
    assert found == dict(wanted)
    assert "95 of 100" in note

    assert main([*common, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    total = printed["all"]
    assert (printed["by"], printed["shots"], total["total"]) == (by, 0, 12)
    assert (total["low"], total["high"]) == wilson(wanted["all"], 12)
    assert {row["subject"]: row["right"] for row in printed["subjects"]} | {
        "all": total["right"]
    } == dict(wanted)


def test_evaluate_tells_sums_by_their_fields_and_says_which_gave_no_number(tmp_path, capsys):
    sums = [{"question": f"How many are {n} and 1?", "answer": f"#### {n + 1}"} for n in (2, 5, 7)]
    file = exam_file(tmp_path, *sums)
    assert main(["evaluate", file, "--model", TINY, "--shots", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "by" not in found and found["all"]["total"] == 3
    assert 0 <= found["all"]["without_number"] <= 3 - found["all"]["right"]

    assert main(["evaluate", file, "--model", TINY, "--shots", "1", "--examples", SUMS]) == 0
    assert " of 3" in capsys.readouterr().out
    file = exam_file(tmp_path, *sums, *choices_of_the_world())
    assert main(["evaluate", file, "--model", TINY]) == 2
    assert "make two files of it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "wanted"), [(["chat"], CHAT_SAMPLING), (["generate", "Hello"], Sampling())]
)
def test_help_says_the_numbers_that_the_package_has(arguments, wanted):
    """They are written there anew, for --help doesn't load PyTorch."""
    flags = vars(_parser().parse_args(arguments))
    assert Sampling(**{name: flags[name] for name in vars(wanted)}) == wanted


def test_evaluate_names_the_ways_that_there_are():
    assert set(BY) == set(WAYS)
    result = run("evaluate", SUMS, "--by", "length")
    assert result.returncode == 2 and "unconditional" in result.stderr
