"""One TOML file to a trained model: what is prepared, what is refused, and the command itself."""

import dataclasses
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from qwen2lite import Qwen2, Qwen2Tokenizer
from qwen2lite.train import by_hand, cost
from qwen2lite.train import recipe as recipe_module
from qwen2lite.train.folder import check_may_change
from qwen2lite.train.loader import Loader
from qwen2lite.train.metrics import read_metrics
from qwen2lite.train.prepare import DataSettings, corpus, is_held_out, prepare, train_tokenizer
from qwen2lite.train.processes import Alone
from qwen2lite.train.recipe import (
    Recipe,
    fast_parts,
    fit_to_machine,
    held_out_batches,
    new_model,
    run,
)

RUNS = Path(__file__).parents[2] / "runs"
SMALL = """
[model]
vocab_size = 330
hidden_size = 24
intermediate_size = 40
num_hidden_layers = 2
num_attention_heads = 6
num_key_value_heads = 2
max_position_embeddings = 64
tie_word_embeddings = true

[data]
characters = 60_000
held_out = 0.1

[train]
steps = 6
sequence_length = 32
batch_size = 4
warmup_steps = 2
device = "cpu"
evaluate_every = 3
checkpoint_every = 2
log_every = 1
sample_every = 6
sample_prompts = ["Ada"]
sample_tokens = 4
"""


@pytest.fixture
def toml(tmp_path):
    def write(text=SMALL, **replaced):
        for old, new in replaced.items():
            text = text.replace(old, new)
        path = tmp_path / "run.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("path", sorted(RUNS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_recipes_of_the_project_are_sound(path):
    recipe = Recipe.from_toml(path)
    assert recipe.train.sequence_length <= recipe.config.max_position_embeddings
    assert recipe.train.steps * recipe.train.tokens_per_step > 1_000_000


def test_the_recorded_curve_is_of_the_recipe():
    recipe = Recipe.from_toml(RUNS / "tiny.toml")
    lines = read_metrics(RUNS / "recorded" / "tiny.jsonl")
    assert lines[-1]["step"] == recipe.train.steps
    tokens = [line["tokens"] for line in lines if "tokens" in line]
    assert tokens[-1] == recipe.train.steps * recipe.train.tokens_per_step
    assert 0.52 <= [line["held_out_loss"] for line in lines if "held_out_loss" in line][-1] <= 0.53
    rate = recipe.train.learning_rates()
    for line in lines:
        if "learning_rate" in line:
            assert line["learning_rate"] == pytest.approx(rate(line["step"] - 1), rel=1e-4)


def test_a_run_from_toml_to_a_model_that_loads(toml, tmp_path):
    model = run(Recipe.from_toml(toml()), tmp_path / "run", bar=False)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 6 and losses[-1] < losses[0]
    assert [line["step"] for line in lines if "held_out_loss" in line] == [3, 6]
    assert sum("sample" in line for line in lines) == 1
    loaded, tokenizer = Qwen2.from_pretrained(model), Qwen2Tokenizer.from_pretrained(model)
    assert loaded.config.eos_token_id == tokenizer.special_tokens["<|endoftext|>"]
    again = run(Recipe.from_toml(toml()), tmp_path / "run", bar=False)
    assert again == model and read_metrics(tmp_path / "run" / "metrics.jsonl") == lines


def test_where_nothing_can_be_compiled_a_run_says_so_and_goes_on(toml, tmp_path, monkeypatch):
    def no_compiler(*_, **__):
        def fail(*_):
            raise RuntimeError("no C++ compiler was found")

        return fail

    monkeypatch.setattr(torch, "compile", no_compiler)
    wanted = Recipe.from_toml(toml())
    wanted = with_compiling(wanted, True)
    with pytest.warns(UserWarning, match="no C.. compiler was found.* goes on without"):
        assert fit_to_machine(wanted, torch.device("cpu")) == with_compiling(wanted, False)
        assert run(wanted, tmp_path / "run", bar=False).exists()


