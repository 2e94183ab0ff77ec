"""Thousands of domains, some of them in memory: the same results, bounded bytes, nothing read twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.t5 import T5Backbone
from xdner.domain import Domain
from xdner.errors import LibraryError, UnknownDomainError
from xdner.library.entry import DomainEntry
from xdner.library.store import Library
from xdner.recognizers.base import Request, Result
from xdner.recognizers.cp_ner import CPNER
from xdner.recognizers.residents import Residents, size_of
from xdner.settings import Settings
from xdner.testing.models import tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer

SETTINGS = Settings.build(overrides=["length=3"])
NAMES = [f"domain{i}" for i in range(12)]
TEXTS = ["Ann in Rome", "no one", "Rome, the city"]


def backbone_of(kind: str, seed: int = 0) -> Backbone:
    if kind == "t5":
        return T5Backbone(tiny_t5("t5", seed=seed), t5_like_tokenizer(), name="tiny")
    return CausalBackbone(tiny_causal(kind, seed=seed), byte_level_tokenizer(), name="tiny")


def entries(recognizer: CPNER) -> list[DomainEntry]:
    """Domains with types and prefixes of their own."""
    start = recognizer.initial_prefix(SETTINGS.prefix)
    made = []
    for seed, name in enumerate(NAMES):
        generator = torch.Generator().manual_seed(seed)
        keys = tuple(k + torch.randn(k.shape, generator=generator) for k in start.keys)
        prefix = replace(start, keys=keys, initial=start.hash()).rounded()
        made.append(DomainEntry(Domain.from_labels(name, ["place", f"kind{seed}"]), prefix, SETTINGS))
    return made


def told(results: list[Result]) -> list[dict[str, Any]]:
    """Scores to four digits: sums in another batch differ in the last bits."""
    return [r.to_dict() for r in results]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    store = Library(tmp_path / "library")
    for entry in entries(CPNER(backbone_of("llama"), settings=SETTINGS)):
        store.add(entry)
    return store


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_few_in_memory_read_the_same_as_all(kind: str) -> None:
    everything = CPNER(backbone_of(kind), settings=SETTINGS)
    for entry in entries(everything):
        everything.add(entry)
    requests = [Request(text, name) for text in TEXTS for name in NAMES]
    expected = told(everything.recognize(requests))
    assert everything.residents.made == len(NAMES)
    assert everything.residents.mapped == 0

    few = CPNER(backbone_of(kind), settings=SETTINGS)
    for entry in entries(few):
        few.add(entry)
    size = size_of(everything._steer(NAMES[0]))
    few.residents = Residents(7 * size // 2)  # sizes differ a little
    seen: list[int] = []
    assert told(few.recognize(requests, done=seen.append)) == expected
    assert seen == sorted(seen)
    assert seen[-1] == len(requests)
    assert few.residents.bytes <= few.residents.budget
    assert few.residents.made == len(NAMES), "no context is read twice"
    assert few.residents.mapped == 2 * len(NAMES), "round robin is the worst order: each comes back from its file"
    assert told(few.recognize(requests[-3:])) == expected[-3:]
    assert few.residents.mapped == 2 * len(NAMES), "the last three are in memory"


def test_one_that_is_larger_than_the_budget_is_read_all_the_same() -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    for entry in entries(recognizer)[:2]:
        recognizer.add(entry)
    expected = told(recognizer.predict(["Ann in Rome"] * 2, domain=NAMES[:2]))
    recognizer.residents = Residents(1)
    assert told(recognizer.predict(["Ann in Rome"] * 2, domain=NAMES[:2])) == expected


def test_the_files_go_with_the_recognizer_and_with_the_domain() -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    for entry in entries(recognizer):
        recognizer.add(entry)
    recognizer.residents = Residents(1)
    recognizer.predict(["Rome"] * 3, domain=NAMES[:3])
    folder = recognizer.residents._folder
    assert folder is not None
    assert len(list(folder.iterdir())) == 2
    recognizer.add(entries(recognizer)[0])
    assert len(list(folder.iterdir())) == 1, "a domain that is replaced is not read from its old file"
    del recognizer
    assert not folder.exists()


def test_a_library_is_attached_without_being_read(library: Library) -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    assert recognizer.domains == tuple(sorted(NAMES))
    assert recognizer.residents.made == 0
    (result,) = recognizer.predict("Ann in Rome", domain="domain7")
    added = CPNER(backbone_of("llama"), settings=SETTINGS)
    added.add(library.get("domain7"))
    assert result == added.predict("Ann in Rome")[0]
    assert recognizer.residents.made == 1
    assert recognizer.labels("domain7") == ("place", "kind7")
    with pytest.raises(UnknownDomainError, match="there is no domain 'moon' here"):
        recognizer.predict("Ann in Rome", domain="moon")


def test_a_domain_that_was_added_goes_before_the_librarys(library: Library) -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    recognizer.add_untrained(Domain.from_labels("domain7", ["sea"]))
    assert recognizer.labels("domain7") == ("sea",)
    assert recognizer.domains.count("domain7") == 1


def test_a_library_for_another_backbone_is_refused(library: Library) -> None:
    with pytest.raises(LibraryError):
        CPNER(backbone_of("llama", seed=1), settings=SETTINGS).attach(library)


def test_a_domain_that_was_removed_stays_readable_once_it_is_ready(library: Library) -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    (before,) = recognizer.predict("Ann in Rome", domain="domain7")
    shutil.rmtree(library.path("domain7"))
    assert recognizer.predict("Ann in Rome", domain="domain7") == [before]
    with pytest.raises(UnknownDomainError):
        recognizer.predict("Ann in Rome", domain="domain8x")
