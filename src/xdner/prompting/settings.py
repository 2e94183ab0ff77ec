"""Settings of IF-WRANER: ``prompt``, ``llm`` and ``tune`` are its own groups, ``retrieval`` is that of an index, the others those
of the house."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from xdner.groups import Amount, Count, GroupedSettings, Positive, Rate, Share, Use, Within
from xdner.retrieval.settings import RetrievalSettings
from xdner.settings import CHOICE, LOOP, WINDOWS, DecodingSettings, TrainingSettings

__all__ = ["LlmSettings", "PromptSettings", "TuneSettings", "WranerSettings"]


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """What is asked.

    Attributes:
        template: one that ships, by ``name`` or ``name-version``, or a file named ``.toml``.
        order: of the demonstrations: the best next to the query, or first.
        max_tokens: of prompt and answer together, at most; 0 is what the model was made for. An endpoint's tokenizer is not
            known: there a token is taken for three bytes.
    """

    template: str = "dictionary"
    order: Literal["best-last", "best-first"] = "best-last"
    max_tokens: int = 0

    def problems(self) -> Iterable[str]:
        if self.max_tokens and self.max_tokens < 64:
            yield f"prompt.max_tokens must be 0 or at least 64, not {self.max_tokens}"
        if not self.template.strip():
            yield "prompt.template must name a template"


@dataclass(frozen=True, slots=True)
class LlmSettings:
    """A model behind an OpenAI-compatible endpoint.

    Attributes:
        timeout: seconds for one request as a whole.
        retries: further tries after a failure that may pass (429, 5xx, a timeout, a broken connection).
        backoff: seconds before the first of them; each next one waits twice as long. ``Retry-After`` goes before.
        longest_wait: seconds between two tries, at most; a server that asks for more is given up.
        concurrency: requests at a time.
        answer_tokens: of an answer, at most.
        token_limit: what the endpoint calls that bound.
        send_temperature: ask for temperature 0. A server that refuses one of these two is asked without from then on; to say so
            here saves the request that it refuses.
        key_variable: the environment variable with the API key, in capitals unless it is set. The key itself is stored nowhere.
    """

    timeout: Rate = 60.0
    retries: Count = 4
    backoff: Amount = 1.0
    longest_wait: Amount = 60.0
    concurrency: Positive = 4
    answer_tokens: Positive = 512
    token_limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    send_temperature: bool = True
    key_variable: str = "XDNER_LLM_KEY"

    def problems(self) -> Iterable[str]:
        # Somebody may put the key itself here; it must not come back in a message.
        name = self.key_variable
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or (name != name.upper() and name not in os.environ):
            yield "llm.key_variable must be the name of an environment variable, in capitals or set (not the key itself)"


@dataclass(frozen=True, slots=True)
class TuneSettings:
    """Instruction tuning on source domains.

    Attributes:
        rank, alpha, lora_dropout: of the LoRA factors, on all linear layers.
        per_source: at most so many sentences of each source are learned, a seeded sample (0 = all); the examples that are
            shown come from all of them.
        duplicate: share of the sentences that are learned a second time, with types removed.
        remove: probability that such a duplicate leaves a type out, from the options and from all answers.
        shuffle: share of the prompts whose types stand in a drawn order.
    """

    rank: Positive = 16
    alpha: Positive = 32
    lora_dropout: Annotated[float, Within(0, 1, below=True)] = 0.0
    per_source: Count = 400
    duplicate: Share = 0.3
    remove: Share = 0.3
    shuffle: Share = 0.5


@dataclass(frozen=True, slots=True)
class WranerSettings(GroupedSettings):
    """All groups of IF-WRANER. Of ``training``, what speaks of prefixes, options or other mentions is refused."""

    USE: ClassVar[Use] = Use("IF-WRANER", {
        "training": LOOP | CHOICE | {"likelihood", "backbone_dropout", "max_pieces"}, "decoding": WINDOWS,
    })  # fmt: skip

    # LoRA's rate (docs/LOG.md, instruction tuning). Two prompts with demonstrations fill a processor; more only take memory.
    DEFAULTS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "training": {
            "learning_rate": 5e-4, "epochs": 2, "batch_size": 2, "accumulation": 4, "patience": 0, "evaluate_from": 1,
            "evaluate_every": 1, "max_pieces": 1024,
        },
        "decoding": {"batch_size": 8},
    }  # fmt: skip

    prompt: PromptSettings = field(default_factory=PromptSettings)
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    llm: LlmSettings = field(default_factory=LlmSettings)
    tune: TuneSettings = field(default_factory=TuneSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    decoding: DecodingSettings = field(default_factory=DecodingSettings)