def test_compiled_steps_learn_what_others_learn(toml, tmp_path):
    losses = []
    for compiled in (True, False):
        folder = tmp_path / str(compiled)
        run(with_compiling(Recipe.from_toml(toml()), compiled), folder, bar=False)
        lines = read_metrics(folder / "metrics.jsonl")
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)  # sums in another order, over six steps


def with_compiling(recipe: Recipe, compiled: bool) -> Recipe:
    settings = dataclasses.replace(recipe.train, compile=compiled, device="cpu")
    return dataclasses.replace(recipe, train=settings)


def test_the_same_corpus_each_time_and_no_document_on_both_sides(tmp_path):
    settings = DataSettings(characters=80_000, held_out=0.2)
    first, second = (prepare(settings, tmp_path / name, 300) for name in "ab")
    assert np.array_equal(first.train.ids, second.train.ids)
    texts = {side: first.tokenizer.decode(getattr(first, side).ids.tolist()).split("<|endoftext|>")
             for side in ("train", "held_out")}  # fmt: skip
    assert not set(texts["train"][:-1]) & set(texts["held_out"][:-1])
    assert 0.1 < len(texts["held_out"]) / len(texts["train"] + texts["held_out"]) < 0.3
    wanted = {document.text for document in corpus(settings)}
    assert set(texts["train"][:-1]) | set(texts["held_out"][:-1]) == wanted


def test_about_the_wanted_share_is_held_out():
    sides = [is_held_out(f"text {number}", 0.25) for number in range(4000)]
    assert 0.22 < sum(sides) / 4000 < 0.28
    assert not any(is_held_out(f"text {n}", 0.25) != sides[n] for n in range(4000))


def test_several_sources_in_their_shares(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "one.txt").write_text("Dear Ada, " * 50, encoding="utf-8")
    sources = ("world", "docstrings", str(tmp_path / "letters"))
    settings = DataSettings(sources=sources, shares=(2.0, 1.0, 1.0), characters=100_000)
    counts = dict.fromkeys(("world", "docstrings", "letters"), 0)
    for document in corpus(settings):
        counts[document.source] += len(document.text)
    assert counts["world"] / 100_000 == pytest.approx(0.5, abs=0.05)
    assert counts["letters"] / 100_000 == pytest.approx(0.25, abs=0.05), "read again and again"


def test_a_tokenizer_of_a_model_is_used_as_it_is(tmp_path):
    tiny = Path(__file__).parents[2] / "data" / "qwen2-tiny"
    settings = DataSettings(tokenizer=str(tiny), characters=30_000, held_out=0.2)
    prepared = prepare(settings, tmp_path, 5)
    theirs = Qwen2Tokenizer.from_pretrained(tiny).vocabulary
    assert prepared.tokenizer.vocabulary.fingerprint == theirs.fingerprint


def test_a_vocabulary_stops_where_the_corpus_has_no_pair_left():
    tokenizer = train_tokenizer(["ab ab ab", ""], 4000)
    assert 256 < tokenizer.vocab_size < 265
    assert tokenizer.decode(tokenizer.encode("ab ba")) == "ab ba"


def test_a_vocabulary_has_room_for_the_bytes():
    with pytest.raises(ValueError, match="vocab_size must be 259 or more.* got 258"):
        train_tokenizer(["ab"], 258)


