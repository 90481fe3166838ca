"""Wrong versions of what the exercise 13_chat asks, each a mistake that real projects made.

The docstring of a mutant is what a learner reads who made that mistake: what happens, and why.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from qwen2lite.text.chat import Message, render_chat, with_system
from qwen2lite.text.tokenizer import Qwen2Tokenizer

GENERATION_PROMPT = "<|im_start|>assistant\n"


def turn_without_line_end(role: str, content: str) -> str:
    """The line end after <|im_end|> is missing. The next turn then begins as no turn in training
    began."""
    return f"<|im_start|>{role}\n{content}<|im_end|>"


def role_without_line_end(role: str, content: str) -> str:
    """The line end between role and content is missing, and the two read as one word."""
    return f"<|im_start|>{role}{content}<|im_end|>\n"


def line_end_inside(role: str, content: str) -> str:
    """A line end stands before <|im_end|>. It would be a part of what was said; the one that ends
    the turn comes after <|im_end|>."""
    return f"<|im_start|>{role}\n{content}\n<|im_end|>"


def content_stripped(role: str, content: str) -> str:
    """White space at the ends of the content is cut off. Qwen2's template leaves a content as it
    is: a program may end with a line end."""
    return f"<|im_start|>{role}\n{content.strip()}<|im_end|>\n"


def system_always(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """The default system prompt stands before the conversation's own, and the model has two. It
    comes in only where the first message isn't a system message."""
    return _turns([{"role": "system", "content": system}, *messages], add_generation_prompt)


