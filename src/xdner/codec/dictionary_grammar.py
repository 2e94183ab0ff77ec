"""The grammar of IF-WRANER's answers: a dictionary from types to mentions, each copied from the sentence.

The same machine as for CP-NER's targets (``grammar.py``), with other literals and two loops, so the one engine runs it::

    {"type": ["mention", "mention"], "type": ["mention"]} END        nothing: {} END

Types come in any order, each at most once; a type's mentions go from left to right. Words of a mention are JSON-escaped,
so that what is written is always an answer that :func:`~xdner.codec.dictionary.parse` reads. All mentions together have
no more words than the sentence: what does not overlap fits. No string, white space aside, is listed under two types: the
second would find no place. A mention, list or word is only begun where some mention can still end, so no way is a dead end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

from xdner.codec.dictionary import Written, bare, escaped, write
from xdner.codec.grammar import ANY_WORD, TYPE, WORD, Grammar, GrammarState, Hypothesis, Mention, Node, SourceWords
from xdner.codec.target import Target
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.errors import CodecError
from xdner.text import Entity, Sentence

__all__ = ["DictionaryGrammar", "DictionaryState"]

#: Each literal between two slots; the quotation marks belong to it.
_PIECES = {"opening": '{"', "inner": '": ["', "next": '", "', "between": '"], "', "closing": '"]}', "empty": "{}"}


class DictionaryGrammar(Grammar):
    """The grammar of a domain's answers.

    Args:
        encoder: of the backbone's tokenizer.
        domain: its types.

    Raises:
        CodecError: a type without tokens, two types with the same ones, or a tokenizer without tokens for the brackets.
    """

    def __init__(self, encoder: WordEncoder, domain: Domain) -> None:
        self.domain, self.encoder = domain, encoder
        self.mention_first = False
        self.end = encoder.separators.end
        self.literals = {
            name: encoder.text((encoder.lead if name in ("opening", "empty") else "") + text)
            for name, text in _PIECES.items()
        }
        unknown = encoder.tokenizer.unk_token_id
        lost = [
            _PIECES[name] for name, ids in self.literals.items() if not ids or (unknown in ids and unknown != self.end)
        ]
        if lost:
            raise CodecError(
                f"the tokenizer has no tokens for {lost[0]!r}",
                hint="Answers are dictionaries with brackets and quotation marks: use another language model.",
            )
        self.literals["end"] = (self.end,)
        self.label_ids = {}
        self.root = self._trie(encoder)
        #: For each node of the trie, by id: the labels that can still be reached.
        self.below: dict[int, frozenset[str]] = {}
        self._reach(self.root)

    def _spelled(self, verbalization: str) -> str:
        return escaped(verbalization)

    def _reach(self, node: Node) -> frozenset[str]:
        own = frozenset() if node.label is None else frozenset([node.label])
        self.below[id(node)] = own.union(*(self._reach(child) for child in node.children.values()))
        return self.below[id(node)]

    def words(self, sentence: Sentence) -> tuple[tuple[int, ...], ...]:
        """Ids of each word as an answer writes it."""
        return tuple(self.encoder.word(escaped(word.text)) for word in sentence.words)

    def start(self, words: Sequence[tuple[int, ...]], texts: Sequence[str] | None = None) -> DictionaryState:
        """The start state for a sentence.

        Args:
            words: as :meth:`words` gives them.
            texts: of the words, by which strings are told apart; without them, by their ids.
        """
        return DictionaryState(self, _Strings(words, texts))

    def begin(self, sentence: Sentence) -> DictionaryState:
        """The start state for a sentence, by its texts."""
        return self.start(self.words(sentence), [word.text for word in sentence.words])

    def room(self, words: Sequence[tuple[int, ...]]) -> int:
        """Tokens of an answer, at most.

        Args:
            words: as :meth:`words` gives them.
        """
        # So many words in all, each at most once under a type.
        longest = sorted((len(ids) for ids in words), reverse=True)
        mentions = sum(longest[i // len(self.label_ids)] for i in range(len(longest)))
        size = {name: len(ids) for name, ids in self.literals.items()}
        types = sum(map(len, self.label_ids.values())) + len(self.label_ids) * (size["inner"] + size["between"])
        around = max(size["opening"] + size["closing"], size["empty"]) + size["end"]
        return mentions + len(words) * size["next"] + types + around

    def encode(self, sentence: Sentence, *, with_legal: bool = False) -> Target:
        """The answer for a sentence's entities.

        Args:
            sentence: with gold entities.
            with_legal: also give the legal set of every token.

        Returns:
            Ids and what was lost; besides the reasons of :class:`~xdner.codec.dictionary.Written`, ``no-tokens`` and
            ``same-tokens`` (other words before it look alike to the tokenizer: unknown characters).
        """
        words = self.words(sentence)
        lost: list[Entity] = []
        reasons: Counter[str] = Counter()
        kept = list(sentence.entities)
        for entity in sentence.entities:
            span = sentence.word_span(entity)
            if span is not None and not (words[span[0]] and words[span[1] - 1]):
                kept.remove(entity)
                lost.append(entity)
                reasons["no-tokens"] += 1
        while True:
            written = write(sentence.with_entities(kept), self.domain)
            ids = self._write(written, words)
            state = self.begin(sentence)
            legal: list[tuple[int, ...]] = []
            for token in ids:
                if with_legal:
                    legal.append(state.legal())
                try:
                    state.advance(token)
                except CodecError:  # a mention was misread, and is in the way of a later one
                    break
            strange = self._misread(sentence, written, state)
            if strange is None:
                break
            for entity in [e for e in kept if (bare(e.text), e.label) == strange]:
                kept.remove(entity)
                lost.append(entity)
                reasons["same-tokens"] += 1
        return Target(tuple(ids), tuple(legal), (*written.lost, *lost), dict(Counter(written.reasons) + reasons))

    def _misread(self, sentence: Sentence, written: Written, state: DictionaryState) -> tuple[str, str] | None:
        """The first listed string, without white space, that would be read as another one or not at all, and its label."""
        goals = [(label, *span) for label, spans in written.listed.items() for span in spans]
        read = state.mentions()

        def text(first: int, last: int) -> str:
            return bare("".join(w.text for w in sentence.words[first:last]))

        for (label, first, last), mention in zip(goals, read, strict=False):
            if text(first, last) != text(mention.first, mention.last):
                return text(first, last), label
        if state.done:
            return None
        label, first, last = goals[min(len(read), len(goals) - 1)]
        return text(first, last), label

    def _write(self, written: Written, words: Sequence[tuple[int, ...]]) -> list[int]:
        literals = self.literals
        if not written.listed:
            return [*literals["empty"], self.end]
        ids: list[int] = []
        for label, spans in written.listed.items():
            ids += literals["between" if ids else "opening"]
            ids += [*self.label_ids[label], *literals["inner"]]
            for number, (first, last) in enumerate(spans):
                ids += literals["next"] if number else ()
                ids += [i for word in words[first:last] for i in word]
        return [*ids, *literals["closing"], self.end]


class _Strings(SourceWords):
    """A sentence's words, and what tells their strings apart: characters without white space, or ids."""

    def __init__(self, words: Sequence[tuple[int, ...]], texts: Sequence[str] | None) -> None:
        super().__init__(words)
        parts: Sequence[Sequence[object]] = words if texts is None else [bare(text) for text in texts]
        self._line: Sequence[object] = tuple(i for ids in words for i in ids) if texts is None else bare("".join(texts))
        self._ends = [0, *accumulate(map(len, parts))]
        self.single: dict[object, list[int]] = {}
        for index in range(len(words)):
            if words[index]:
                self.single.setdefault(self.key(index, index + 1), []).append(index)

    def key(self, first: int, last: int) -> object:
        """The string of the words ``first`` to ``last``, half-open."""
        return self._line[self._ends[first] : self._ends[last]]


