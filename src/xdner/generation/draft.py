"""Guesses of what a row writes next, so that one model call can decide several tokens.

A *draft* is a path through the grammar: tokens that the model has not chosen yet, fed together with those it has. The call
gives a state at every fork of the path; the engine takes the model's own choice there, keeps the path as far as it was
right, and takes the rest back. What is written is what greedy decoding writes, whatever the guesses were.

Guessed is what the text itself tells: a mention goes on as long as the next word looks like part of a name, then closes;
the next one begins where the next such word stands. Which type it has, and whether there is another, is left to the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdner.codec.grammar import GrammarState

__all__ = ["Decision", "draft", "looks_like_name"]


@dataclass(frozen=True, slots=True)
class Decision:
    """A choice on a row's path.

    Attributes:
        place: index of the fed token whose state decides.
        legal: the tokens to choose from.
        guess: the one that the path goes on with; ``None`` where the path ends.
    """

    place: int
    legal: tuple[int, ...]
    guess: int | None = None


def looks_like_name(word: str) -> bool:
    """Whether a word has a capital letter, as names have (in scripts that know capitals)."""
    return word != word.lower()


def draft(state: GrammarState, names: Sequence[bool], fed: int, room: int) -> tuple[list[int], list[Decision]]:
    """Follow the likely way until the model has to choose.

    Args:
        state: after the chosen and forced tokens; not changed.
        names: of each word, whether it looks like part of a name; words beyond the end do not.
        fed: tokens that are fed before the draft's first.
        room: tokens that the draft may have at most.

    Returns:
        The draft's tokens; and the decisions on the way, one more than there are guesses unless the draft reaches the
        end of the target.
    """
    tokens: list[int] = []
    decisions: list[Decision] = []
    while True:
        legal = state.legal()
        last = fed + len(tokens) - 1
        guess = _guess(state, names)
        if guess is None:
            return tokens, [*decisions, Decision(last, legal)]
        ahead = state.copy()
        ahead.advance(guess)
        run = [guess, *ahead.forced()]
        if len(tokens) + len(run) > room:
            return tokens, [*decisions, Decision(last, legal)]
        for token in run[1:]:
            ahead.advance(token)
        tokens += run
        decisions.append(Decision(last, legal, guess))
        if ahead.done:
            return tokens, decisions
        state = ahead


def _guess(state: GrammarState, names: Sequence[bool]) -> int | None:
    """The likely next token; ``None`` where the text does not tell."""
    fork = state.fork()
    if fork is None:
        return state.beginning(names)
    return fork.onward if fork.word < len(names) and names[fork.word] else fork.close
