"""Columns: what is read, what is forgiven and counted, and what is refused with path, line and next step."""

from __future__ import annotations

import time

import pytest

from xdner.corpora import read_corpus, write_corpus
from xdner.errors import CorpusError
from xdner.text import Sentence, Word

ADA = "Ada\tB-person\nLovelace\tI-person\nwrote\tO\n\nIn\tO\nLondon\tB-city\n"


def shape(corpus):
    return [([w.text for w in s.words], [(e.text, e.label) for e in s.entities]) for s in corpus]


SHAPE = [(["Ada", "Lovelace", "wrote"], [("Ada Lovelace", "person")]), (["In", "London"], [("London", "city")])]


@pytest.mark.parametrize(
    "text",
    [
        ADA,
        ADA.replace("\t", " "),
        ADA.replace("\t", "   "),
        ADA.replace("\t", " \t "),
        ADA.replace("\n", "\r\n"),
        ADA.replace("\n", "\r\r\n"),
        ADA.replace("\n", "\r"),
        "\ufeff" + ADA,
        "\n\n" + ADA + "\n\n\n",
        ADA.replace("\n\n", "\n \t\n\n"),
        ADA.replace("\n", " \n"),
        ADA.rstrip("\n"),
        ADA.replace("\t", "\tNNP\t-X-\t"),
        ADA.replace("\t", " NNP I-NP "),
        "-DOCSTART- -X- O O\n\n" + ADA.replace("\t", " NNP I-NP "),
        "-DOCSTART-\tO\n\n" + ADA,
        "-DOCSTART-\n" + ADA.replace("\n\n", "\n-DOCSTART-\n"),
        "# a comment of any length\n" + ADA.replace("\n\n", "\n\n#\n# another O-ne\n"),
        "# newdoc\n" + ADA.replace("\t", " "),
        ADA.replace("B-person", "I-person").replace("B-city", "I-city"),  # IOB1, counted
        "Ada\tB-person\nLovelace\tE-person\nwrote\tO\n\nIn\tO\nLondon\tS-city\n",
        "Ada\tB-person\nLovelace\tL-person\nwrote\tO\n\nIn\tO\nLondon\tU-city\n",
    ],
)
def test_the_same_corpus_in_many_dresses(put, text):
    corpus = read_corpus(put(text))
    assert shape(corpus) == SHAPE
    assert corpus.format == "columns"
    assert corpus.labels == ("city", "person")
    assert [s.id for s in corpus] == ["file:1", "file:2"]


def test_offsets_are_those_of_the_joined_words(put):
    sentence = read_corpus(put(ADA))[0]
    assert sentence.text == "Ada Lovelace wrote"
    assert [(w.start, w.end) for w in sentence.words] == [(0, 3), (4, 12), (13, 18)]


def test_hash_words_are_words(put):
    assert shape(read_corpus(put("#\tO\n#NBA\tB-org\n\n# O\n"))) == [(["#", "#NBA"], [("#NBA", "org")]), (["#"], [])]
    assert shape(read_corpus(put("# O\n#NBA B-org\n"))) == [(["#", "#NBA"], [("#NBA", "org")])]


def test_ids_come_from_comments(put):
    text = "# id = one\nAda\tO\n\n# newpar\n# sent_id = two 2\nwrote\tO\n# id = late\n.\tO\n\nit\tO\n"
    assert [s.id for s in read_corpus(put(text))] == ["one", "two 2", "file:3"]


def test_ids_given_twice_are_numbered_and_counted(put):
    corpus = read_corpus(put("".join(f"# id = {i}\nw\tO\n\n" for i in ("a", "a", "a#2", "a", "file:6")) + "w\tO\n"))
    assert [s.id for s in corpus] == ["a", "a#2", "a#2#2", "a#3", "file:6", "file:6#2"]
    assert corpus.warnings == {"ids given twice (numbered: id#2)": 4}


def test_words_may_hold_spaces_between_tabs(put):
    assert shape(read_corpus(put("New York\tB-city\n10\u00a0000\tO\n"))) == [
        (["New York", "10\u00a0000"], [("New York", "city")])
    ]


def test_words_have_no_white_space_at_their_ends(put):
    corpus = read_corpus(put("in\tO\nRome\u00a0\tB-city\nRo\rma\tB-city\n"))
    assert shape(corpus) == [(["in", "Rome", "Ro ma"], [("Rome", "city"), ("Ro ma", "city")])]
    assert corpus.warnings == {"carriage returns inside words (read as spaces)": 1}
    write_corpus(corpus, path := corpus.path.with_suffix(".out"), format="columns")
    assert shape(read_corpus(path)) == shape(corpus)


def test_a_long_run_of_carriage_returns_is_read_in_linear_time(put):
    path = put("a\tO\n" + "\r" * 200_000 + "b\tO\n")
    begin = time.process_time()
    assert [w.text for s in read_corpus(path) for w in s.words] == ["a", "b"]
    assert time.process_time() - begin < 5


def test_line_separators_of_unicode_end_no_line(put):
    assert shape(read_corpus(put("a\u2028b\tO\nc\x85d\tO\n"))) == [(["a\u2028b", "c\x85d"], [])]


