"""Files: bytes, detection, and round trips over any text."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.corpora import FORMATS, Corpus, read_corpus, write_corpus
from xdner.errors import CorpusError, StorageError, XdnerError
from xdner.text import Sentence

BOUNDED = settings(max_examples=80, deadline=None)
COLUMNS = "Ada\tB-person\nwrote\tO\n"
SPANS = '{"text": "Ada wrote", "spans": [{"start": 0, "end": 3, "label": "person"}]}\n'
TOKENS = '{"tokens": ["Ada", "wrote"], "tags": ["B-person", "O"]}\n'
SAMPLES = {"columns": COLUMNS, "spans": SPANS, "tokens": TOKENS}


# -- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "line", "says", "hint"),
    [
        (b"", None, "the file is empty", "Check that it was downloaded"),
        (b"\xef\xbb\xbf \r\n\t\n", None, "the file is empty", "to the end"),
        (COLUMNS.encode("utf-16"), None, "the file is in UTF-16; UTF-8 was expected", "iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff" + COLUMNS.encode("utf-16-be"), None, "in UTF-16", "iconv"),
        (COLUMNS.encode("utf-32"), None, "the file is in UTF-32", "iconv -f UTF-32"),
        (COLUMNS.encode("utf-16-le"), 1, "a NUL character", "UTF-16 without a mark"),
        (COLUMNS.encode() + b"a\0b\tO\n", 3, "a NUL character", "Remove the character"),
        (COLUMNS.encode() + "Zoë\tO\n".encode("latin-1"), 3, "byte 0xeb is not UTF-8", "iconv -f WINDOWS-1252"),
        (COLUMNS.encode() + b"\xed\xa0\x80\tO\n", 3, "byte 0xed is not UTF-8", "iconv"),
    ],
)
@pytest.mark.parametrize("format", [None, *FORMATS])
def test_bytes_that_are_no_text(put, content, line, says, hint, format):
    path = put(content)
    with pytest.raises(CorpusError) as caught:
        read_corpus(path, format=format)
    assert (caught.value.path, caught.value.line) == (path, line)
    assert says in caught.value.message
    assert hint in caught.value.hint


def test_paths_that_lead_to_no_file(tmp_path):
    with pytest.raises(CorpusError, match="there is no such file"):
        read_corpus(tmp_path / "none.txt")
    with pytest.raises(CorpusError, match="this is a folder") as caught:
        read_corpus(tmp_path)
    assert "Name one file in it" in caught.value.hint
    for name in ("a\0b", "\ud800", "n" * 300):
        with pytest.raises(CorpusError, match="the file cannot be read"):
            read_corpus(tmp_path / name)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CorpusError, match="the file cannot be read: Not a directory"):
        read_corpus(tmp_path / "file" / "below")


def test_a_file_name_that_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.txt"
    with open(path, "wb") as file:
        file.write(COLUMNS.encode())
    corpus = read_corpus(os.fsdecode(path))
    write_corpus(corpus, tmp_path / "x", format="tokens")
    assert read_corpus(tmp_path / "x")[0].id == corpus[0].id == "?:1"


@BOUNDED
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode), format=st.sampled_from([None, *FORMATS]))
def test_any_bytes_are_read_or_refused_with_a_corpus_error(tmp_path_factory, content, format):
    path = tmp_path_factory.mktemp("bytes") / "file"
    path.write_bytes(content)
    try:
        corpus = read_corpus(path, format=format)
    except CorpusError as error:
        assert (error.path, bool(error.hint)) == (path, True)  # noqa: PT017 - either end is right
    else:
        assert len(corpus) > 0


JSON = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    '"text"',
    '"spans"',
    '"tokens"',
    '"tags"',
    '"label"',
    '"a"',
    '"B-x"',
    '"\\ud800"',
    "0",
    "1",
    "null",
    "-1",
]
TAGGED = [*["O", "B-x", "I-x", "E-x", "S-y", "word", "#", "-DOCSTART-"], "# id = 1"]
PIECES = st.sampled_from([*JSON, *TAGGED, "\t", "\n", "\r", " "])


@settings(max_examples=100, deadline=None)
@given(content=st.lists(PIECES, max_size=30).map("".join), format=st.sampled_from([None, *FORMATS]))
def test_near_misses_are_read_or_refused_with_a_corpus_error(tmp_path_factory, content, format):
    path = tmp_path_factory.mktemp("pieces") / "file"
    path.write_bytes(content.encode())
    try:
        corpus = read_corpus(path, format=format)
    except CorpusError as error:
        assert error.hint  # noqa: PT017 - either end is right
        return
    assert len({s.id for s in corpus}) == len(corpus)
    for sentence in corpus:
        assert all(sentence.text[w.start : w.end] == w.text for w in sentence.words)
        assert all(sentence.text[e.start : e.end] == e.text for e in sentence.entities)


# -- detection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.conll", "a"])
@pytest.mark.parametrize("format", FORMATS)
def test_the_content_tells_the_format_and_the_name_does_not(put, name, format):
    path = put("\n" + SAMPLES[format], name)
    found = read_corpus(path)
    assert (found.format, found.labels, found.path) == (format, ("person",), path)
    assert read_corpus(path, format=format) == found


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("{\tO\nAda\tB-person\n}\tO\n", "columns"),
        ("[ O\nAda B-person\n", "columns"),
        ("7\tO\n", "columns"),
        ('{"a":1}\tO\n', "columns"),
        ("# about\n-DOCSTART- -X- O O\n\nAda NNP O B-person\n", "columns"),
        ('{"tokens": ["a"], "tags": ["O"], "text": "a"}\n', "tokens"),
        ('{"tokens": [{"text": "a"}], "text": "a", "spans": []}\n', "spans"),
    ],
)
def test_look_alikes_are_told_apart(put, text, format):
    assert read_corpus(put(text)).format == format


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("Once upon a time\nthere was\n", "the format is none that is known", "format=columns|spans|tokens"),
        ("Ada\tperson\n", "the file begins 'Ada\\tperson'", "Known are columns"),
        ('{"sentence": "Ada"}\n', "its keys: 'sentence'", 'Spans are {"text"'),
        ("{}\n", "its keys: none", 'tokens are {"tokens"'),
        ('[{"text": "a"}]\n', "expected a JSON object, found an array", "no array around it"),
        ('{\n"text": "a"\n}\n', "not JSON (Expecting property name", "no object over several lines"),
        ("w" * 2_000_000, "the format is none that is known", "Known are columns"),
    ],
)
def test_what_is_no_corpus(put, text, says, hint):
    with pytest.raises(CorpusError) as caught:
        read_corpus(put(text))
    assert caught.value.line == 1
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert len(str(caught.value)) < 600


def test_unknown_words_are_refused(tmp_path):
    sentence = Sentence.from_words(["a"])
    with pytest.raises(CorpusError, match="unknown format 'conll'") as caught:
        read_corpus(tmp_path / "x", format="conll")
    assert caught.value.hint == "Known are: columns, spans, tokens."
    with pytest.raises(CorpusError, match="unknown format 'conll'"):
        write_corpus([sentence], tmp_path / "x", format="conll")
    with pytest.raises(CorpusError, match="unknown scheme 'iob'") as caught:
        write_corpus([sentence], tmp_path / "x", format="columns", scheme="iob")
    assert caught.value.hint == "Known are: bio, bioes."


# -- round trips -----------------------------------------------------------------------------------------------------

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ODD = st.sampled_from(list("ab#\t\n\r \\\"'{}\u2028\x85\ufeff\u200b中é\u0301👩-"))
TEXTS = (st.text(CHARACTERS, max_size=12) | st.text(ODD, max_size=12)).filter(lambda text: text.strip())
COLUMN_WORDS = TEXTS.filter(lambda w: w == w.strip(" ") and not set(w) & set("\t\n\r"))
LABELS = st.sampled_from(["person", "x-y", "B-b", "O", "中", "[red]"])


@st.composite
def worded(draw, words):
    chosen = draw(st.lists(words, min_size=1, max_size=6))
    edges = sorted(draw(st.sets(st.integers(0, len(chosen)), max_size=4)))
    spans = [(*pair, draw(LABELS)) for pair in zip(edges[::2], edges[1::2], strict=False)]
    return Sentence.from_words(chosen, spans)


@st.composite
def texts(draw):
    text = draw(TEXTS)
    edges = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pairs = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=False) if text[a:b] == text[a:b].strip() != ""]
    return Sentence.from_text(text, [(*pair, draw(LABELS)) for pair in pairs])


def back(folder, sentences, **options):
    path = folder.mktemp("round") / "x"
    write_corpus(sentences, path, **options)
    return read_corpus(path)


def bare(sentences):
    return [(s.text, s.words, s.entities) for s in sentences]


@BOUNDED
@given(sentences=st.lists(worded(COLUMN_WORDS), min_size=1, max_size=3), scheme=st.sampled_from(["bio", "bioes"]))
def test_columns_come_back(tmp_path_factory, sentences, scheme):
    found = back(tmp_path_factory, sentences, format="columns", scheme=scheme)
    assert (found.format, bare(found), found.warnings) == ("columns", bare(sentences), {})


@BOUNDED
@given(sentences=st.lists(worded(TEXTS), min_size=1, max_size=3), scheme=st.sampled_from(["bio", "bioes"]))
def test_tokens_come_back(tmp_path_factory, sentences, scheme):
    found = back(tmp_path_factory, sentences, format="tokens", scheme=scheme)
    assert (found.format, bare(found), found.warnings) == ("tokens", bare(sentences), {})


@BOUNDED
@given(sentences=st.lists(texts(), min_size=1, max_size=3))
def test_spans_come_back_with_every_character(tmp_path_factory, sentences):
    found = back(tmp_path_factory, sentences, format="spans")
    assert (found.format, bare(found)) == ("spans", bare(sentences))


@pytest.mark.parametrize("format", ["spans", "tokens"])
def test_ids_come_back_from_jsonl(tmp_path, format):
    sentences = [Sentence.from_words(["a"], id=id) for id in ("7", "b\n", "")]
    write_corpus(sentences, tmp_path / "x", format=format)
    assert [s.id for s in read_corpus(tmp_path / "x")] == ["7", "b\n", "x:3"]


@BOUNDED
@given(sentences=st.lists(texts(), min_size=1, max_size=2), format=st.sampled_from(["columns", "tokens"]))
def test_what_was_read_from_text_is_written_in_words_or_refused(tmp_path_factory, sentences, format):
    try:
        found = back(tmp_path_factory, sentences, format=format)
    except CorpusError as error:
        assert "inside a word" in error.message  # noqa: PT017 - either end is right
        return
    assert [[w.text for w in s.words] for s in found] == [[w.text for w in s.words] for s in sentences]
    assert [[s.word_span(e) for e in s.entities] for s in found] == [
        [s.word_span(e) for e in s.entities] for s in sentences
    ]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("sentence", "says"),
    [
        (Sentence.from_text(" ", id="s"), "sentence 's' has no words"),
        (Sentence.from_words(["a\0b"], id="s"), "sentence 's' holds a NUL character or half a surrogate pair"),
        (Sentence.from_words(["\ud800"]), "holds a NUL character or half"),
        (Sentence.from_words(["a"], id="\ud800"), "holds a NUL character or half"),
        (Sentence.from_words(["a"], [(0, 1, "two words")], id="s"), "the label 'two words' is not one visible word"),
    ],
)
def test_what_no_format_can_hold(tmp_path, format, sentence, says):
    with pytest.raises(CorpusError) as caught:
        write_corpus([Sentence.from_words(["fine"]), sentence], tmp_path / "x", format=format)
    assert says in caught.value.message
    assert caught.value.hint
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", ["columns", "tokens"])
def test_entities_that_tags_cannot_express(tmp_path, format):
    for spans, says in (([(0, 2, "x")], "inside a word"), ([(0, 7, "x"), (4, 7, "y")], "overlaps another one")):
        with pytest.raises(CorpusError, match=says) as caught:
            write_corpus([Sentence.from_text("Ada was", spans, id="s")], tmp_path / "x", format=format)
        assert "format='spans'" in caught.value.hint
        assert caught.value.path == tmp_path / "x"


def test_nothing_to_write_and_nowhere_to_write(tmp_path):
    with pytest.raises(CorpusError, match="there is no sentence to write"):
        write_corpus([], tmp_path / "x", format="spans")
    with pytest.raises(StorageError, match="cannot write"):
        write_corpus([Sentence.from_words(["a"])], tmp_path, format="spans")
    assert issubclass(StorageError, XdnerError)


# -- the value -------------------------------------------------------------------------------------------------------


def test_a_corpus_is_a_sequence_of_sentences(put):
    corpus = read_corpus(put(COLUMNS + "\n" + COLUMNS))
    assert len(corpus) == 2
    assert list(corpus) == [corpus[0], corpus[1]]
    assert corpus[-1] in corpus
    assert corpus[:1] == corpus.sentences[:1]
    assert corpus.pick([1, 1]).sentences == corpus.sentences[1:]
    assert [s.id for s in corpus.pick([1, 0])] == ["file:1", "file:2"]
    assert len({corpus, read_corpus(corpus.path)}) == 1
    assert Corpus([Sentence.from_words(["a"], [(0, 1, "x")])]).labels == ("x",)
