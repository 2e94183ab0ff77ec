"""What one arm did in one pass over a stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from benchmarks.timing.workload import Case

__all__ = ["Arm", "Items", "Pass"]

#: Sentences, each with the number of its domain.
Items = Sequence[tuple[Case, int]]


@dataclass
class Pass:
    """One pass.

    Attributes:
        seconds: in all.
        first: seconds until the first result was there to be used.
        calls: of the model; reading the prompts is one.
        row_steps: rows in those calls, summed.
        prompt_tokens: that were read, padding included.
        outputs: target ids of each sentence, the end included if it was written, in the order of the stream.
        ended: sentences whose end was written.
    """

    seconds: float
    first: float
    calls: int
    row_steps: int
    prompt_tokens: int
    outputs: list[tuple[int, ...]]
    ended: int

    @property
    def target_tokens(self) -> int:
        """Tokens that were written, ends included."""
        return sum(map(len, self.outputs))

    def counts(self) -> dict[str, float]:
        """What does not depend on the machine, per sentence, per row-step and per call."""
        n = len(self.outputs)
        return {
            "calls_per_sentence": self.calls / n,
            "row_steps_per_sentence": self.row_steps / n,
            "tokens_per_row_step": self.target_tokens / self.row_steps,
            "tokens_per_call": self.target_tokens / self.calls,
            "target_tokens_per_sentence": self.target_tokens / n,
            "prompt_tokens_per_sentence": self.prompt_tokens / n,
            "ended_share": self.ended / n,
        }


class Arm(Protocol):
    """A way to read a stream."""

    name: str

    def read(self, items: Items, batch: int) -> Pass:
        """Read all sentences, so many at a time; their domains have been prepared."""
        ...
