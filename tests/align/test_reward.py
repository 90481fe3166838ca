"""Where a reward is read, what the loss asks of two of them, and that a model learns from it."""

import dataclasses
import math
import random
import shutil
from itertools import islice

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from qwen2lite import Qwen2, Qwen2Config
from qwen2lite.align.pairs import FAULTS, Pair, pairs
from qwen2lite.align.reward import (
    CHOSEN,
    REJECTED,
    Preference,
    RewardModel,
    accuracy,
    pair_targets,
    pairwise_loss,
    rewards,
    to_the_end,
    train_reward,
)
from qwen2lite.align.sft import Conversations
from qwen2lite.text.chat import render_chat
from qwen2lite.train.gradients import Cores, accumulate
from qwen2lite.train.loss import IGNORED
from qwen2lite.train.settings import TrainSettings
from qwen2lite.train.world import people
from qwen2lite.weights.export import export
from tests.align.tiny import TINY, tiny

SETTINGS = TrainSettings(
    steps=6, sequence_length=128, batch_size=2, learning_rate=1e-3, warmup_steps=2, device="cpu",
    cores=1, log_every=1, checkpoint_every=3, seed=3,
)  # fmt: skip
CAST = people()
REWARDS = st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=9)


def noisy(model=None):
    """A reward model that has an opinion."""
    model = RewardModel.from_model(model or tiny())
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(model.reward.weight, generator=generator)
    return model


def mixed(count, seed=0):
    """Pairs of all kinds, of many lengths."""
    rng = random.Random(seed)
    return [pairs([rng.choice(CAST)], rng, rng.choice([*FAULTS.values()]))[2] for _ in range(count)]


def two_columns(values):
    return torch.tensor(values, dtype=torch.float64).T


def test_a_new_model_finds_all_texts_equally_good(tokenizer):
    model = RewardModel.from_model(tiny())
    made = mixed(3)
    better, worse = (rewards(model, tokenizer, p.conversations) for p in made[:2])
    assert better.tolist() == worse.tolist() == [0, 0]
    assert accuracy(model, tokenizer, made) == 0
    assert pairwise_loss(better, worse).item() == pytest.approx(math.log(2), abs=1e-7)


def test_the_layers_learn_from_the_second_step_on(tokenizer):
    model = RewardModel.from_model(tiny())
    objective = Preference(model, tokenizer.special_tokens["<|endoftext|>"])
    learnt = [pair_targets(tokenizer, pair) for pair in mixed(4)]
    batch = next(Conversations(learnt, 128, 2, objective.eos))
    objective(*batch).backward()
    assert all(not p.grad.any() for p in model.model.parameters())
    assert model.reward.weight.grad.any()
    with torch.no_grad():
        model.reward.weight -= model.reward.weight.grad
    objective(*batch).backward()
    assert all(p.grad.any() for p in model.model.layers.parameters())


def test_it_begins_with_a_copy():
    model = tiny().to(torch.bfloat16)
    before = model.model.norm.weight.clone()
    reward = RewardModel.from_model(model)
    assert reward.dtype == model.dtype
    assert torch.equal(reward.model(torch.tensor([[5, 6]])), model.model(torch.tensor([[5, 6]])))
    with torch.no_grad():
        reward.model.norm.weight.zero_()
    assert torch.equal(model.model.norm.weight, before)


def test_a_reward_is_class_0_and_the_first_end_of_text_is_padding():
    config = dataclasses.replace(RewardModel.from_model(tiny()).config, eos_token_id=[7, 8])
    values = config.to_dict()
    assert (values["label2id"], values["pad_token_id"]) == ({"reward": 0}, 7)


@pytest.mark.parametrize("tied", [True, False])
def test_rewards_equal_transformers_with_its_padding(tied, tmp_path):
    config = transformers.Qwen2Config(
        vocab_size=99, hidden_size=48, intermediate_size=80, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, num_labels=1,
        pad_token_id=0, initializer_range=0.2, tie_word_embeddings=tied,
    )  # fmt: skip
    torch.manual_seed(1)
    reference = transformers.Qwen2ForSequenceClassification(config).eval()
    published = Qwen2Config.from_dict(config.to_dict())
    model = RewardModel(published)
    names = {name.replace("score.", "reward."): t for name, t in reference.state_dict().items()}
    model.load_state_dict(names)  # and so has no output layer
    texts = [[7, 8, 9], [5], [11, 12, 13, 14, 15, 16, 17], [7, 8]]
    ids_BT = torch.tensor([text + [0] * (7 - len(text)) for text in texts])
    with torch.inference_mode():
        theirs = reference(ids_BT, attention_mask=(ids_BT != 0).long()).logits[:, 0]
        mine = model.read(texts)
    assert theirs.std() > 0.1
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    rewards_BT = model(ids_BT)[..., 0]
    assert (rewards_BT[:, -1] - theirs).abs().max() > 0.1  # read where the row ends, not the text


