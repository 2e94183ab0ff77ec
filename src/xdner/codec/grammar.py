"""The grammar: which tokens may come next.

A target is a list of entities, each a mention copied from the source and a type of the domain, from left to right and
without overlap. :class:`GrammarState` is a machine that consumes token ids and knows the legal next ones. It keeps
*hypotheses*: a mention that has been copied so far may stand at several places of the source; in the ``paper`` form a
separator may also look like the inside of a word. When a mention closes, its leftmost place counts.

Forms, with slot 1 and slot 2 being mention and type (or the reverse, by ``codec.order``)::

    lines    slot1 TAB slot2 NEWLINE slot1 TAB slot2 NEWLINE END        nothing: END
    paper    ((slot1: slot2) (slot1: slot2)) END                        nothing: () END
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

from xdner.codec.words import WordEncoder, first_index
from xdner.domain import Domain
from xdner.errors import CodecError
from xdner.settings import CodecSettings

__all__ = [
    "ANY_WORD",
    "TYPE",
    "WORD",
    "Fork",
    "Grammar",
    "GrammarState",
    "Hypothesis",
    "Mention",
    "Node",
    "SourceWords",
]

# Kinds of hypotheses; each waits for its next token.
LITERAL, WORD, TYPE, ANY_WORD = range(4)


@dataclass(frozen=True, slots=True)
class Mention:
    """A decoded mention: words ``first`` to ``last`` (half-open), its label's name, and the half-open range of target
    tokens that decided it."""

    first: int
    last: int
    label: str
    start_token: int
    end_token: int


@dataclass(frozen=True, slots=True)
class Fork:
    """A word of a mention is complete: the mention goes on with the next ``word``, beginning with the token
    ``onward``, or it closes with the token ``close``."""

    word: int
    onward: int
    close: int


@dataclass(slots=True)
class Node:
    """A node of the trie of types."""

    children: dict[int, Node] = field(default_factory=dict)
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    kind: int
    literal: str = ""  # name of the literal
    at: int = 0  # ids consumed of the literal or the word
    word: int = 0  # the word being copied
    node: Node | None = None
    cursor: int = 0  # first word that the next mention may begin with
    first: int = -1  # the current mention
    last: int = -1
    label: str | None = None
    begun: int = 0  # target token at which the current entity began
    done: tuple[Mention, ...] = ()


class Grammar:
    """The grammar of a domain's targets.

    Args:
        encoder: of the backbone's tokenizer.
        domain: its types.
        settings: form and order.

    Raises:
        CodecError: a type without tokens, or two types with the same ones.
    """

    def __init__(self, encoder: WordEncoder, domain: Domain, settings: CodecSettings) -> None:
        self.domain = domain
        self.mention_first = settings.order == "mention-first"
        separators = encoder.separators
        self.end = separators.end
        if settings.form == "lines":
            self.literals = {
                "opening": (),
                "inner": separators.inner,
                "between": separators.outer,
                "closing": separators.outer,
                "empty": (),
            }
        else:
            pieces = {"opening": "((", "inner": ":", "between": ") (", "closing": "))", "empty": "()"}
            self.literals = {name: encoder.text(text) for name, text in pieces.items()}
            lost = [pieces[name] for name, ids in self.literals.items() if not ids]
            if lost:
                raise CodecError(f"the tokenizer has no tokens for {lost[0]!r}", hint="Use codec.form = 'lines'.")
        self.literals["end"] = (self.end,)
        self.label_ids: dict[str, tuple[int, ...]] = {}
        self.root = self._trie(encoder)

    def _trie(self, encoder: WordEncoder) -> Node:
        root = Node()
        for label in self.domain.labels:
            ids = encoder.label(self._spelled(label.verbalization))
            hint = f"Give label {label.name!r} another verbalization."
            if not ids:
                raise CodecError(f"the tokenizer has no tokens for the type {label.verbalization!r}", hint=hint)
            node = root
            for token in ids:
                node = node.children.setdefault(token, Node())
            if node.label is not None:
                raise CodecError(
                    f"the types {self.domain[node.label].verbalization!r} and {label.verbalization!r} of domain "
                    f"{self.domain.name!r} are the same tokens for this backbone",
                    hint=hint,
                )
            node.label = label.name
            self.label_ids[label.name] = ids
        return root

    def _spelled(self, verbalization: str) -> str:
        """A type as it stands in a target."""
        return verbalization

    @property
    def longest_label_cost(self) -> int:
        """Tokens that an entity takes besides its mention, at most."""
        extra = len(self.literals["inner"]) + max(len(self.literals["between"]), len(self.literals["closing"]))
        return max(map(len, self.label_ids.values())) + extra

    def start(self, words: Sequence[tuple[int, ...]]) -> GrammarState:
        """The start state for a sentence.

        Args:
            words: ids of each word.
        """
        return GrammarState(self, SourceWords(words))


class SourceWords:
    """A sentence's words, indexed once."""

    def __init__(self, words: Sequence[tuple[int, ...]]) -> None:
        self.words = words
        self.positions = first_index(words)
        self._filled = [i for i, ids in enumerate(words) if ids]
        self._legal: dict[int, frozenset[int]] = {}

    def following(self, cursor: int) -> int | None:
        """The first word at or after ``cursor`` that has tokens."""
        at = bisect_left(self._filled, cursor)
        return self._filled[at] if at < len(self._filled) else None

    def beginnings(self, cursor: int) -> frozenset[int]:
        """First tokens of all words at or after ``cursor``."""
        known = self._legal.get(cursor)
        if known is None:
            known = frozenset(ids[0] for ids in self.words[cursor:] if ids)
            self._legal[cursor] = known
        return known

    def starting(self, token: int, cursor: int) -> list[int]:
        """Words at or after ``cursor`` that begin with ``token``, from left to right."""
        found = self.positions.get(token, [])
        return found[bisect_left(found, cursor) :]


