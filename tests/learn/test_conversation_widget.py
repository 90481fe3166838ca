"""The chat: an answer grows, can be stopped, is never taken for HTML, and nothing said is lost."""

import threading
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qwen2lite import Parts, Qwen2, Qwen2Tokenizer, generate
from qwen2lite.infer.sample import CHAT_SAMPLING, Sampling
from qwen2lite.learn.widgets import conversation
from qwen2lite.learn.widgets.bubbles import bubbles, draw_conversation
from qwen2lite.learn.widgets.conversation import chat
from qwen2lite.model.norm import RMSNorm
from qwen2lite.text.chat import encode_chat

TINY = Path(__file__).parents[2] / "data" / "qwen2-tiny"
GREEDY = Sampling()
FOX = [{"role": "user", "content": "Tell me of a fox."}]


@pytest.fixture(scope="module")
def tokenizer():
    return Qwen2Tokenizer.from_pretrained(TINY)


@pytest.fixture(scope="module")
def model():
    return Qwen2.from_pretrained(TINY)


class Script:
    """Stands in for `generate_ids`: gives the tokens of a text, each when it is let."""

    def __init__(self, tokenizer, text):
        self.ids = tokenizer.encode(text)
        self.let, self.given, self.closed = threading.Semaphore(0), 0, False

    def __call__(self, *_):
        try:
            for token in self.ids:
                assert self.let.acquire(timeout=30)
                self.given += 1
                yield token
        finally:
            self.closed = True

    def all_at_once(self):
        self.let.release(len(self.ids))
        return self


@pytest.fixture
def play(monkeypatch, model, tokenizer):
    """A chat whose model says what it is told to, and how the answer's bubble changed."""

    def begin(text, pause=-1.0, **how):
        script = Script(tokenizer, text)
        monkeypatch.setattr(conversation, "generate_ids", script)
        monkeypatch.setattr(conversation, "_PAUSE", pause)
        talk, seen = chat(model, tokenizer, **how), []
        changed = threading.Condition()

        def note(change):
            with changed:
                seen.append(text_of(change["new"]))
                changed.notify_all()

        def until(count):
            with changed:
                assert changed.wait_for(lambda: len(seen) >= count, timeout=30)

        talk.view.answer.observe(note, "value")
        script.until, script.seen = until, seen
        return talk, script

    return begin