def test_the_company_of_a_text_changes_nothing(tokenizer):
    model = noisy()
    talks = [talk for pair in mixed(8) for talk in pair.conversations]
    together = rewards(model, tokenizer, talks)
    alone = [float(rewards(model, tokenizer, [talk])) for talk in talks]
    assert together.shape == (16,)
    assert together.tolist() == pytest.approx(alone, abs=1e-4)
    assert together.std() > 0.1


def test_a_reward_has_a_gradient_where_one_is_wanted(tokenizer):
    model = noisy()
    model.read([[5, 6], [7]]).sum().backward()
    assert model.model.embed_tokens.weight.grad[[5, 6, 7]].any(1).all()
    assert not rewards(model, tokenizer, [mixed(1)[0].conversations[0]]).requires_grad


@pytest.mark.parametrize("texts", [[], [[5], []]])
def test_a_text_without_a_token_has_no_reward(texts):
    with pytest.raises(ValueError, match="read at the last token of each text; got"):
        RewardModel.from_model(tiny()).read(texts)


def test_the_end_is_that_of_the_last_turn(tokenizer):
    talk = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "<|im_end|>"}]
    ids = to_the_end(tokenizer, talk)
    assert tokenizer.decode(ids) + "\n" == render_chat(talk, add_generation_prompt=False)
    assert ids[-1] == tokenizer.special_tokens["<|im_end|>"]
    assert ids.count(ids[-1]) == 3  # of system, user and assistant; what is spelled out is text


def test_the_loss_by_hand():
    chosen, rejected = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.5])
    by_hand = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(0.5))) / 2
    assert pairwise_loss(chosen, rejected).item() == pytest.approx(by_hand, rel=1e-6)
    assert pairwise_loss(chosen.bfloat16(), rejected.bfloat16()).dtype == torch.float32


@given(REWARDS, st.floats(-50, 50))
def test_only_differences_count(values, shift):
    chosen, rejected = two_columns(values)
    loss = pairwise_loss(chosen, rejected)
    shifted = pairwise_loss(chosen + shift, rejected + shift)
    assert shifted.item() == pytest.approx(loss.item(), abs=1e-5)


@given(REWARDS)
def test_turned_round_the_loss_changes_by_the_difference(values):
    chosen, rejected = two_columns(values)
    turned = pairwise_loss(rejected, chosen) - pairwise_loss(chosen, rejected)
    assert turned.item() == pytest.approx((chosen - rejected).mean().item(), abs=1e-4)


def test_a_large_wrong_difference_has_a_loss_and_a_gradient():
    chosen = torch.tensor([-500.0, 500.0], requires_grad=True)
    loss = pairwise_loss(chosen, torch.tensor([500.0, -500.0]))
    loss.backward()
    assert loss.item() == 500  # the mean of 1000 and 0
    assert chosen.grad.tolist() == [-0.5, 0]
    assert torch.isinf(-torch.log(torch.sigmoid(torch.tensor(-1000.0))))


def test_the_loss_of_no_pair_is_zero_and_of_half_a_pair_is_none():
    assert pairwise_loss(torch.empty(0), torch.empty(0)).item() == 0
    with pytest.raises(ValueError, match=r"got \[2\] and \[1\]"):
        pairwise_loss(torch.zeros(2), torch.zeros(1))


def test_both_ends_of_a_pair_are_marked(tokenizer):
    pair = Pair([{"role": "user", "content": "Who?"}], "Ada Ash.", "I.")
    ids, targets = pair_targets(tokenizer, pair)
    cut = ids.index(tokenizer.special_tokens["<|endoftext|>"])
    better, worse = pair.conversations
    assert ids[:cut] == to_the_end(tokenizer, better)
    assert ids[cut + 1 :] == to_the_end(tokenizer, worse)
    marks = {place: target for place, target in enumerate(targets) if target != IGNORED}
    assert marks == {cut - 1: CHOSEN, len(ids) - 1: REJECTED}


def test_a_batch_has_the_loss_of_its_pairs_one_by_one(tokenizer):
    """Each of the two rows has room for exactly all of them, in an order of its own."""
    model, made = noisy().double(), mixed(5)
    eos = tokenizer.special_tokens["<|endoftext|>"]
    learnt = [pair_targets(tokenizer, pair) for pair in made]
    batch = next(Conversations(learnt, sum(len(ids) + 1 for ids, _ in learnt), 2, eos))
    assert (batch[1] == CHOSEN).sum(1).tolist() == [5, 5]
    differences = [
        float(worse - better)
        for better, worse in (rewards(model, tokenizer, pair.conversations) for pair in made)
    ]
    mean = sum(math.log1p(math.exp(d)) for d in differences) / len(differences)
    with torch.no_grad():
        assert Preference(model, eos)(*batch).item() == pytest.approx(mean, abs=1e-5)
        leaky = Preference(model, eos=0)  # conversations that look into each other
        assert abs(leaky(*batch).item() - mean) > 1e-2


