"""What an endpoint refuses: prompts that are too long, parameters it does not know, single questions, and everything."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from xdner.errors import CodecError, EndpointError, EndpointInterrupted, SettingsError
from xdner.generation.answers import Question
from xdner.generation.endpoint import _Run
from xdner.prompting.prompt import sub_sentence
from xdner.prompting.settings import WranerSettings
from xdner.testing.chats import ASKED, GOOD, SHOWN, ask, model_of
from xdner.testing.endpoints import Said, answering, serving
from xdner.text import Sentence

pytestmark = pytest.mark.usefixtures("with_key")


def test_a_prompt_that_is_too_long_has_fewer_demonstrations_and_says_so() -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        long = "Dan" in body["messages"][0]["content"]
        error = {
            "error": {"message": "This model's maximum context length is 10 tokens", "code": "context_length_exceeded"}
        }
        return Said(error, 400) if long else answering(GOOD)

    with serving(reply) as endpoint:
        (answer,) = ask(model_of(endpoint), shown=SHOWN)
    assert answer.notes == {"dropped_demonstrations": 2}
    assert len(answer.entities) == 2
    assert "Eve" in endpoint.requests[-1]["messages"][0]["content"]  # the best one stays
    with (
        serving(lambda n, body: Said({"error": "prompt is too long"}, 400)) as endpoint,
        pytest.raises(EndpointError, match="even without demonstrations"),
    ):
        ask(model_of(endpoint), shown=SHOWN)
    with serving(lambda n, body: answering(GOOD)) as endpoint:  # a limit that the user knows
        (answer,) = ask(model_of(endpoint, "prompt.max_tokens=660"), shown=SHOWN)
    assert answer.notes["dropped_demonstrations"] >= 1
    assert len(endpoint.requests) == 1


def test_one_long_demonstration_is_left_out_rather_than_all_others() -> None:
    """Wherever the limit is: the user's, or the server's, which nobody knows."""
    long = Sentence.from_text("Zoe " + "went home " * 60, [(0, 3, "person")])

    def reply(number: int, body: dict[str, Any]) -> Said:
        size = len(body["messages"][0]["content"])
        return answering(GOOD) if size < 700 else Said({"error": f"prompt is too long: {size}"}, 400)

    for shown in ([long, *SHOWN], [SHOWN[0], long, *SHOWN[1:]]):
        for limit in ((), ("prompt.max_tokens=760",)):
            with serving(reply) as endpoint:
                (answer,) = ask(model_of(endpoint, *limit), shown=tuple(shown))
            assert answer.notes == {"dropped_demonstrations": 1}
            prompt = endpoint.requests[-1]["messages"][0]["content"]
            assert [name in prompt for name in ("Eve", "Dan", "Cid", "Zoe")] == [True, True, True, False]
            assert len(endpoint.requests) == (1 if limit else 2)


def test_what_no_limit_lets_pass_is_tried_about_as_often_as_there_are_demonstrations() -> None:
    shown = tuple(Sentence.from_text("Eve " + "left " * n, [(0, 3, "person")]) for n in (40, 1, 9, 3, 80, 2))
    with (
        serving(lambda n, body: Said({"error": "prompt is too long"}, 400)) as endpoint,
        pytest.raises(EndpointError, match="even without demonstrations"),
    ):
        ask(model_of(endpoint), shown=shown)
    sizes = [len(r["messages"][0]["content"]) for r in endpoint.requests]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(sizes) <= len(shown) + 2


def test_a_limit_that_answers_use_up_is_refused() -> None:
    for answer, limit in ((512, 512), (512, 64), (100, 99)):
        with pytest.raises(SettingsError, match=f"= {limit} is for .* = {answer} uses it up"):
            model_of("http://127.0.0.1:9/v1", f"prompt.max_tokens={limit}", f"llm.answer_tokens={answer}")
    # A domain's own settings count as the model's do.
    own = replace(ASKED, settings=WranerSettings.build(None, ["prompt.max_tokens=512"]))
    model = model_of("http://127.0.0.1:9/v1")
    with pytest.raises(SettingsError, match="uses it up"):
        model.split(Sentence.from_text("Ann"), own)


def test_a_prompt_over_the_limit_is_asked_in_windows_or_not_at_all() -> None:
    with serving(lambda n, body: answering(GOOD)) as endpoint:
        model = model_of(endpoint, "prompt.max_tokens=700", "llm.answer_tokens=500")
        text = Sentence.from_text("Ann went to Rome . " * 60)
        windows = model.split(text, ASKED)
        assert 1 < len(windows) < 60
        assert (windows[0].first, windows[-1].last) == (0, len(text.words))
        model.answer([Question(sub_sentence(text, window), ASKED) for window in windows])
        assert max(len(r["messages"][0]["content"]) for r in endpoint.requests) <= 600
        sent = len(endpoint.requests)
        word, good = Sentence.from_text("x" * 700), Sentence.from_text("Ann in Rome")
        bad, answer = model.answer([Question(word, ASKED, SHOWN), Question(good, ASKED)])
        assert bad.notes == {"too_long_prompts": 1, "dropped_demonstrations": 3}
        assert "prompt.max_tokens = 700" in bad.flaw
        assert len(answer.entities) == 2
        assert len(endpoint.requests) == sent + 1
        with pytest.raises(CodecError, match="the types of domain 'd' and an answer of"):
            model_of(endpoint, "prompt.max_tokens=700", "llm.answer_tokens=650").split(good, ASKED)


LENGTHS = [
    (400, {"error": {"code": 400, "message": "the request exceeds the available context size. try increasing it"}}),
    (400, {"error": {"message": "no", "type": "exceed_context_size_error"}}),
    (400, {"error": {"message": "no", "code": "context_length_exceeded"}}),
    (422, {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096.", "error_type": "x"}),
    (400, {"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}}),
    (400, {"object": "error", "message": "Please reduce the length of the messages or completion."}),
    (400, {"error": {"message": "x" * 300 + " prompt is too long: 9 tokens > 8 maximum"}}),
    (413, {}),
]


@pytest.mark.parametrize(("status", "body"), LENGTHS)
def test_a_prompt_that_is_too_long_in_the_words_of_many_servers(status: int, body: dict[str, Any]) -> None:
    with serving(
        lambda n, b: Said(body, status) if "Dan" in b["messages"][0]["content"] else answering(GOOD)
    ) as endpoint:
        (answer,) = ask(model_of(endpoint), shown=SHOWN)
    assert answer.notes == {"dropped_demonstrations": 2}  # the best one stays


def test_whatever_else_is_refused_is_asked_once_without_demonstrations() -> None:
    no = Said({"error": "payload not acceptable"}, 422)
    with serving(lambda n, b: no if "Eve" in b["messages"][0]["content"] else answering(GOOD)) as endpoint:
        (answer,) = ask(model_of(endpoint), shown=SHOWN)
    assert (len(answer.entities), answer.notes) == (2, {"dropped_demonstrations": 3})
    assert len(endpoint.requests) == 2


UNSUPPORTED = {
    "max_tokens": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'.",
    "temperature": "Unsupported value: 'temperature' does not support 0 with this model. Only the default is supported.",
}


@pytest.mark.parametrize("named", [True, False])
def test_parameters_that_a_server_refuses_are_left_out_and_told(named: bool) -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        for parameter, text in UNSUPPORTED.items():
            if parameter in body:
                error = {"message": text} | ({"param": parameter, "code": "unsupported_parameter"} if named else {})
                return Said({"error": error}, 400)
        return answering(GOOD)

    with serving(reply) as endpoint:
        model = model_of(endpoint, "llm.concurrency=1")
        first, second = ask(model, 2)
        ask(model)
        assert len(endpoint.requests) == 5  # refused twice, and never again
        asked = endpoint.requests[-1]
        assert (asked["max_completion_tokens"], "max_tokens" in asked, "temperature" in asked) == (512, False, False)
        told = model_of(endpoint, "llm.token_limit=max_completion_tokens", "llm.send_temperature=false")
        (quiet,) = ask(told)
        assert len(endpoint.requests) == 6
    assert first.notes == {"refused_max_tokens": 1, "without_temperature": 1}
    assert second.notes == {"without_temperature": 1}
    assert quiet.notes == {}


def test_another_name_of_a_limit_is_told_once_whoever_finds_out() -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        error = {"error": {"message": UNSUPPORTED["max_tokens"]}}
        return Said(error, 400, after=0.3) if "max_tokens" in body else answering(GOOD)

    with serving(reply) as endpoint:
        answers = ask(model_of(endpoint, "llm.concurrency=4"), 6)
    assert sum("max_tokens" in r for r in endpoint.requests) == 4, "all of the first found out"
    assert sorted(a.notes.get("refused_max_tokens", 0) for a in answers) == [0, 0, 0, 0, 0, 1]


def test_what_a_repeated_request_says_of_lengths_is_no_refusal() -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        said = f"Unsupported parameter. The request was {json.dumps(body)}"
        error = {"message": said, "param": "max_tokens", "code": "unsupported_parameter"}
        return Said({"error": error}, 400) if "max_tokens" in body else answering(GOOD)

    sentence = Sentence.from_text("Ann in Rome thought the queue was too long .")
    with serving(reply) as endpoint:
        (answer,) = model_of(endpoint).answer([Question(sentence, ASKED, SHOWN)])
    assert (len(answer.entities), answer.notes) == (2, {"refused_max_tokens": 1})
    assert len(endpoint.requests) == 2


ECHOES = [
    lambda body: {"detail": [{"type": "missing", "loc": ["body", "user"], "msg": "Field required", "input": body}]},
    lambda body: {"error": {"message": f"bad request: {body}", "type": "invalid_request_error"}},
    lambda body: {"error": {"message": f"bad request: {json.dumps(body)}"}},
    lambda body: {"message": str([{"loc": ("body", "user"), "msg": "Field required", "input": body}])},
]


@pytest.mark.parametrize("echo", ECHOES)
def test_a_parameter_in_a_repeated_request_is_not_what_is_refused(echo: Callable[[dict[str, Any]], Any]) -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        return Said(echo(body), 422) if "Rome 1" in body["messages"][0]["content"] else answering(GOOD)

    with serving(reply) as endpoint:
        answers = ask(model_of(endpoint, "llm.concurrency=1"), 3)
    assert [a.notes for a in answers] == [{}, {"refused_questions": 1}, {}]
    assert all(r["temperature"] == 0 and "max_tokens" in r for r in endpoint.requests)


def test_a_parameter_that_is_named_beside_a_repeated_request_is_left_out() -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        place = {"type": "extra_forbidden", "loc": ["body", "temperature"], "msg": "Not permitted", "input": body}
        return Said({"detail": [place]}, 422) if "temperature" in body else answering(GOOD)

    with serving(reply) as endpoint:
        (answer,) = ask(model_of(endpoint))
    assert answer.notes == {"without_temperature": 1}


def test_a_list_of_mistakes_is_told_in_its_words() -> None:
    place = {"type": "missing", "loc": ["body", "user"], "msg": "Field required", "input": {"messages": ["long"]}}
    with (
        serving(lambda n, body: Said({"detail": [place, {"msg": "No"}]}, 422)) as endpoint,
        pytest.raises(EndpointError, match=r"HTTP 422: body\.user: Field required; No\n"),
    ):
        ask(model_of(endpoint))


def test_a_value_out_of_bounds_is_no_refusal_of_the_parameter() -> None:
    with (
        serving(
            lambda n, body: Said({"error": {"message": "max_tokens must be <= 100", "param": "max_tokens"}}, 400)
        ) as e,
        pytest.raises(EndpointError, match="must be <= 100"),
    ):
        ask(model_of(e))
    assert len(e.requests) == 1


def test_what_is_wrong_with_one_question_is_a_note_of_its_answer() -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        prompt = body["messages"][0]["content"]
        if "Rome 1" in prompt:
            return Said({"error": {"message": "against our policy", "code": "content_filter"}}, 400)
        if "Rome 2" in prompt:
            return Said({"error": "prompt is too long"}, 400)
        if "Rome 3" in prompt:
            return Said({"choices": [{"message": {"content": '{"person": ["An'}, "finish_reason": "length"}]})
        return answering(GOOD)

    with serving(reply) as endpoint:
        answers = ask(model_of(endpoint), 5)
    assert [a.notes for a in answers] == [
        {}, {"refused_questions": 1}, {"too_long_prompts": 1}, {"malformed_answers": 1}, {},
    ]  # fmt: skip
    assert [bool(a.flaw) for a in answers] == [False, True, True, True, False]
    assert "against our policy (content_filter)" in answers[1].flaw
    assert "even without demonstrations" in answers[2].flaw
    assert answers[3].text == '{"person": ["An'
    assert "finish_reason length" in answers[3].flaw
    assert "llm.answer_tokens" in answers[3].flaw


def test_nothing_but_refusals_end_the_run_soon() -> None:
    with (
        serving(lambda n, body: Said({"error": "no such parameter"}, 400)) as endpoint,
        pytest.raises(EndpointError, match="no such parameter") as caught,
    ):
        ask(model_of(endpoint), 100)
    assert len(endpoint.requests) < 16
    assert caught.value.finished == ()


@pytest.mark.parametrize("answered", [0, 3])
def test_an_interruption_keeps_what_was_answered(answered: int) -> None:
    over = threading.Event()

    def reply(number: int, body: dict[str, Any]) -> Said:
        if number < answered:
            return answering(GOOD)
        os.kill(os.getpid(), signal.SIGINT)
        return Said(answering(GOOD).body, until=over)

    wanted = EndpointInterrupted if answered else KeyboardInterrupt
    with serving(reply) as endpoint:
        with pytest.raises(wanted) as caught:
            ask(model_of(endpoint, "llm.concurrency=1", "llm.timeout=600"), 10)
        over.set()  # whoever waited for the rest has one answer more, or waits for ever
    if isinstance(caught.value, EndpointInterrupted):
        assert caught.value.message == "interrupted after 3 of 10 answers"
        assert [a is not None and len(a.entities) for a in caught.value.finished] == [2, 2, 2, *[False] * 7]


def test_a_server_that_fails_in_the_middle_keeps_what_it_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def reply(number: int, body: dict[str, Any]) -> Said:
        return answering(GOOD) if number < 3 else Said({"error": "out of money"}, 402)

    with serving(reply) as endpoint, pytest.raises(EndpointError, match="402: out of money") as caught:
        ask(model_of(endpoint, "llm.concurrency=1"), 10)
    assert [a is not None and len(a.entities) for a in caught.value.finished] == [2, 2, 2, *[False] * 7]
    assert len(endpoint.requests) == 4

    # What is under way when another request fails is paid for, and kept.
    both, failed, end = threading.Barrier(2), threading.Event(), _Run._end

    def ended(run: _Run, error: Exception) -> None:
        end(run, error)
        failed.set()

    def slow(number: int, body: dict[str, Any]) -> Said:
        both.wait(60)
        last = "Rome 1" in body["messages"][0]["content"]
        return Said({"error": "no"}, 403) if last else Said(answering(GOOD).body, until=failed)

    monkeypatch.setattr(_Run, "_end", ended)
    with serving(slow) as endpoint, pytest.raises(EndpointError, match="403") as caught:
        ask(model_of(endpoint, "llm.concurrency=2"), 5)
    assert [a is not None for a in caught.value.finished] == [True, *[False] * 4]
