"""The scores against those of ``seqeval`` and ``nervaluate``, to the last digit."""

from __future__ import annotations

import warnings
from dataclasses import asdict

import nervaluate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.v1 import precision_recall_fscore_support
from seqeval.scheme import IOB2

from xdner.evaluation import SchemeCounts, evaluate
from xdner.evaluation.match import SCHEMES, align, count_schemes
from xdner.text import Entity

BOUNDED = settings(max_examples=100, deadline=None)
TYPES = [f"T{n:02d}" for n in range(12)]  # more than eight: NumPy then sums in another order


def tags_of(runs: list[tuple[int, str]], length: int) -> list[str]:
    """IOB2 tags from runs of (words, type); the empty type is outside."""
    tags = [tag for words, name in runs for tag in ([f"B-{name}"] + [f"I-{name}"] * (words - 1) if name else ["O"])]
    return (tags + ["O"] * length)[:length]


def entities_of(tags: list[str]) -> list[Entity]:
    """The entities of valid IOB2 tags; positions are words."""
    found: list[Entity] = []
    for at, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append(Entity(at, at + 1, tag[2:], "x"))
        elif tag.startswith("I-"):
            last = found.pop()
            found.append(Entity(last.start, at + 1, last.label, "x"))
    return found


@st.composite
def tag_corpora(draw) -> tuple[list[list[str]], list[list[str]]]:
    """Gold and predicted IOB2 tags, alike enough to hold every kind of match and error."""
    names = st.sampled_from(["", *TYPES[: draw(st.integers(1, 12))]])
    runs = st.lists(st.tuples(st.integers(1, 4), names), max_size=8)
    gold, predicted = [], []
    for _ in range(draw(st.integers(1, 6))):
        length, spans = draw(st.integers(1, 16)), draw(runs)
        gold.append(tags_of(spans, length))
        kept = draw(st.lists(st.integers(0, 5), min_size=len(spans), max_size=len(spans)))
        alike = [(s[0] + (k == 1), draw(names) if k == 0 else s[1]) for s, k in zip(spans, kept, strict=True)]
        predicted.append(tags_of(alike if draw(st.integers(0, 3)) else draw(runs), length))
    return gold, predicted


@st.composite
def entity_sentences(draw) -> list[list[Entity]]:
    """Entities that may nest, overlap and repeat; some are so long that one character is less than a percent."""
    starts = st.integers(0, 12) | st.sampled_from([99, 100, 101, 300])
    lengths = st.integers(1, 5) | st.sampled_from([100, 101, 200])
    spans = st.lists(st.tuples(starts, lengths, st.sampled_from("ABC")), max_size=7)
    return [[Entity(s, s + n, label) for s, n, label in draw(spans)] for _ in range(8)]


def by_seqeval(gold: list[list[str]], predicted: list[list[str]], average: str | None) -> tuple:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no types at all: seqeval takes the mean of nothing
        return precision_recall_fscore_support(gold, predicted, average=average, scheme=IOB2, zero_division=0)


def by_nervaluate(gold, predicted, tags: list[str], loader: str) -> dict:
    return nervaluate.Evaluator(gold, predicted, tags=tags, loader=loader).evaluate()


def numbers(found) -> tuple:
    names = ("correct", "incorrect", "partial", "missed", "spurious", "possible", "actual", "precision", "recall", "f1")
    return tuple(getattr(found, name) for name in names)


@BOUNDED
@given(tag_corpora())
def test_micro_macro_and_each_type_equal_seqeval(corpora):
    gold, predicted = corpora
    report = evaluate([entities_of(t) for t in gold], [entities_of(t) for t in predicted], samples=0)
    micro = by_seqeval(gold, predicted, "micro")
    assert (report.micro.precision, report.micro.recall, report.micro.f1, report.micro.gold) == micro
    if not report.per_type:
        assert asdict(report.macro) == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "types": 0}
        return
    macro = by_seqeval(gold, predicted, "macro")
    assert (report.macro.precision, report.macro.recall, report.macro.f1, report.micro.gold) == macro
    each = zip(*by_seqeval(gold, predicted, None), strict=True)
    assert [(s.precision, s.recall, s.f1, s.gold) for s in report.per_type.values()] == list(each)
    assert list(report.per_type) == sorted({t[2:] for tags in gold + predicted for t in tags if t != "O"})


@BOUNDED
@given(tag_corpora())
def test_the_four_schemes_equal_nervaluate(corpora):
    gold, predicted = corpora
    theirs = by_nervaluate(gold, predicted, TYPES, "list")
    report = evaluate([entities_of(t) for t in gold], [entities_of(t) for t in predicted], samples=0)
    assert report.schemes.keys() == theirs["overall"].keys() == SCHEMES.keys()
    for scheme, counts in report.schemes.items():
        assert numbers(counts) == numbers(theirs["overall"][scheme]), scheme
    assert report.schemes["strict"].correct == report.micro.true_positives
    assert report.schemes["strict"].f1 == report.micro.f1


@BOUNDED
@given(tag_corpora())
def test_a_single_label_equals_nervaluates_results_for_that_type(corpora):
    gold, predicted = corpora
    for name, theirs in by_nervaluate(gold, predicted, TYPES, "list")["entities"].items():
        sides = ([entities_of(t) for t in side] for side in corpora)
        report = evaluate(*sides, labels=[name], samples=0)
        for scheme, counts in report.schemes.items():
            assert numbers(counts) == numbers(theirs[scheme]), (name, scheme)
        assert report.per_type == {name: report.micro}


@BOUNDED
@given(entity_sentences(), entity_sentences())
def test_the_four_schemes_equal_nervaluate_on_nested_and_long_entities(gold, predicted):
    aligned = align(gold, predicted)
    plain = (  # nervaluate's ends are inclusive
        [[{"start": e.start, "end": e.end - 1, "label": e.label} for e in sentence] for sentence in side]
        for side in (aligned.gold, aligned.predicted)
    )
    theirs = by_nervaluate(*plain, tags=list("ABC"), loader="dict")["overall"]
    for scheme in SCHEMES:
        total = SchemeCounts()
        for pair in zip(gold, predicted, strict=True):  # repetition and order must not matter
            total += count_schemes(*pair)[scheme]
        assert numbers(total) == numbers(theirs[scheme]), scheme


@pytest.mark.parametrize(("shared", "near"), [(1, False), (2, True), (3, True)])
def test_an_overlap_of_less_than_a_percent_of_the_gold_entity_is_none(shared, near):
    counts = count_schemes([Entity(10, 210, "A")], [Entity(5, 10 + shared, "A")])["partial"]
    assert counts == (SchemeCounts(partial=1) if near else SchemeCounts(missed=1, spurious=1))