class GrammarState:
    """Where a target is; consumes ids one by one.

    Attributes:
        done: whether the end was consumed.
        tokens: how many ids were consumed.
    """

    __slots__ = ("_grammar", "_hypotheses", "_source", "done", "tokens")

    def __init__(self, grammar: Grammar, source: SourceWords) -> None:
        self._grammar, self._source = grammar, source
        self.done, self.tokens = False, 0
        start = Hypothesis(LITERAL)
        self._hypotheses: list[Hypothesis] = [
            *self._literal(start, "opening"),
            *self._literal(start, "empty"),
        ]

    def copy(self) -> Self:
        """An independent copy."""
        other = object.__new__(type(self))
        other._grammar, other._source = self._grammar, self._source
        other._hypotheses, other.done, other.tokens = self._hypotheses, self.done, self.tokens
        return other

    def legal(self) -> tuple[int, ...]:
        """The legal next ids, sorted; empty only when ``done``."""
        if len(self._hypotheses) == 1:
            return tuple(sorted(self._expected(self._hypotheses[0])))
        ids: set[int] = set()
        for hypothesis in self._hypotheses:
            ids.update(self._expected(hypothesis))
        return tuple(sorted(ids))

    def advance(self, token: int) -> None:
        """Consume one id.

        Raises:
            CodecError: it is not legal here.
        """
        # Counted first: the hypotheses note which token an entity began and ended with.
        self.tokens += 1
        following = [h for hypothesis in self._hypotheses for h in self._consume(hypothesis, token)]
        if not following:
            self.tokens -= 1
            raise CodecError(
                f"token {token} is not legal at position {self.tokens} of the target",
                hint="Take one of GrammarState.legal().",
            )
        self._hypotheses = following if len(following) < 2 else _distinct(following)

    def forced(self) -> tuple[int, ...]:
        """The run of ids that are forced from here, end included; the state does not change."""
        run: list[int] = []
        ahead = self
        while True:
            if len(ahead._hypotheses) == 1:
                expected = ahead._expected(ahead._hypotheses[0])
            else:
                expected = ahead.legal()
            if len(expected) != 1:
                return tuple(run)
            (token,) = expected
            run.append(token)
            if ahead is self:
                ahead = self.copy()
            ahead.advance(token)

    def fork(self) -> Fork | None:
        """Where the mention that is being copied could end, both ways; ``None`` anywhere else. If it may stand at several
        places, the leftmost one's next word is given."""
        words = [h.word for h in self._hypotheses if h.kind == WORD and h.at == 0]
        closing = [h for h in self._hypotheses if h.kind == LITERAL]
        if not words or not closing:
            return None
        word = min(words)
        return Fork(word, self._source.words[word][0], self._grammar.literals[closing[0].literal][closing[0].at])

    def beginning(self, likely: Sequence[bool]) -> int | None:
        """Where a mention may begin, or has begun with what several words begin with: the token that leads to the next word
        that is likely to begin one.

        Args:
            likely: of each word; words beyond the end are not.

        Returns:
            ``None`` anywhere else, or if no such word is left.
        """
        words, ways = self._source.words, dict[int, int]()
        for h in self._hypotheses:
            if h.kind == ANY_WORD:
                legal = self._expected(h)
                ways |= {i: words[i][0] for i in range(h.cursor, len(words)) if words[i] and words[i][0] in legal}
            elif h.kind == WORD and h.word == h.first and h.at:
                ways[h.word] = words[h.word][h.at]
        return next((ways[word] for word in sorted(ways) if word < len(likely) and likely[word]), None)

    def mentions(self) -> list[Mention]:
        """The complete mentions so far, from left to right."""
        read = [h.done for h in self._hypotheses]
        shortest = min(read, key=len) if read else ()
        return list(shortest)

    # -- hypotheses --------------------------------------------------------------------------------------------------

    def _expected(self, h: Hypothesis) -> frozenset[int] | tuple[int, ...]:
        if h.kind == WORD:
            return (self._source.words[h.word][h.at],)
        if h.kind == ANY_WORD:
            return self._source.beginnings(h.cursor)
        if h.kind == TYPE:
            assert h.node is not None
            return tuple(h.node.children)
        return () if self.done else (self._grammar.literals[h.literal][h.at],)

    def _consume(self, h: Hypothesis, token: int) -> list[Hypothesis]:
        if h.kind == ANY_WORD:
            found = self._source.starting(token, h.cursor)
            begun = self.tokens - 1 if self._grammar.mention_first else h.begun
            return [
                x
                for w in found
                for x in self._in_word(Hypothesis(WORD, "", 1, w, None, h.cursor, w, -1, h.label, begun, h.done))
            ]
        if token not in self._expected(h):
            return []
        if h.kind == WORD:
            return self._in_word(replace(h, at=h.at + 1))
        if h.kind == TYPE:
            assert h.node is not None
            begun = self.tokens - 1 if h.node is self._grammar.root and not self._grammar.mention_first else h.begun
            return self._in_type(replace(h, node=h.node.children[token], begun=begun))
        if h.at + 1 < len(self._grammar.literals[h.literal]):
            return [replace(h, at=h.at + 1)]
        return self._after_literal(h)

    def _literal(self, h: Hypothesis, name: str) -> list[Hypothesis]:
        if name in ("opening", "between") and self._source.following(h.cursor) is None:
            return []  # nothing is left to copy
        waiting = replace(h, kind=LITERAL, literal=name, at=0, node=None)
        return [waiting] if self._grammar.literals[name] else self._after_literal(waiting)

    def _after_literal(self, h: Hypothesis) -> list[Hypothesis]:
        if h.literal in ("opening", "between"):
            return self._slot(replace(h, first=-1, last=-1, label=None), first=True)
        if h.literal == "inner":
            return self._slot(h, first=False)
        if h.literal == "end":
            self.done = True
            return [replace(h, at=0)]
        return self._literal(h, "end")

    def _slot(self, h: Hypothesis, *, first: bool) -> list[Hypothesis]:
        if first == self._grammar.mention_first:
            return [replace(h, kind=ANY_WORD)]
        return [replace(h, kind=TYPE, node=self._grammar.root)]

    def _in_word(self, h: Hypothesis) -> list[Hypothesis]:
        if h.at < len(self._source.words[h.word]):
            return [h]
        closed = self._close(replace(h, last=h.word + 1, cursor=h.word + 1), first=self._grammar.mention_first)
        onward = self._source.following(h.word + 1)
        return closed if onward is None else [*closed, replace(h, word=onward, at=0)]

    def _in_type(self, h: Hypothesis) -> list[Hypothesis]:
        assert h.node is not None
        closed = []
        if h.node.label is not None:
            closed = self._close(replace(h, label=h.node.label), first=not self._grammar.mention_first)
        return [*closed, h] if h.node.children else closed

    def _close(self, h: Hypothesis, *, first: bool) -> list[Hypothesis]:
        """A slot is complete: the inner separator follows the first, another entity or the closing the second."""
        if first:
            return self._literal(h, "inner")
        assert h.label is not None
        # The token after the entity belongs to its decisions: it decided that the entity goes no further.
        whole = Mention(h.first, h.last, h.label, h.begun, self.tokens + 1)
        ended = replace(h, done=(*h.done, whole))
        return [*self._literal(ended, "between"), *self._literal(ended, "closing")]


def _distinct(hypotheses: list[Hypothesis]) -> list[Hypothesis]:
    """One hypothesis for each thing waited for. The leftmost wins: it is listed first, and leaves most to follow."""
    kept: dict[tuple[int, str, int, int, int], Hypothesis] = {}
    for h in hypotheses:
        place = (h.kind, h.literal, h.at, h.word if h.kind == WORD else 0, id(h.node))
        if h.kind == WORD:  # two mentions may be on their way through one word
            place = (h.kind, h.literal, h.at, h.word, h.first)
        other = kept.get(place)
        if other is None or (h.cursor, h.first) < (other.cursor, other.first):
            kept[place] = h
    return list(kept.values())