def test_impossible_transitions_are_counted(put):
    corpus = read_corpus(put("a\tO\nb\tI-x\n\nc\tB-x\nd\tI-y\n"))
    assert corpus.warnings == {"I- or E- tags after O or another type (read as the beginning of an entity)": 2}
    corpus = read_corpus(put("a\tB-x\nb\tO\n\nc\tS-x\n"))
    assert corpus.warnings == {"BIOES entities without their E- or S- tag (read as ending there)": 1}


def test_words_of_white_space_are_left_out_and_counted(put):
    corpus = read_corpus(put("a\tB-x\n\u00a0\tI-x\nb\tI-x\n \tO\n\tO\n"))
    assert shape(corpus) == [(["a", "b"], [("a b", "x")])]
    assert corpus.warnings == {"words of white space only (left out, with their tags)": 3}


@pytest.mark.parametrize(
    ("text", "line", "says", "hint"),
    [
        ("Ada\tB-person\nwrote\n", 2, "expected 2 columns, as in line 1; found one: 'wrote'", "A line is a word"),
        ("Ada\tB-person\nwrote\t\n", 2, "found one: 'wrote\\t'", "A line is a word"),
        ("Ada B-person\nNew York B-city\n", 2, "as in line 1; found 3: 'New York B-city'", "A line is a word"),
        ("a b\tO\nc\tNN\tO\n", 2, "expected 2 columns, as in line 1; found 3", "same number of columns"),
        ("Ada\tX-person\nwas\tO\n", 1, "unknown tag 'X-person'", "Tags are O, B-type and I-type (BIO)"),
        ("was\tO\r\nAda\tB\r\n", 2, "unknown tag 'B'", "with E-type and S-type too in BIOES"),
        ("was\tO\nAda\tB-\n", 2, "unknown tag 'B-'", "Tags are"),
        ("was\tO\nAda\tB-two words\n", 2, "unknown tag 'B-two words'", "one word"),
        ("#\tY\nwas\tO\n", 1, "unknown tag 'Y'", "Tags are"),
        ("was\tO\n#x\tY\n", 2, "unknown tag 'Y'", "Tags are"),
        ("was O\n#NBA X-org\n", 2, "unknown tag 'X-org'", "Tags are"),
        ("was\tO\nw\t" + "Y" * 500 + "\n", 2, "unknown tag '" + "Y" * 60 + "'…", "Tags are"),
        ("was\tO\n" + "w" * 1_200_000 + "\tO\n", 2, "a line of 1,200,002 characters", "A line is a word"),
        ("was\tO\n" + "w O " * 300_000 + "\n", 2, "a line of 1,200,000 characters", "format="),
    ],
)
def test_what_is_refused(put, text, line, says, hint):
    path = put(text)
    with pytest.raises(CorpusError) as caught:
        read_corpus(path)
    assert caught.value.path == path
    assert caught.value.line == line
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("text", ["-DOCSTART- O\n\n", "# only\n# comments\n", "\u00a0\tO\n"])
def test_no_sentence_is_an_error(put, text):
    with pytest.raises(CorpusError, match="no sentence was found in this file, read as 'columns'"):
        read_corpus(put(text), format="columns")


def test_a_column_alone_is_an_error(put):
    with pytest.raises(CorpusError, match="expected a word and a tag; found one: 'Ada'"):
        read_corpus(put("Ada\nwrote\n"), format="columns")


def test_a_document_of_100_000_words_is_read_in_linear_time(put):
    path = put("".join(f"word{i}\t{'B-x' if i % 5 == 0 else 'O'}\n" for i in range(100_000)))
    begin = time.process_time()
    (sentence,) = read_corpus(path)
    write_corpus([sentence], path, format="columns")
    assert time.process_time() - begin < 10
    assert len(sentence.words) == 100_000
    assert len(sentence.entities) == 20_000
    assert read_corpus(path)[0] == sentence


def test_what_is_written(tmp_path):
    sentences = [Sentence.from_words(["Ada", "L.", "was", "Ada"], [(0, 2, "p"), (3, 4, "p")])]
    write_corpus(sentences, tmp_path / "bio", format="columns")
    write_corpus(sentences, tmp_path / "bioes", format="columns", scheme="bioes")
    assert (tmp_path / "bio").read_text() == "Ada\tB-p\nL.\tI-p\nwas\tO\nAda\tB-p\n\n"
    assert (tmp_path / "bioes").read_text() == "Ada\tB-p\nL.\tE-p\nwas\tO\nAda\tS-p\n\n"


@pytest.mark.parametrize("word", ["a\tb", "a\nb", "a\rb", " a", "a ", "-DOCSTART-"])
def test_words_that_columns_cannot_hold(tmp_path, word):
    with pytest.raises(CorpusError, match="cannot stand in a column") as caught:
        write_corpus([Sentence(word, (Word(word, 0, len(word)),), (), "s")], tmp_path / "x", format="columns")
    assert "sentence 's'" in caught.value.message
    assert caught.value.path == tmp_path / "x"
    assert "format='tokens'" in caught.value.hint
    assert not (tmp_path / "x").exists()
