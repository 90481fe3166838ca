"""The contracts of lesson 13 accept every right answer and tell wrong ones in a clear sentence."""

import itertools

import pytest

from qwen2lite.text.chat import encode_chat
from tests.learn.verdict import verdict


def turn_by_adding(role, content):
    return "<|im_start|>" + role + "\n" + content + "<|im_end|>" + "\n"


def turn_by_joining(role, content):
    return "".join(("<|im_start|>", role, "\n", content, "<|im_end|>", "\n"))


def turn_by_template(role, content):
    return "<|im_start|>%s\n%s<|im_end|>\n" % (role, content)  # noqa: UP031


def text_by_recursion(messages, system, opened=True):
    if not messages:
        return "<|im_start|>assistant\n" if opened else ""
    first, *rest = messages
    if first["role"] != "system" and system is not None:
        first, rest = {"role": "system", "content": system}, messages
    return turn_by_adding(first["role"], first["content"]) + text_by_recursion(rest, None, opened)


def text_by_loop(messages, system, opened=True):
    text = "" if messages[0]["role"] == "system" else turn_by_adding("system", system)
    for message in messages:
        text += turn_by_adding(**message)
    if opened:
        text += "<|im_start|>assistant\n"
    return text


def text_by_copy(messages, system, opened=True):
    messages = list(messages)
    if messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    opening = ["<|im_start|>assistant\n"] * opened
    return "".join([*(turn_by_joining(m["role"], m["content"]) for m in messages), *opening])


def ids_by_plain_parts(tokenizer, messages):
    special, ids = tokenizer.special_tokens, []
    for message in messages:
        ids.append(special["<|im_start|>"])
        ids.extend(tokenizer.encode(message["role"] + "\n" + message["content"], "none"))
        ids.append(special["<|im_end|>"])
        ids.extend(tokenizer.encode("\n"))
    ids.append(special["<|im_start|>"])
    ids.extend(tokenizer.encode("assistant\n"))
    return ids


def ids_around_the_content(tokenizer, messages):
    """Only the marks are encoded with control tokens on."""
    ids = []
    for message in messages:
        ids += tokenizer.encode("<|im_start|>")
        ids += tokenizer.encode("\n".join(message.values()), allowed_special=set())
        ids += tokenizer.encode("<|im_end|>\n")
    return ids + tokenizer.encode("<|im_start|>assistant\n")


def stop_by_takewhile(ids, stop_ids):
    return itertools.takewhile(lambda token: token not in stop_ids, ids)


def stop_by_next(ids, stop_ids):
    ids = iter(ids)
    while (token := next(ids, None)) is not None and token not in stop_ids:
        yield token


def stop_by_break(ids, stop_ids):
    stops = set(stop_ids)
    for token in ids:
        if token in stops:
            break
        yield token


RIGHT = [
    ("format_turn", turn_by_adding),
    ("format_turn", turn_by_joining),
    ("format_turn", turn_by_template),
    ("chat_text", text_by_recursion),
    ("chat_text", text_by_loop),
    ("chat_text", text_by_copy),
    ("mended_chat_ids", ids_by_plain_parts),
    ("mended_chat_ids", ids_around_the_content),
    ("mended_chat_ids", lambda tokenizer, messages: encode_chat(tokenizer, messages)),
    ("until_stop", stop_by_takewhile),
    ("until_stop", stop_by_next),
    ("until_stop", stop_by_break),
]


@pytest.mark.parametrize(("name", "part"), RIGHT)
def test_right_answers_pass_however_they_are_written(name, part):
    assert verdict(name, part).state == "right", verdict(name, part)


def test_control_tokens_that_only_the_assistant_spells_are_refused():
    def believes_the_assistant(tokenizer, messages):
        ids = []
        for message in messages:
            allowed = "all" if message["role"] == "assistant" else "none"
            ids += tokenizer.encode("<|im_start|>")
            ids += tokenizer.encode("\n".join(message.values()), allowed)
            ids += tokenizer.encode("<|im_end|>\n")
        return ids + tokenizer.encode("<|im_start|>assistant\n")

    assert "y·[<|im_start|>]" in verdict("mended_chat_ids", believes_the_assistant).wrong


def changes_only_sometimes(messages, system, opened=True):
    text = text_by_loop(messages, system, opened)
    messages.append({"role": "assistant", "content": ""})
    return text


@pytest.mark.parametrize(
    ("name", "part", "said"),
    [
        ("format_turn", lambda role, content: f"{role}: {content}", "is 'user: Hello'"),
        ("format_turn", lambda role, content: None, "returned None"),
        ("chat_text", lambda messages, system, opened: "", "is ''; wanted"),
        ("chat_text", changes_only_sometimes, "list of messages was changed"),
        ("mended_chat_ids", lambda tokenizer, messages: "text", "is encoded as 'text'"),
        ("mended_chat_ids", lambda tokenizer, messages: [99999], "is encoded as list"),
        ("until_stop", lambda ids, stop_ids: [], "handed on: none; 0 asked for"),
        ("until_stop", lambda ids, stop_ids: 3, "TypeError"),
    ],
)
def test_a_wrong_answer_is_told_in_one_clear_sentence(name, part, said):
    result = verdict(name, part)
    assert result.state == "wrong"
    assert said in result.wrong, result.wrong