class DictionaryState(GrammarState):
    """Where an answer is; see :class:`~xdner.codec.grammar.GrammarState`.

    A mention's decisions begin with its type's first token if it is the first of its list, else with its own.
    """

    __slots__ = ()
    _grammar: DictionaryGrammar
    _source: _Strings

    def _expected(self, h: Hypothesis) -> frozenset[int] | tuple[int, ...]:
        if h.kind == TYPE:
            return tuple(self._open(h))
        if h.kind == ANY_WORD:
            shut = self._shut(h, self._elsewhere(h))
            if shut:
                words = self._source.words
                return frozenset(words[i][0] for i in range(h.cursor, len(words)) if words[i] and i not in shut)
        return super()._expected(h)

    def beginning(self, likely: Sequence[bool]) -> int | None:
        """Not told: of the names in a sentence, few are of the type whose list is open."""
        return None

    # -- no string under two types -----------------------------------------------------------------------------------

    def _elsewhere(self, h: Hypothesis) -> frozenset[object]:
        """The strings that are listed under other types than that of the list that is open."""
        return frozenset(self._source.key(m.first, m.last) for m in h.done if m.label != h.label)

    def _may_end(self, h: Hypothesis, first: int, word: int, elsewhere: frozenset[object]) -> bool:
        """Whether a mention from ``first`` that has come to ``word`` can end there or later.

        Its strings differ, so that of at most ``len(elsewhere) + 1`` ends one is free.
        """
        room = len(self._source.words) - self._spent(h)
        at: int | None = word
        while at is not None:
            if self._source.key(first, at + 1) not in elsewhere:
                return True
            at = self._source.following(at + 1) if at + 1 - first < room else None
        return False

    def _shut(self, h: Hypothesis, elsewhere: frozenset[object]) -> frozenset[int]:
        """The words at or after the cursor with which no mention can begin."""
        alone = (i for key in elsewhere for i in self._source.single.get(key, ()) if i >= h.cursor)
        return frozenset(i for i in alone if not self._may_end(h, i, i, elsewhere))

    def _may_begin(self, h: Hypothesis, elsewhere: frozenset[object]) -> bool:
        """Whether there is a mention at or after the cursor."""
        shut, at = self._shut(h, elsewhere), self._source.following(h.cursor)
        while at is not None and at in shut:
            at = self._source.following(at + 1)
        return at is not None

    # -- the machine -------------------------------------------------------------------------------------------------

    def _open(self, h: Hypothesis) -> dict[int, Node]:
        """The ways on through the trie that lead to a type that was not used."""
        assert h.node is not None
        used = {mention.label for mention in h.done}
        return {token: child for token, child in h.node.children.items() if self._grammar.below[id(child)] - used}

    def _spent(self, h: Hypothesis) -> int:
        """Words of the mentions so far."""
        return sum(mention.last - mention.first for mention in h.done)

    def _literal(self, h: Hypothesis, name: str) -> list[Hypothesis]:
        if name in ("next", "between") and self._spent(h) >= len(self._source.words):
            return []
        if name == "next" and not self._may_begin(h, self._elsewhere(h)):
            return []
        if name == "between":
            if not self._grammar.below[id(self._grammar.root)] - {mention.label for mention in h.done}:
                return []
            h = replace(h, cursor=0, label=None)
            if not self._may_begin(h, self._elsewhere(h)):
                return []
        return super()._literal(h, name)

    def _after_literal(self, h: Hypothesis) -> list[Hypothesis]:
        if h.literal == "next":
            return [replace(h, kind=ANY_WORD, first=-1, last=-1, begun=self.tokens)]
        return super()._after_literal(h)

    def _in_word(self, h: Hypothesis) -> list[Hypothesis]:
        elsewhere = self._elsewhere(h)
        if h.at < len(self._source.words[h.word]):
            return [h] if not elsewhere or self._may_end(h, h.first, h.word, elsewhere) else []
        made = super()._in_word(h)
        left = self._spent(h) + h.word + 1 - h.first < len(self._source.words)  # else there is no word to spend
        return [
            x for x in made if x.kind != WORD or (left and self._may_end(h, h.first, x.word, elsewhere))
        ]  # fmt: skip

    def _in_type(self, h: Hypothesis) -> list[Hypothesis]:
        assert h.node is not None
        closed = []
        if h.node.label is not None and h.node.label not in {mention.label for mention in h.done}:
            closed = self._close(replace(h, label=h.node.label), first=True)
        return [*closed, h] if self._open(h) else closed

    def _close(self, h: Hypothesis, *, first: bool) -> list[Hypothesis]:
        if first:
            return self._literal(h, "inner")
        assert h.label is not None
        if self._source.key(h.first, h.last) in self._elsewhere(h):
            return []
        whole = Mention(h.first, h.last, h.label, h.begun, self.tokens + 1)
        ended = replace(h, done=(*h.done, whole))
        return [x for name in ("next", "between", "closing") for x in self._literal(ended, name)]