class Read(HTMLParser):
    """What a browser makes of HTML: elements and text."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.text = set(), ""
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.elements |= {tag, *(name for name, _ in attributes)}
        self.text += "\n" if tag == "br" else ""

    def handle_data(self, data):
        self.text += data


def text_of(source):
    return Read(source).text


def problem(talk):
    return text_of(talk.view.problem.value)


def test_an_answer_grows_and_is_then_a_message(play):
    talk, script = play("one two three")
    assert len(script.ids) > 3
    talk.send("Count")
    script.until(1)
    assert talk.is_answering and talk.view.send.disabled and not talk.view.stop.disabled
    assert script.seen == ["model▍"] and "Count" in talk.view.past.value
    for count in (2, 3):
        script.let.release()
        script.until(count)
    assert "2 written" in talk.view.status.value
    assert len(script.seen[0]) < len(script.seen[1]) < len(script.seen[2])
    script.all_at_once()
    assert talk.wait(30)
    assert script.seen[-1] == "modelone two three"
    assert talk.messages == [
        {"role": "user", "content": "Count"},
        {"role": "assistant", "content": "one two three"},
    ]
    assert talk.view.stop.disabled and not talk.view.send.disabled
    assert f"{len(script.ids)} written · first token after" in talk.view.status.value


def test_what_it_says_is_what_the_package_generates(model, tokenizer):
    talk = chat(model, tokenizer, system="Be brief.", sampling=GREEDY, max_new_tokens=12)
    known = 0
    for question in ("Hello", "And then?"):
        talk.send(question)
        assert talk.wait(60) and talk.error is None
        asked = encode_chat(tokenizer, talk.messages[:-1], "Be brief.")
        said = "".join(generate(model, tokenizer, asked, 12))
        assert talk.messages[-1] == {"role": "assistant", "content": said} and said
        now = f"{len(asked) - known} tokens read" + f", {known} known" * bool(known)
        assert now + ", " in talk.view.status.value
        known = len(asked) + 11  # the last token of an answer is never read
    assert len(talk.messages) == 4


def test_an_answer_that_is_being_stopped_does_not_disturb_the_next_conversation(model, tokenizer):
    talk = chat(model, tokenizer, sampling=GREEDY, max_new_tokens=40)
    said = "".join(generate(model, tokenizer, encode_chat(tokenizer, FOX), 40))
    for _ in range(3):
        talk.send("Tell me of a hare.")
        talk.new()
        talk.send("Tell me of a fox.")
        assert talk.wait(60) and talk.error is None
        assert talk.messages[-1]["content"] == said


def test_stop_ends_the_answer_and_keeps_what_there_is(play):
    talk, script = play("a b c d e f g h")
    talk.send("Go on")
    script.let.release(3)
    script.until(4)
    talk.view.stop.click()
    script.all_at_once()
    assert talk.wait(30)
    assert script.given == 4 and script.closed
    assert talk.messages[-1]["content"] == talk.tokenizer.decode(script.ids[:3])
    assert "stopped" in talk.view.status.value and not problem(talk)


def test_stopped_before_a_word_the_question_comes_back(play):
    talk, script = play("too late")
    talk.send("Never mind")
    talk.stop()
    script.all_at_once()
    assert talk.wait(30)
    assert talk.messages == [] and talk.view.field.value == "Never mind"


@pytest.mark.parametrize("nothing", ["", "  ", "\n\t"])
def test_an_empty_message_does_nothing(play, nothing):
    talk, script = play("never")
    talk.view.field.value = nothing
    talk.view.send.click()
    talk.send(nothing)
    assert talk.messages == [] and not talk.is_answering and script.seen == []


def test_a_message_during_an_answer_is_refused_and_stays_in_the_field(play):
    talk, script = play("an answer")
    talk.send("First")
    talk.view.field.value = "Second"
    talk.view.send.click()
    assert "One answer at a time" in problem(talk)
    script.let.release()
    script.until(2)
    assert "One answer at a time" in problem(talk)  # until the answer is there
    script.all_at_once()
    assert talk.wait(30)
    assert talk.view.field.value == "Second" and not problem(talk)
    assert [message["content"] for message in talk.messages] == ["First", "an answer"]


def test_enter_sends_the_text_that_comes_after_it(play):
    talk, script = play("yes")
    script.all_at_once()
    talk.view.field._handle_custom_msg({"event": "submit"}, [])
    talk.view.field.value = "typed to its end"
    script.until(2)
    assert talk.wait(30)
    assert talk.messages[0]["content"] == "typed to its end" and talk.view.field.value == ""


WRITTEN = [
    "<script>alert(1)</script>",
    "<b>bold</b> & <img src=x onerror=alert(1)>",
    "```html\n<iframe src='https://example.org'></iframe>\n```\nafter </div></div>",
    '" onmouseover="alert(1)',
]


@pytest.mark.parametrize("written", WRITTEN)
def test_no_html_of_people_or_models_has_an_effect(play, written):
    talk, script = play(written)
    script.all_at_once()
    talk.send(written)
    assert talk.wait(30)
    harmless = {"div", "b", "br", "pre", "class", "style", "dir"}
    for source in (talk.view.past.value, talk.view.answer.value, bubbles(talk.messages)):
        read = Read(source)
        assert read.elements <= harmless
        shown = written.replace("```html\n", "").replace("\n```\n", "")
        assert shown in read.text


def test_lines_and_code_are_kept():
    said = "Look:\n\n```python\ndef f(x):\n    return x\n```\nDone.\nReally."
    source = bubbles([{"role": "assistant", "content": said}])
    assert text_of(source) == "modelLook:def f(x):\n    return xDone.\nReally."
    code = source.split("<pre")[1].split("</pre>")[0]
    assert "monospace" in code and code.endswith(">def f(x):\n    return x")
    unfinished = bubbles([{"role": "assistant", "content": said[:30]}])
    assert unfinished.count("<pre") == unfinished.count("</pre>") == 1


def test_characters_of_several_tokens_come_whole(play):
    talk, script = play("🦙ö")
    script.all_at_once()
    talk.send("An animal")
    assert talk.wait(30)
    assert talk.messages[-1]["content"] == "🦙ö"
    assert not any("\ufffd" in text for text in script.seen)


def test_a_full_context_is_one_sentence_and_loses_nothing(model, tokenizer):
    talk = chat(model, tokenizer, sampling=GREEDY, max_new_tokens=4)
    talk.send("Hello")
    assert talk.wait(60)
    said = list(talk.messages)
    talk.send("word " * 400)
    assert talk.wait(60)
    assert problem(talk).startswith("the prompt has") and "context holds 256" in problem(talk)
    assert "Traceback" not in problem(talk) and isinstance(talk.error, ValueError)
    assert talk.messages == said and talk.view.field.value == "word " * 400
    talk.send("Hello again")
    assert talk.wait(60)
    assert len(talk.messages) == 4 and not problem(talk) and talk.error is None


@pytest.mark.parametrize(("most", "says"), [(3, "cut at max_new_tokens=3"), (999, "is full")])
def test_it_says_why_an_answer_is_cut(monkeypatch, model, tokenizer, most, says):
    monkeypatch.setattr(Qwen2Tokenizer, "eos_ids", frozenset())
    talk = chat(model, tokenizer, sampling=GREEDY, max_new_tokens=most)
    talk.send("Hello")
    assert talk.wait(60)
    assert says in talk.view.status.value


def test_an_error_of_the_learners_own_part_is_shown_with_its_place(tokenizer):
    def my_rope(x, cos, sin):
        return x @ cos.no_such_thing

    model = Qwen2.from_pretrained(TINY, parts=Parts(apply_rope=my_rope))
    talk = chat(model, tokenizer)
    talk.send("Hello")
    assert talk.wait(60)
    kind, place, hint = problem(talk).splitlines()
    assert kind.startswith("AttributeError: ") and "no_such_thing" in kind
    assert place.startswith("in my_rope, line ") and "return x @ cos.no_such_thing" in place
    assert hint == "The chat's .error has the whole traceback."
    assert isinstance(talk.error, AttributeError) and talk.error.__traceback__
    assert talk.messages == [] and talk.view.field.value == "Hello"


def test_parts_of_ones_own_answer_and_are_counted(tokenizer):
    class MyNorm(RMSNorm):
        pass

    model = Qwen2.from_pretrained(TINY, parts=Parts(norm=MyNorm))
    talk = chat(model, tokenizer, max_new_tokens=4)
    talk.send("Hello")
    assert talk.wait(60) and not problem(talk)
    assert "parts of this answer ran on your code" in talk.view.status.value


def test_a_new_conversation_keeps_the_old_one_and_hears_no_more_of_its_answer(play):
    talk, script = play("an old answer")
    talk.send("Old")
    script.let.release()
    script.until(2)
    talk.view.new.click()
    assert talk.messages == [] and not talk.is_answering and talk.view.past.value == ""
    script.all_at_once()
    assert talk.wait(30)
    [old] = talk.earlier
    assert old[0]["content"] == "Old" and old[1]["content"]
    assert talk.view.answer.value == "" and talk.messages == []
    talk.send("New")
    script.all_at_once()
    assert talk.wait(30)
    assert [message["content"] for message in talk.messages] == ["New", "an old answer"]


def test_an_old_question_without_an_answer_does_not_come_into_a_new_conversation(play):
    talk, script = play("too late")
    talk.send("Old")
    talk.new()
    script.all_at_once()
    assert talk.wait(30)
    assert talk.view.field.value == "" and talk.earlier == [[{"role": "user", "content": "Old"}]]


def test_a_fast_model_does_not_flood_the_page(play):
    talk, script = play("word " * 300, pause=3600.0)
    script.all_at_once()
    talk.send("Hurry")
    assert talk.wait(60)
    assert script.given > 300 and len(script.seen) == 2  # the empty bubble and the whole answer


def test_it_may_be_shown_again_and_is_the_same(play):
    talk, _ = play("")
    first, second = talk._repr_mimebundle_(), talk._repr_mimebundle_()
    assert first == second and "application/vnd.jupyter.widget-view+json" in first


def test_an_answer_without_text_is_a_message_too(play):
    talk, _ = play("")
    talk.send("Say nothing")
    assert talk.wait(30)
    assert talk.messages[-1] == {"role": "assistant", "content": ""}
    assert "ended its turn at once" in talk.view.answer.value


def test_the_sliders_are_the_sampling(model, tokenizer):
    given = Sampling(repetition_penalty=0.9, temperature=3.0, top_k=500, top_p=0.5, seed=7)
    talk = chat(model, tokenizer, sampling=given)
    assert talk.sampling == given
    talk.view.sliders["temperature"].value = 0.5
    talk.view.sliders["top_k"].value = 5
    assert talk.sampling == Sampling(0.9, 0.5, 5, 0.5, 7)
    assert chat(model, tokenizer).sampling == CHAT_SAMPLING


def test_the_still_picture_is_what_the_chat_shows(play, capsys):
    talk, script = play("See <b>me</b>")
    script.all_at_once()
    talk.send("Show")
    assert talk.wait(30)
    draw_conversation(talk.messages)
    assert capsys.readouterr().out == "you: Show\n\nmodel: See <b>me</b>\n"
    assert bubbles(talk.messages) == talk.view.past.value + talk.view.answer.value


def test_what_is_no_conversation_is_refused():
    with pytest.raises(ValueError, match="role 'bot'"):
        draw_conversation([{"role": "bot", "content": "Hi"}])