@pytest.mark.parametrize(
    ("replaced", "says"),
    [
        ({"[data]": "[dat]"}, "has no setting 'dat'; did you mean 'data'"),
        ({"hidden_size": "hiden_size"}, "did you mean 'hidden_size'"),
        ({"[data]": '[data]\nsources = ["world", "code"]'}, "2 names and shares 1 numbers"),
        ({"held_out = 0.1": "held_out = 1.0"}, "held_out between 0 and 1"),
        ({"[model]": '[model]\nlike = "qwen2-1b"'}, "did you mean 'qwen2-1.5b'"),
        ({"steps = 6": "steps = 6.5"}, "must be a whole number"),
        (
            {"length = 32": "length = 65"},
            "sequence_length 65 is longer than the model's context of 64",
        ),
        (
            {"[model]": "[model]\nlike = 5"},
            "like in .model. must be a model's name, a string; got 5",
        ),
        ({"[model]": '[model]\nlike = ["qwen2-0.5b"]'}, "a string; got .'qwen2-0.5b'."),
        ({"[data]": "[data]\nsources = [1]"}, "sources must be names or folders, strings"),
        ({"[data]": '[data]\nsources = [["world"]]'}, "sources must be names or folders, strings"),
        ({"[data]": '[data]\nshares = ["a"]'}, "shares must be numbers above 0, got .'a'"),
        ({"[data]": "[data]\nshares = [true]"}, "shares must be numbers above 0"),
        (
            {"[data]": '[data]\nsources = ["world", "world"]\nshares = [1, 2]'},
            "a source stands twice",
        ),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(toml, replaced, says):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        Recipe.from_toml(toml(**replaced))


@pytest.mark.parametrize("table", ["model", "data", "train"])
def test_what_is_no_table_is_refused(table, toml):
    with pytest.raises(ValueError, match=rf"{table} must be a table, .* \[{table}\]; got 3"):
        Recipe.from_toml(toml(f"{table} = 3\n[model]\nlike = 'qwen2-0.5b'" if table != "model"
                              else "model = 3"))  # fmt: skip


@pytest.mark.parametrize("like", ["", 'like = "qwen2-0.5b"\n'])
def test_experts_are_asked_for_by_their_number(like, toml):
    model = f"[model]\n{like}num_experts = 4\nnum_experts_per_tok = 2\n"
    assert Recipe.from_toml(toml(**{"[model]\n": model})).config.num_experts == 4
    dense = '[model]\nlike = "qwen2-57b-a14b"\nnum_experts = 0\n'
    assert Recipe.from_toml(toml(**{"[model]\n": dense})).config.num_experts == 0


def test_the_size_that_a_recipe_tells_is_its_own():
    path = RUNS / "gpu.toml"
    millions = cost.parameters(Recipe.from_toml(path).config) / 1e6
    assert path.read_text(encoding="utf-8").startswith(f"# {millions:.0f} million parameters")


def test_a_published_shape_may_be_the_beginning(toml):
    start = '[model]\nlike = "qwen2-0.5b"\nnum_hidden_layers = 2'
    recipe = Recipe.from_toml(toml("[train]\nsteps = 200", **{"[train]": f"{start}\n[train]"}))
    assert (recipe.config.hidden_size, recipe.config.num_hidden_layers) == (896, 2)


def test_the_heads_of_a_narrower_model_are_as_narrow(tmp_path):
    path = tmp_path / "run.toml"
    for sizes, head in (("hidden_size = 448", 32), ("hidden_size = 448\nhead_dim = 16", 16)):
        path.write_text(f'[model]\nlike = "qwen2-0.5b"\n{sizes}', encoding="utf-8")
        assert Recipe.from_toml(path).config.head_dim == head


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sources": ("nowhere/texts",)}, "nowhere/texts is not a folder"),
        ({"characters": 100, "held_out": 0.001}, "documents fell to held_out: .* a share of 0.001"),
        ({"characters": 100, "held_out": 0.999}, "documents fell to train: .* a share of 0.999"),
    ],
)
def test_a_corpus_that_can_not_be_made_is_told(tmp_path, changes, says):
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        prepare(DataSettings(**changes), tmp_path, 300)
    assert not (tmp_path / "data.json").exists(), "the next try starts anew"


def test_broken_utf8_in_a_folder_is_told_with_its_place(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "broken.txt").write_bytes(b"fine \xff not")
    with pytest.raises(ValueError, match="broken.txt is not UTF-8: byte 5 is 0xff"):
        prepare(DataSettings(sources=(str(tmp_path / "texts"),)), tmp_path / "data", 300)


