"""ChatML: how a conversation becomes one string, and what in it may be a control token."""

from collections.abc import Mapping, Sequence

from qwen2lite.text.tokenizer import Qwen2Tokenizer

QWEN2_SYSTEM = "You are a helpful assistant."
"""Qwen2's default system prompt. Source: the chat template of Qwen2-7B-Instruct."""
QWEN2_5_SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
"""Qwen2.5's default system prompt. Source: the chat template of Qwen2.5-Coder-0.5B-Instruct."""

ROLES = ("system", "user", "assistant")
Message = Mapping[str, str]

_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nSYSTEM<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def default_system(tokenizer: Qwen2Tokenizer) -> str:
    """The default system prompt of the generation whose tokenizer this is.

    Qwen2.5's tokenizer is Qwen2's with 19 more control tokens, those for code and tools among them.
    """
    return QWEN2_5_SYSTEM if "<|fim_prefix|>" in tokenizer.special_tokens else QWEN2_SYSTEM


def with_system(messages: Sequence[Message], system: str) -> list[Message]:
    """Puts a system prompt first, unless the conversation brings its own, be it an empty one.

    Raises:
        ValueError: no message, an unknown role, or no content.
    """
    if not messages:
        raise ValueError("the conversation is empty: give at least one message")
    for place, message in enumerate(messages):
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"message {place} has role {role!r}; roles are {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise ValueError(f"message {place} ({role}) needs a text as content, got {content!r}")
    if messages[0]["role"] == "system":
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


def render_chat(
    messages: Sequence[Message], system: str = QWEN2_SYSTEM, add_generation_prompt: bool = True
) -> str:
    r"""The conversation as one string, to look at or to compare with a template.

    Each turn is "<|im_start|>role\ncontent<|im_end|>\n". For a model use `encode_chat`, which keeps
    control tokens in the contents from having any effect.

    Args:
        messages: each with "role" and "content".
        system: used where the conversation doesn't begin with a system message.
        add_generation_prompt: open the assistant's turn at the end.
    """
    turns = [
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
        for message in with_system(messages, system)
    ]
    return "".join(turns) + ("<|im_start|>assistant\n" if add_generation_prompt else "")


def encode_chat(
    tokenizer: Qwen2Tokenizer,
    messages: Sequence[Message],
    system: str | None = None,
    add_generation_prompt: bool = True,
) -> list[int]:
    """The conversation as ids. Control tokens spelled inside a content stay plain text.

    Args:
        tokenizer: the model's.
        messages: each with "role" and "content".
        system: used where the conversation doesn't begin with a system message; None takes the
            default of the tokenizer's generation.
        add_generation_prompt: open the assistant's turn at the end.

    Raises:
        ValueError: see `with_system`; a tokenizer without the tokens of a chat.
    """
    start, end = turn_tokens(tokenizer)
    newline = tokenizer.encode("\n")
    ids: list[int] = []
    chosen = default_system(tokenizer) if system is None else system
    for message in with_system(messages, chosen):
        # One text, not two: the line end after the role can merge with what the content begins with.
        turn = f"{message['role']}\n{message['content']}"
        ids += [start, *tokenizer.encode(turn, allowed_special="none"), end, *newline]
    if add_generation_prompt:
        ids += [start, *tokenizer.encode("assistant\n")]
    return ids


def turn_tokens(tokenizer: Qwen2Tokenizer) -> tuple[int, int]:
    """The ids of `<|im_start|>` and `<|im_end|>`.

    Raises:
        ValueError: a tokenizer without them.
    """
    if missing := {"<|im_start|>", "<|im_end|>"} - tokenizer.special_tokens.keys():
        raise ValueError(
            f"this tokenizer has no {' and no '.join(sorted(missing))}, so its model knows no chat; "
            "give it a plain text to continue"
        )
    return tokenizer.special_tokens["<|im_start|>"], tokenizer.special_tokens["<|im_end|>"]


def chat_template(tokenizer: Qwen2Tokenizer) -> str:
    """The same format in Jinja's language, for other programs: a line of tokenizer_config.json.

    It makes one string of the conversation, as `render_chat` does: control tokens spelled inside a
    content take effect when that string is encoded, unless the program sees to it. Qwen2.5's own
    template has tools as well; they are left out.
    """
    return _TEMPLATE.replace("SYSTEM", default_system(tokenizer))
