"""Templates are files with a name and a version, checked when they are read; prompts are what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdner.codec.dictionary_grammar import DictionaryGrammar
from xdner.codec.windows import Window
from xdner.codec.words import WordEncoder
from xdner.domain import Domain, Label
from xdner.errors import TemplateError
from xdner.prompting.prompt import PromptWriter, prompt_text, sub_sentence
from xdner.prompting.template import TEMPLATES, Template, find_template
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence

DOMAIN = Domain("d", (Label("per", "person", "people,\nreal ones"), Label("loc", "place")), "Find {them}.")
SHOWN = Sentence.from_text("Ann saw\nRome.", [(0, 3, "per"), (8, 12, "loc")])
QUERY = Sentence.from_text("Bob saw {answer}")
GOOD = (TEMPLATES / "dictionary-1.toml").read_text(encoding="utf-8")


def test_every_template_that_ships_is_sound_and_called_as_its_file() -> None:
    stems = [path.stem for path in TEMPLATES.glob("*.toml")]
    assert stems
    assert [find_template(stem).title for stem in stems] == stems
    assert find_template("dictionary").name == "dictionary"


def test_a_prompt_as_text() -> None:
    text = prompt_text(find_template("dictionary-1"), DOMAIN, [SHOWN], QUERY)
    assert text == (
        "Find {them}.\nTypes:\n- person: people, real ones\n- place\n"
        'Answer with a dictionary from types to lists of mentions: {"type": ["mention", ...], ...}\n'
        "Use only the types above. Copy each mention from the sentence, word by word. Leave out types without mentions.\n"
        '\nSentence: Ann saw Rome.\nAnswer: {"person": ["Ann"], "place": ["Rome"]}\n'
        "\nSentence: Bob saw {answer}\nAnswer: "
    )
    # A type that the prompt does not list is in no demonstration's answer.
    fewer = prompt_text(find_template("dictionary"), DOMAIN.with_labels(["loc"]), [SHOWN], QUERY)
    assert '{"place": ["Rome"]}' in fewer
    assert "person" not in fewer


@pytest.mark.parametrize("make", [byte_level_tokenizer, t5_like_tokenizer])
def test_a_prompt_as_ids_says_the_same(make: type) -> None:
    encoder = WordEncoder(make())
    writer = PromptWriter(encoder, find_template("dictionary-1"), DictionaryGrammar(encoder, DOMAIN))
    ids, shown = writer.source([SHOWN], QUERY, room=10_000)
    read = encoder.tokenizer.decode([*writer.context, *ids], clean_up_tokenization_spaces=False)
    wanted = prompt_text(find_template("dictionary-1"), DOMAIN, [SHOWN], QUERY)
    assert shown == 1
    assert "".join(read.split()) == "".join(wanted.split())
    # A mention in an answer is a slice of what was read.
    answer = writer.grammar.encode(SHOWN).ids
    source = encoder.words(SHOWN)
    assert "".join(map(chr, source[0])) in "".join(map(chr, answer))


def test_the_worst_demonstrations_go_first_where_room_is_short() -> None:
    encoder = WordEncoder(byte_level_tokenizer())
    writer = PromptWriter(encoder, find_template("dictionary"), DictionaryGrammar(encoder, DOMAIN))
    best, other = SHOWN, Sentence.from_text("it rained")
    room = len(writer.query(QUERY)) + len(writer.demonstration(best))
    assert writer.source([best, other], QUERY, room=room) == ((*writer.demonstration(best), *writer.query(QUERY)), 1)
    assert writer.source([best, other], QUERY, room=0) == (writer.query(QUERY), 0)
    both, count = writer.source([best, other], QUERY, room=10_000, order="best-first")
    assert count == 2
    assert both == (*writer.demonstration(best), *writer.demonstration(other), *writer.query(QUERY))


def test_a_demonstration_that_is_too_long_takes_nobody_elses_place() -> None:
    encoder = WordEncoder(byte_level_tokenizer())
    writer = PromptWriter(encoder, find_template("dictionary"), DictionaryGrammar(encoder, DOMAIN))
    short = [Sentence.from_text(f"{name} left", [(0, 3, "per")]) for name in ("Ann", "Bob", "Cid")]
    long = Sentence.from_text("Eve " + "went home " * 60, [(0, 3, "per")])
    room = len(writer.query(QUERY)) + 3 * len(writer.demonstration(short[0]))
    wanted = writer.source(short, QUERY, room=room)
    assert wanted[1] == 3
    for place in range(3):
        assert writer.source([*short[:place], long, *short[place:]], QUERY, room=room) == wanted


def test_a_window_is_a_sentence_of_its_own() -> None:
    sentence = Sentence.from_words(["a", "Ann", "Lee", "b"], [(1, 3, "per"), (3, 4, "loc")], id="s")
    part = sub_sentence(sentence, Window(1, 3))
    assert (part.text, [w.text for w in part.words]) == ("Ann Lee", ["Ann", "Lee"])
    assert [e.key for e in part.entities] == [(0, 7, "per")]
    assert sub_sentence(sentence, Window(0, 4)) is sentence


def test_a_users_own_template(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD.replace('"dictionary"', '"mine"').replace("version = 1", "version = 7"), encoding="utf-8")
    own = find_template(path)
    assert own.title == "mine-7"
    assert own.hash == find_template("dictionary-1").hash  # what is asked is the same
    assert Template.parse(own.source) == own


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("version = 1", "version = 0", "'version' must be"),
        ("version = 1", "version = true", "'version' must be"),
        ('name = "dictionary"', 'name = "My Own"', "'name' must be"),
        ("{sentence}\\nAnswer: {answer}", "{sentence}", r"'demonstration' lacks \{answer\}"),
        ("{types}", "{kinds}", r"'head' lacks \{types\}; 'head' has \{kinds\}"),
        ("query =", "question =", "unknown key 'question'; 'query' is missing"),
        ('bare_type = "- {type}\\n"', "bare_type = 3", "'bare_type' must be text"),
        ("head =", "head ==", "line"),
    ],
)
def test_what_is_wrong_with_a_template_is_said(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert old in GOOD
    path = tmp_path / "broken.toml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    with pytest.raises(TemplateError, match=text):
        find_template(path)


def test_templates_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"there is no template 'nope'.*\n.*dictionary-1"):
        find_template("nope")
    with pytest.raises(TemplateError, match="cannot read"):
        find_template(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"name = '\xe9'")
    with pytest.raises(TemplateError, match="cannot read"):
        find_template(tmp_path / "latin.toml")