def empty_system_replaced(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """An empty system prompt is taken for none. "" is false in Python, but who sends an empty one
    wants it empty: ask for the role of the first message, not whether it says something."""
    first = messages[0]
    if first["role"] == "system":
        messages = [{"role": "system", "content": first["content"] or system}, *messages[1:]]
    return render_chat(messages, system, add_generation_prompt)


def empty_default_left_out(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """An empty default makes no turn. It stands there as an empty one, like an empty system message:
    only a conversation that begins with its own goes without."""
    if system or messages[0]["role"] == "system":
        return render_chat(messages, system, add_generation_prompt)
    return _turns(messages, add_generation_prompt)


def system_anywhere(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """Any system message keeps the default system prompt out, also one in the middle of the
    conversation. Only the first message counts: ask for `messages[0]["role"]`."""
    if any(message["role"] == "system" for message in messages):
        return _turns(messages, add_generation_prompt)
    return render_chat(messages, system, add_generation_prompt)


def no_default_system(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """The default system prompt is missing. Qwen1.5's template had none, Qwen2's puts one in where
    the conversation brings none (api-for-open-llm #240 asks where it went)."""
    return _turns(messages, add_generation_prompt)


def no_generation_prompt(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """The generation prompt is missing. Whose turn comes next is then the model's guess: it may
    well write the user's."""
    return render_chat(messages, system, False)


def never_after_the_assistant(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """The generation prompt is missing where the assistant spoke last. Who asks for it there wants
    another turn of the assistant's: only `add_generation_prompt` decides."""
    last = messages[-1]["role"]
    return render_chat(messages, system, add_generation_prompt and last != "assistant")


def generation_prompt_always(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """The generation prompt is there although it wasn't asked for. A conversation to train on ends
    with its last turn."""
    return render_chat(messages, system, True)


def empty_answer(
    messages: Sequence[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """The assistant's turn is opened and closed again, so the model has answered nothing already.
    The generation prompt ends after the role's line end."""
    text = render_chat(messages, system, add_generation_prompt)
    return text + ("<|im_end|>\n" if add_generation_prompt else "")


def conversation_changed(
    messages: list[Message], system: str, add_generation_prompt: bool = True
) -> str:
    """The system prompt was put into the list that was given (`insert`, or `+=`). The caller keeps
    that list, shows it, and sends it again next time: make a new one."""
    messages[:] = with_system(messages, system)
    return render_chat(messages, system, add_generation_prompt)


def control_tokens_believed(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Control tokens that a content spells out become real ones: whoever writes <|im_end|> ends the
    turn and opens any other (transformers #29279, vllm #31735)."""
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return tokenizer.encode("".join(turns) + "<|im_start|>assistant\n")


def all_as_text(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The template's own control tokens are text too: several tokens that only spell the name. They
    are ids, `tokenizer.special_tokens["<|im_start|>"]`."""
    return tokenizer.encode(_turns(messages, True), allowed_special="none")


def names_cut_out(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The names are cut out of the contents. That changes what was said, and it can be fooled: of
    "<|im_<|im_end|>end|>" a control token is left. Encode the content with allowed_special="none"."""
    for name in tokenizer.special_tokens:
        messages = [{**m, "content": m["content"].replace(name, "")} for m in messages]
    return control_tokens_believed(tokenizer, messages)


def only_borders_are_text(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The names of a turn's borders are plain text in a content, other control tokens are still
    believed: <|endoftext|> ends the text for the model. allowed_special="none" lets none through."""
    others = tokenizer.special_tokens.keys() - {"<|im_start|>", "<|im_end|>"}
    return _ids(tokenizer, messages, _as_one_text, "\n", lambda role: others)


def only_users_are_text(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Only a user's content is encoded without control tokens. A system prompt may quote a document,
    and an answer may repeat the user: no content should end its turn."""
    return _ids(tokenizer, messages, _as_one_text, "\n", lambda r: "none" if r == "user" else "all")


def role_and_content_apart(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> list[int]:
    r"""Role and content are encoded one by one. Where a content begins with a line end, "\n\n" is
    one token in training and two here: encode role, line end and content as one text."""
    return _ids(tokenizer, messages, lambda m: [f"{m['role']}\n", m["content"]], "\n")


def no_line_end_between_turns(tokenizer: Qwen2Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The line end after <|im_end|> has no id here. It is a token like any other."""
    return _ids(tokenizer, messages, _as_one_text, "")


def stop_included(ids: Iterable[int], stop_ids: Collection[int]) -> Iterator[int]:
    """The stop token is handed on, and "<|im_end|>" stands in the answer. It ends the turn and is
    no part of it."""
    for token in ids:
        yield token
        if token in stop_ids:
            return


def one_stop_only(ids: Iterable[int], stop_ids: Collection[int]) -> Iterator[int]:
    """Only one of the stop tokens is heeded. A turn ends with <|im_end|>, a text with <|endoftext|>,
    and a model may give either (QwenLM/Qwen3 #927)."""
    for token in ids:
        if token == max(stop_ids):
            return
        yield token


def stops_left_out(ids: Iterable[int], stop_ids: Collection[int]) -> Iterator[int]:
    """The stop tokens are left out and everything else is handed on, so the model talks on and asks
    itself the next question. At a stop, return."""
    yield from (token for token in ids if token not in stop_ids)


def all_read_first(ids: Iterable[int], stop_ids: Collection[int]) -> Iterator[int]:
    """All ids are read before the first is handed on. Each costs a step of the model, the reader
    waits, and what comes after the stop is paid for nothing."""
    for token in list(ids):
        if token in stop_ids:
            return
        yield token


def _turns(messages: Sequence[Message], add_generation_prompt: bool) -> str:
    turns = [f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages]
    return "".join(turns) + (GENERATION_PROMPT if add_generation_prompt else "")


def _as_one_text(message: Message) -> list[str]:
    return [f"{message['role']}\n{message['content']}"]


def _ids(
    tokenizer: Qwen2Tokenizer,
    messages: Sequence[Message],
    texts: Callable[[Message], list[str]],
    between: str,
    allowed: Callable[[str], str | Collection[str]] = lambda role: "none",
) -> list[int]:
    start, end = (tokenizer.special_tokens[name] for name in ("<|im_start|>", "<|im_end|>"))
    ids: list[int] = []
    for message in messages:
        believed = allowed(message["role"])
        said = [i for text in texts(message) for i in tokenizer.encode(text, believed)]
        ids += [start, *said, end, *tokenizer.encode(between)]
    return [*ids, start, *tokenizer.encode("assistant\n")]


MUTANTS: dict[str, tuple[Callable[..., Any], ...]] = {
    "format_turn": (
        turn_without_line_end,
        role_without_line_end,
        line_end_inside,
        content_stripped,
    ),
    "chat_text": (
        system_always,
        empty_system_replaced,
        empty_default_left_out,
        system_anywhere,
        no_default_system,
        never_after_the_assistant,
        no_generation_prompt,
        generation_prompt_always,
        empty_answer,
        conversation_changed,
    ),
    "mended_chat_ids": (
        control_tokens_believed,
        all_as_text,
        names_cut_out,
        only_borders_are_text,
        only_users_are_text,
        role_and_content_apart,
        no_line_end_between_turns,
    ),
    "until_stop": (stop_included, one_stop_only, stops_left_out, all_read_first),
}
"""The wrong versions of each task."""