def test_pairs_stay_together_on_cores(tokenizer):
    eos = tokenizer.special_tokens["<|endoftext|>"]
    learnt = [pair_targets(tokenizer, pair) for pair in mixed(9)]
    batches = list(islice(Conversations(learnt, 200, 3, eos), 2))
    found = []
    for add in (accumulate, Cores(2).accumulate):
        objective = Preference(noisy(), eos)
        loss = add(objective, batches).item()
        found.append((loss, objective.model.model.norm.weight.grad))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-5)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)


class Longer(RewardModel):
    """Likes whatever is longer."""

    def read(self, texts):
        return torch.tensor([float(len(text)) for text in texts])


def test_accuracy_is_the_share_of_right_pairs(tokenizer):
    prompt = [{"role": "user", "content": "Who?"}]
    made = [Pair(prompt, "It is I.", "I."), Pair(prompt, "I.", "It is I."), Pair(prompt, "I", "I")]
    model = Longer(tiny().config)
    assert accuracy(model, tokenizer, made[:1]) == 1
    assert accuracy(model, tokenizer, made) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="got 0 texts"):
        accuracy(RewardModel.from_model(tiny()), tokenizer, [])


def test_it_learns_that_once_is_enough_also_of_people_it_never_saw(tokenizer, tmp_path):
    """What is wrong with an answer it learns where it shows; lesson 72 has what doesn't."""
    twice = FAULTS["twice"]
    learnt = [pair_targets(tokenizer, p) for p in pairs(CAST[:100], random.Random(0), twice)]
    others = pairs(CAST[100:120], random.Random(1), twice)
    model = RewardModel.from_model(tiny())
    told = dataclasses.replace(SETTINGS, steps=20, learning_rate=3e-3, checkpoint_every=20)
    folder = train_reward(model, tokenizer, learnt, told, tmp_path, bar=False)
    assert accuracy(model.eval(), tokenizer, others) > 0.98
    again = RewardModel.from_pretrained(folder, dtype=torch.float32, device="cpu")
    assert accuracy(again, tokenizer, others) == accuracy(model, tokenizer, others)


def test_a_stopped_run_goes_on(tokenizer, tmp_path):
    learnt = [pair_targets(tokenizer, pair) for pair in mixed(8)]

    def run():
        return train_reward(
            RewardModel.from_model(tiny()), tokenizer, learnt, SETTINGS, tmp_path, bar=False
        )

    folder = run()
    trained = (folder / "model.safetensors").read_bytes()
    shutil.rmtree(folder)
    [last] = (tmp_path / "checkpoints").glob("*6")
    shutil.rmtree(last)
    assert run() == folder
    assert (folder / "model.safetensors").read_bytes() == trained


def test_a_reward_model_and_a_language_model_are_not_taken_for_each_other(tokenizer, tmp_path):
    with pytest.raises(ValueError, match=r"no score.weight \[1, 128\], which RewardModel asks"):
        RewardModel.from_pretrained(TINY, device="cpu")
    learnt = [pair_targets(tokenizer, pair) for pair in mixed(2)]
    told = dataclasses.replace(SETTINGS, steps=2)
    model = RewardModel.from_model(tiny())
    folder = train_reward(model, tokenizer, learnt, told, tmp_path, bar=False)
    with pytest.raises(
        ValueError, match=r"Qwen2 has no score.weight \[1, 128\], which the checkpoint"
    ):
        Qwen2.from_pretrained(folder, device="cpu")


@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_the_same_rewards(tokenizer, tmp_path, tied):
    config = dataclasses.replace(tiny().config, tie_word_embeddings=tied)
    torch.manual_seed(0)
    model = RewardModel(config).eval()
    torch.nn.init.normal_(model.reward.weight)
    export(model, tmp_path / "reward", tokenizer)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "reward", attn_implementation="eager", dtype=torch.float32
    )
    assert type(theirs).__name__ == "Qwen2ForSequenceClassification"
    texts = [to_the_end(tokenizer, talk) for pair in mixed(3) for talk in pair.conversations]
    pad = tokenizer.special_tokens["<|endoftext|>"]
    longest = max(map(len, texts))
    ids_BT = torch.tensor([text + [pad] * (longest - len(text)) for text in texts])
    with torch.no_grad():
        found = theirs(ids_BT, attention_mask=(ids_BT != pad).long()).logits
        assert found.shape == (6, 1)
        torch.testing.assert_close(model.read(texts), found[:, 0], rtol=1e-4, atol=1e-4)
    again = RewardModel.from_pretrained(tmp_path / "reward", torch.float32, "cpu")
    torch.testing.assert_close(again.read(texts), model.read(texts), rtol=0, atol=0)
