"""Thousands of domains, some of them in memory: the same results, bounded bytes, nothing read twice."""

from __future__ import annotations

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from xdner.backbone.base import Backbone
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.t5 import T5Backbone
from xdner.domain import Domain
from xdner.errors import DataError, LibraryError, UnknownDomainError
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
    streamed = dict(few.stream([r.text for r in requests], domain=[r.domain for r in requests]))
    assert told([streamed[i] for i in range(len(requests))]) == expected, "places go on from group to group"


def test_texts_join_as_long_as_there_is_memory_for_their_domains() -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    for entry in entries(recognizer):
        recognizer.add(entry)
    size = size_of(recognizer._steer(NAMES[0]))
    recognizer.residents = Residents(5 * size // 2)
    waiting = [Request("Rome", name) for name in (NAMES[1], NAMES[0], NAMES[2], NAMES[0])]

    class Line:
        def peek(self) -> Request | None:
            return waiting[0] if waiting else None

        def take(self) -> None:
            del waiting[0]

    found = dict(recognizer.stream("Ann in Rome", domain=NAMES[0], joining=Line()))
    assert [found[i].domain for i in range(len(found))] == [NAMES[0], NAMES[1], NAMES[0]]
    assert [request.domain for request in waiting] == [NAMES[2], NAMES[0]], (
        "a third domain waits until the others may leave"
    )
    assert recognizer.residents.bytes <= recognizer.residents.budget


def test_who_joins_reads_a_domain_as_it_is_by_then(library: Library) -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    before = told(recognizer.predict(["Ann in Rome"], domain=NAMES[0]))
    waiting = [Request("Ann in Rome", NAMES[0])] * 2

    class Line:
        def peek(self) -> Request | None:
            if len(waiting) == 1:  # trained again while the batch goes on
                library.add(replace(library.get(NAMES[0]), domain=Domain.from_labels(NAMES[0], ["fresh"])))  # type: ignore[arg-type, type-var]
            return waiting[0] if waiting else None

        def take(self) -> None:
            del waiting[0]

    found = dict(recognizer.stream("Ann in Rome", domain=NAMES[0], joining=Line()))
    fresh = CPNER(backbone_of("llama"), settings=SETTINGS)
    fresh.attach(library)
    after = told(fresh.predict(["Ann in Rome"], domain=NAMES[0]))
    assert before != after
    assert told([found[i] for i in range(3)]) == [*before, *before, *after]


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
    temporary = recognizer.residents._temporary
    assert temporary is not None
    folder = Path(temporary.name)
    del temporary
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


def test_a_library_is_not_listed_for_a_domain_that_was_named(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    monkeypatch.setattr(Library, "names", lambda self: pytest.fail("thousands of folders were looked at"))
    assert recognizer.predict("Ann in Rome", domain="domain7")
    assert list(recognizer.stream("Ann in Rome", domain="domain7"))


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


def test_a_domain_that_is_trained_again_is_read_anew(library: Library) -> None:
    """Types and predictions are of one and the same domain, in memory, in a file, and within one call."""
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    old, other = (recognizer.predict(TEXTS, domain=name) for name in NAMES[:2])
    for turn, budget in enumerate((10**9, 1)):
        recognizer.residents.budget = budget
        recognizer.predict(TEXTS[:2], domain=NAMES[2:4])  # with the small budget, the domain goes to its file
        domain = Domain.from_labels(NAMES[0], [f"fresh{turn}", "other"])
        library.add(replace(library.get(NAMES[1 + turn]), domain=domain))  # type: ignore[arg-type, type-var]
        made = recognizer.residents.made
        assert recognizer.labels(NAMES[0]) == domain.label_names
        new = recognizer.predict(TEXTS, domain=NAMES[0])
        assert {e.label for r in new for e in r.entities} <= set(domain.label_names)
        plain = CPNER(backbone_of("llama"), settings=SETTINGS)
        plain.add(library.get(NAMES[0]))  # type: ignore[arg-type]
        assert told(new) == told(plain.predict(TEXTS)) != told(old)
        assert recognizer.residents.made == made + 1
        assert told(recognizer.predict(TEXTS, domain=NAMES[0])) == told(new)
        assert told(recognizer.predict(TEXTS, domain=NAMES[1])) == told(other)
        assert recognizer.residents.made == made + 1, "nothing else was made again"


def test_one_call_reads_one_version_of_a_domain(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    steer = recognizer._steer

    def trained_meanwhile(name: str) -> Any:
        ready = steer(name)
        library.add(replace(library.get(NAMES[0]), domain=Domain.from_labels(NAMES[0], ["fresh"])))  # type: ignore[arg-type, type-var]
        return ready

    expected = told(recognizer.predict([TEXTS[0]] * 3, domain=NAMES[0]))
    monkeypatch.setattr(recognizer, "_steer", trained_meanwhile)
    assert told(recognizer.predict([TEXTS[0]] * 3, domain=NAMES[0])) == expected
    assert told(recognizer.predict([TEXTS[0]] * 3, domain=NAMES[0])) != expected


def test_a_mistake_in_the_last_text_is_told_before_the_first_is_read(library: Library) -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    recognizer.residents = Residents(1)
    counts: list[int] = []
    with pytest.raises(UnknownDomainError, match="there is no domain 'domian1' here"):
        recognizer.predict(["Ann in Rome"] * 4, domain=[*NAMES[:3], "domian1"], done=counts.append)
    with pytest.raises(DataError, match="not int"):
        recognizer.predict(["Ann in Rome", "x", 3], domain=NAMES[:3], done=counts.append)  # type: ignore[list-item]
    with pytest.raises(UnknownDomainError, match="there is no domain 'moon' here"):
        recognizer.stream(["Ann"], domain="moon")
    with pytest.raises(DataError, match="not int"):
        recognizer.stream([3], domain=NAMES[0])  # type: ignore[list-item]
    assert counts == []
    assert recognizer.residents.made == 0


def reading(few: Residents) -> tuple[CPNER, CPNER]:
    """Two recognizers of the same domains: one with everything in memory, one with these residents."""
    whole, bounded = (CPNER(backbone_of("llama"), settings=SETTINGS) for _ in range(2))
    for entry in entries(whole):
        whole.add(entry)
        bounded.add(entry)
    bounded.residents = few
    return whole, bounded


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_files_are_bounded_and_the_longest_unused_is_made_again(tmp_path: Path) -> None:
    few = Residents(1, folder=tmp_path / "scratch")
    whole, bounded = reading(few)
    expected = {name: told(whole.predict("Ann in Rome", domain=name)) for name in NAMES}

    def read(*numbers: int) -> tuple[int, int]:
        """How many of them were made, and were mapped."""
        made, mapped = few.made, few.mapped
        for number in numbers:
            assert told(bounded.predict("Ann in Rome", domain=NAMES[number])) == expected[NAMES[number]]
            assert few.stored == sum(path.stat().st_size for path in files_in(tmp_path))
            assert few.stored <= few.disk
        return few.made - made, few.mapped - mapped

    assert read(0, 1) == (2, 0)
    few.disk = 3.5 * few.stored  # three files
    assert read(2, 3) == (2, 0)
    assert set(few._stored) == {NAMES[i] for i in (0, 1, 2)}
    assert read(0) == (0, 1)
    assert set(few._stored) == {NAMES[i] for i in (2, 0, 3)}, "1 was unused for the longest time"
    assert read(4, 5) == (2, 0)
    assert set(few._stored) == {NAMES[i] for i in (3, 0, 4)}
    assert read(0, 4) == (0, 2)
    assert set(few._stored) == {NAMES[i] for i in (0, 4, 5)}, "0 was written before 3, and used after it"
    assert len(files_in(tmp_path)) == 3
    assert read(3, 1) == (2, 0)


def test_the_folder_and_the_bounds_are_those_that_were_asked_for(tmp_path: Path) -> None:
    settings = Settings.build(overrides=["length=3", "resident_mb=3", "resident_disk_mb=7"])
    recognizer = CPNER(backbone_of("llama"), settings=settings, resident_folder=tmp_path / "scratch")
    assert (recognizer.residents.budget, recognizer.residents.disk) == (3_000_000, 7_000_000)
    for entry in entries(recognizer)[:2]:
        recognizer.add(entry)
    recognizer.residents.budget = 1
    recognizer.predict(["Rome"] * 2, domain=NAMES[:2])
    assert len(files_in(tmp_path / "scratch")) == 1
    del recognizer
    assert list((tmp_path / "scratch").iterdir()) == [], "only what was made there goes"


def test_a_library_beyond_both_bounds_is_read_again(library: Library, tmp_path: Path) -> None:
    everything = CPNER(backbone_of("llama"), settings=SETTINGS)
    everything.attach(library)
    requests = [Request(text, name) for text in TEXTS[:2] for name in NAMES[:4]]
    expected = told(everything.recognize(requests))
    bounded = CPNER(backbone_of("llama"), settings=SETTINGS)
    bounded.attach(library)
    bounded.residents = Residents(1, disk=0)
    assert told(bounded.recognize(requests)) == expected
    assert (bounded.residents.made, bounded.residents.mapped) == (8, 0)


@pytest.mark.parametrize("trouble", ["no folder", "full disk"])
def test_a_disk_that_refuses_keeps_nobody_from_being_read(
    trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "scratch"
    few = Residents(1, folder=folder)
    whole, bounded = reading(few)
    expected = told(whole.predict(["Ann in Rome"] * 4, domain=NAMES[:4]))
    if trouble == "no folder":
        folder.write_text("a file stands here")
    else:

        def full(path: Path, data: bytes) -> int:
            with path.open("wb") as file:
                file.write(data[:100])
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "write_bytes", full)
    for _ in range(2):
        assert told(bounded.predict(["Ann in Rome"] * 4, domain=NAMES[:4])) == expected
    assert (few.made, few.mapped, few.stored) == (8, 0, 0)
    assert files_in(tmp_path) == ([folder] if trouble == "no folder" else []), "nothing half-written stays"
    monkeypatch.undo()
    folder.unlink() if folder.is_file() else None
    bounded.predict(["Ann in Rome"] * 2, domain=NAMES[:2])
    assert few.stored > 0, "room again is used again"


def test_a_file_that_somebody_removed_is_made_again(tmp_path: Path) -> None:
    few = Residents(1, folder=tmp_path)
    whole, bounded = reading(few)
    expected = told(whole.predict(["Ann in Rome"] * 3, domain=NAMES[:3]))
    bounded.predict(["Ann in Rome"] * 3, domain=NAMES[:3])
    first, second = sorted(files_in(tmp_path))
    first.unlink()
    second.write_bytes(b"half")
    assert told(bounded.predict(["Ann in Rome"] * 2, domain=NAMES[:2])) == expected[:2]
    assert (few.made, few.mapped) == (5, 0)
    assert few.stored == sum(path.stat().st_size for path in files_in(tmp_path))


def test_a_folder_that_somebody_tidied_away_is_made_again(tmp_path: Path) -> None:
    few = Residents(1, folder=tmp_path / "scratch")
    whole, bounded = reading(few)
    expected = told(whole.predict(["Ann in Rome"] * 3, domain=NAMES[:3]))
    bounded.predict(["Ann in Rome"] * 3, domain=NAMES[:3])
    shutil.rmtree(tmp_path / "scratch")
    for _ in range(2):
        assert told(bounded.predict(["Ann in Rome"] * 3, domain=NAMES[:3])) == expected
    assert few.mapped > 0, "there are files again"


def test_threads_count_a_domain_once(library: Library) -> None:
    recognizer = CPNER(backbone_of("llama"), settings=SETTINGS)
    recognizer.attach(library)
    expected = told(recognizer.predict(["Ann in Rome"] * 3, domain=NAMES[:3]))
    residents = recognizer.residents
    with ThreadPoolExecutor(4) as threads:
        for _ in range(3):
            for name in NAMES[:3]:
                residents.drop(name)
            read = [threads.submit(recognizer.predict, ["Ann in Rome"] * 3, domain=NAMES[:3]) for _ in range(4)]
            assert all(told(one.result()) == expected for one in read)
            assert residents.bytes == sum(map(size_of, residents._kept.values()))
    assert (len(residents), residents.made) == (3, 12)