def test_a_folder_with_another_corpus_is_refused(tmp_path):
    prepare(DataSettings(characters=40_000, held_out=0.2), tmp_path, 300)
    with pytest.raises(ValueError, match="characters was 40000 and is 50000"):
        prepare(DataSettings(characters=50_000, held_out=0.2), tmp_path, 300)


@pytest.mark.parametrize("damage", ["", '{"sources": [', "[]", "\xff"])
def test_a_damaged_note_on_the_corpus_is_named(damage, tmp_path):
    settings = DataSettings(characters=40_000, held_out=0.2)
    made = prepare(settings, tmp_path, 300).train.ids.copy()
    (tmp_path / "data.json").write_bytes(damage.encode("latin-1"))
    with pytest.raises(ValueError, match=r"data.json is damaged; delete .* is made again"):
        prepare(settings, tmp_path, 300)
    shutil.rmtree(tmp_path)
    assert np.array_equal(prepare(settings, tmp_path, 300).train.ids, made)


def test_the_note_on_the_corpus_is_whole_or_not_there(tmp_path, monkeypatch):
    def pull_the_plug(file):
        assert not (tmp_path / "data.json").exists(), "it has its name only when it is on the disk"
        raise KeyboardInterrupt

    settings = DataSettings(characters=40_000, held_out=0.2)
    with monkeypatch.context() as patch:
        patch.setattr("qwen2lite.train.prepare.to_disk", pull_the_plug)
        with pytest.raises(KeyboardInterrupt):
            prepare(settings, tmp_path, 300)
    assert not (tmp_path / "data.json").exists()
    prepare(settings, tmp_path, 300)
    assert (tmp_path / "data.json").exists() and not list(tmp_path.glob("*.part"))


def test_a_vocabulary_larger_than_the_model_is_refused(toml, tmp_path):
    recipe = Recipe.from_toml(toml())
    prepared = prepare(recipe.data, tmp_path, 330)
    small = dataclasses.replace(recipe, config=dataclasses.replace(recipe.config, vocab_size=300))
    with pytest.raises(ValueError, match="set vocab_size in .model. to 330 or more"):
        new_model(small, prepared)


def test_held_out_batches_of_a_small_corpus_are_fewer(toml, tmp_path):
    recipe = Recipe.from_toml(toml())
    prepared = prepare(recipe.data, tmp_path, 330)
    many = held_out_batches(prepared, dataclasses.replace(recipe.train, evaluation_batches=3))
    assert [ids.shape for ids, _ in many] == [(4, 32)] * 3
    huge = dataclasses.replace(recipe.train, batch_size=10_000)
    ((ids, _),) = held_out_batches(prepared, huge)
    assert len(ids) == (len(prepared.held_out.ids) - 1) // 32


def test_the_held_out_sequences_do_not_depend_on_the_cut(toml, tmp_path):
    recipe = Recipe.from_toml(toml())
    prepared = prepare(recipe.data, tmp_path, 330)
    windows = (len(prepared.held_out.ids) - 1) // 32

    def read(size, accumulation, processes=1, number=2, cut=True):
        settings = dataclasses.replace(
            recipe.train, batch_size=size, accumulation=accumulation, evaluation_batches=number
        )
        batches = held_out_batches(prepared, settings, processes)
        assert all(len(ids) == size for ids, _ in batches) or not cut
        return [torch.cat(kind) for kind in zip(*batches, strict=True)]

    whole = read(8, 1)
    expected = list(islice(Loader(prepared.held_out.ids, 32, 8), 2))
    for kind, parts in zip(whole, zip(*expected, strict=True), strict=True):
        assert torch.equal(kind, torch.cat(parts)), "the first windows of the loader"
    for cut in ((4, 2), (2, 4), (4, 1, 2), (1, 1, 8)):
        assert all(map(torch.equal, read(*cut), whole))
    many = [read(*cut, number=99) for cut in ((8, 1), (4, 2), (2, 1, 4))]
    assert windows - 8 < len(many[0][0]) <= windows
    assert all(torch.equal(ids, many[0][0]) for ids, _ in many)
    few = [read(*cut, cut=False) for cut in ((1000, 1), (500, 2), (7, 40))]
    assert {len(ids) for ids, _ in few} == {windows}, "fewer than a step has"


