from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xdner.codec.words import WordEncoder
from xdner.errors import CodecError
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence

relaxed = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SPECIALS = ["<|im_end|>", "</s>", "<s>", "<pad>", "<eos>", "<unk>", "<extra_id_0>", "<extra_id_1>", "a</s>b"]


@relaxed
@given(text=st.text(max_size=40))
def test_no_word_yields_a_special_token_or_a_separator(encoder: WordEncoder, text: str) -> None:
    structure = {*encoder.separators.inner, *encoder.separators.outer, encoder.separators.end}
    for word in Sentence.from_text(text).words:
        ids = encoder.word(word.text)
        assert not structure & set(ids), word
        assert len(ids) <= encoder.max_pieces


@pytest.mark.parametrize("typed", SPECIALS)
def test_special_tokens_that_a_user_typed_are_only_text(encoder: WordEncoder, typed: str) -> None:
    unknown = encoder.tokenizer.unk_token_id
    assert not (set(encoder.tokenizer.all_special_ids) - {unknown}) & set(encoder.word(typed))


def test_lone_surrogates_white_space_and_nul_do_not_break_encoding(encoder: WordEncoder) -> None:
    for text in ("\ud800", "a\udfffb", "a\tb\nc", "\x00", "\u200b", "\u3000"):
        ids = encoder.word(text)
        assert not {*encoder.separators.inner, *encoder.separators.outer} & set(ids)


def test_a_word_does_not_depend_on_its_neighbors(encoder: WordEncoder) -> None:
    a, b = encoder.words(Sentence.from_text("person in")), encoder.words(Sentence.from_text("in the person"))
    assert a[0] == b[2]
    assert a[1] == b[0]


def test_long_words_are_capped_and_said_so() -> None:
    encoder = WordEncoder(byte_level_tokenizer(), max_pieces=8)
    assert len(encoder.word("x" * 100_000)) == 8
    assert encoder.capped("x" * 100_000)
    assert not encoder.capped("tern")


def test_a_tokenizer_that_adds_its_own_space_gets_no_second_one() -> None:
    tokenizer = Tokenizer(
        models.Unigram(
            [("<unk>", 0.0), ("▁", -1.0), ("▁a", -1.0), ("a", -2.0), ("<0x09>", -9.0), ("<0x0A>", -9.0)], unk_id=0
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")
    encoder = WordEncoder(wrapped)
    assert wrapped.convert_ids_to_tokens(list(encoder.word("a"))) == ["▁a"]
    assert wrapped.convert_ids_to_tokens([*encoder.separators.inner, *encoder.separators.outer]) == ["<0x09>", "<0x0A>"]


def test_a_token_for_the_newline_itself_goes_before_that_of_its_byte() -> None:
    """As in Gemma, which wrote the byte's token never in its life."""
    vocabulary = {"<unk>": 0, "</s>": 1, "<0x09>": 2, "<0x0A>": 3, "\t": 4, "\n": 5, "▁": 6, "a": 7}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    encoder = WordEncoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>"))
    assert (encoder.separators.inner, encoder.separators.outer) == ((4,), (5,))


def test_an_unknown_character_leaves_the_rest_of_its_word_whole() -> None:
    encoder = WordEncoder(t5_like_tokenizer())
    pieces = encoder.tokenizer.convert_ids_to_tokens(list(encoder.word("linguerž")))
    assert pieces == ["▁", "l", "ing", "u", "er", "<unk>"]


def test_a_tokenizer_without_end_or_separators_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1}, unk_token="<unk>"))
    with pytest.raises(CodecError, match="no end-of-sequence token"):
        WordEncoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>"))
    with pytest.raises(CodecError, match="no tokens that no word can contain"):
        WordEncoder(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>"))


def test_t5_facts(encoder: WordEncoder) -> None:
    if encoder.separators.inner[0] != 32099:
        pytest.skip("a fact of the real T5 tokenizer")
    assert encoder.word("①") == encoder.word("1")
    assert encoder.word("\u200b") == ()
    assert encoder.word("žž")[-1] == encoder.tokenizer.unk_token_id