def test_of_many_processes_each_compiles_on_its_own_device_and_one_says_so(
    toml, tmp_path, monkeypatch, capsys
):
    class Found(Exception):
        """How far the test goes."""

    def fit(recipe, device):
        assert device == torch.device("meta"), "not the one that the settings name"
        return recipe

    def role(rank):
        processes = Alone(torch.device("meta"))
        processes.rank = rank
        return lambda settings: nullcontext(processes)

    def stop(*_):
        raise Found

    monkeypatch.setattr(recipe_module, "fit_to_machine", fit)
    monkeypatch.setattr(recipe_module, "prepare", stop)
    for rank in (0, 1):
        monkeypatch.setattr(recipe_module, "join", role(rank))
        with pytest.raises(Found):
            run(with_compiling(Recipe.from_toml(toml()), True), tmp_path)
        assert capsys.readouterr().out.count("the first step is compiled") == 1 - rank


def test_only_settings_may_be_named_as_those_that_change(toml, tmp_path):
    recipe = Recipe.from_toml(toml())
    with pytest.raises(ValueError, match="no setting 'stepz'; did you mean 'steps'"):
        run(recipe, tmp_path / "run", ["steps", "stepz"], bar=False)
    assert not (tmp_path / "run").exists()
    check_may_change(["steps", "rope_theta", "sequences_per_step"])


def test_gradients_by_hand_are_for_float32_on_a_cpu(toml):
    settings = Recipe.from_toml(toml()).train
    assert fast_parts(settings) is by_hand.PARTS
    assert fast_parts(dataclasses.replace(settings, precision="bfloat16")) is None
    assert fast_parts(dataclasses.replace(settings, compile=True)) is None


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "qwen2lite", *map(str, arguments)],
        capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip


def test_the_command_trains_goes_on_and_says_how_to_try_it(toml, tmp_path):
    first = command("train", toml(), "--folder", tmp_path / "run")
    assert first.returncode == 0, first.stderr
    assert "Ctrl-C stops, the same command goes on" in first.stdout
    assert "held out loss" in first.stdout and "generate" in first.stdout
    longer = toml(**{"steps = 6": "steps = 8"})
    refused = command("train", longer, "--folder", tmp_path / "run")
    assert refused.returncode == 2 and "steps was 6 and is 8" in refused.stderr
    goes_on = command("train", longer, "--folder", tmp_path / "run", "--may-change", "steps")
    assert goes_on.returncode == 0, goes_on.stderr
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 8
    written = command("generate", "Ada", "--model", tmp_path / "run" / "model",
                      "--max-new-tokens", "3")  # fmt: skip
    assert written.returncode == 0 and "Ada" in written.stdout, written.stderr


def test_two_processes_train_together_by_the_same_command(toml, tmp_path):
    alone = run(
        Recipe.from_toml(toml(**{"batch_size = 4": "batch_size = 8"})), tmp_path / "one", bar=False
    )
    path = toml(**{"[train]": '[train]\nparallel = "ddp"'})
    result = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "qwen2lite", "train", path, "--folder", tmp_path / "two"],
        capture_output=True, text=True, encoding="utf-8", timeout=300,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    metrics = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("one", "two")]
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in metrics]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    assert result.stdout.count("Ctrl-C stops") == 1
    assert (
        Qwen2.from_pretrained(tmp_path / "two" / "model").config
        == Qwen2.from_pretrained(alone).config
    )
