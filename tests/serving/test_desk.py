"""Which recognizer reads a domain."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdner.domain import Domain
from xdner.errors import BackboneNotFoundError, EndpointError, LibraryError, UnknownDomainError
from xdner.library import bundled
from xdner.library.store import Library
from xdner.recognizers.base import Request, Result
from xdner.recognizers.if_wraner import IFWRANER
from xdner.serving import desk as module
from xdner.serving.batcher import BusyError
from xdner.serving.desk import Desk
from xdner.serving.shelves import Known
from xdner.testing.endpoints import Said, answering, serving
from xdner.testing.examples import people, quick
from xdner.workflows import open_domain

TEXT = "Ann Lee saw Rome"


@pytest.fixture
def desk(library: Path) -> Iterator[Desk]:
    made = Desk(library)
    yield made
    made.close()


def read(desk: Desk, *names: str, text: str = TEXT) -> list[Result]:
    return [future.result(60) for future in desk.submit([Request(text, name) for name in names])]


def kept(desk: Desk) -> list[str]:
    """Domains with a recognizer of their own in memory, the last used last."""
    return list(desk._single)


def test_any_mix_of_domains_is_read_as_each_recognizer_alone_reads_it(desk: Desk, library: Path) -> None:
    names = ["towns", "people", "guests", "seas", "people", "villages"]
    found = read(desk, *names)
    assert [result.domain for result in found] == names
    assert kept(desk) == ["towns", "guests", "villages"]
    assert len(desk._shared) == 1  # for both prefixes
    for name, result in zip(names, found, strict=True):
        assert result == open_domain(name, library=library).predict(TEXT, domain=name)[0]
    assert any(result.entities for result in found)


def test_what_is_known(desk: Desk, library: Path) -> None:
    (library / "seas" / "domain.toml").write_text("damaged")
    own = [one for one in desk.known() if not one.shipped]
    assert own == [
        Known("guests", "if-wraner", ("person", "place"), False),
        Known("people", "cp-ner", ("person", "place"), False),
        Known("towns", "laner", ("city", "person"), False),
        Known("villages", "laner", ("city", "person"), False),
    ]
    shipped = [one.name for one in desk.known() if one.shipped]
    assert {"music", "ai", "news"} <= set(shipped)
    assert shipped == sorted(shipped)
    shutil.copytree(library / "towns", library / "music")  # goes before the shipped one, whose name it takes
    (library / "towns").rename(library / "hamlets")
    now = {one.name: one for one in desk.known()}
    assert "towns" not in now
    assert now["hamlets"].recognizer == "laner"
    assert not now["music"].shipped


def test_an_unknown_name_is_told_before_anything_is_read(desk: Desk) -> None:
    with pytest.raises(UnknownDomainError, match="no domain 'rivers'"):
        desk.submit([Request(TEXT, "people"), Request(TEXT, "rivers")])
    assert desk.waiting == 0


def test_a_domain_that_is_trained_again_is_read_anew(desk: Desk, library: Path) -> None:
    before = read(desk, "towns", "people")
    for name, other in (("towns", "villages"), ("people", "seas")):
        store = Library(library)
        entry = store.get(other)
        renamed = type(entry.domain)(name, entry.domain.labels, entry.domain.instruction)
        store.add(type(entry)(**{**vars(entry), "domain": renamed}))
    after = read(desk, "towns", "people")
    assert [one.domain for one in after] == [one.domain for one in before] == ["towns", "people"]
    for name, result in zip(("towns", "people"), after, strict=True):
        assert result == open_domain(name, library=library).predict(TEXT, domain=name)[0]
    assert kept(desk) == ["towns"]  # the former one is gone
    shutil.rmtree(library / "towns")
    with pytest.raises(UnknownDomainError):
        read(desk, "towns")


class Line:
    """Texts that wait for a place."""

    def __init__(self, *domains: str) -> None:
        self.left = [Request(TEXT, name) for name in domains]

    def peek(self) -> Request | None:
        return self.left[0] if self.left else None

    def take(self) -> None:
        del self.left[0]


def test_texts_join_a_batch_until_another_recognizers_turn_comes(desk: Desk) -> None:
    alone = {name: result for name in ("people", "seas", "towns") for result in read(desk, name)}
    requests = [Request(TEXT, name) for name in ("people", "towns")]
    line = Line("seas", "people", "towns", "people")
    found = dict(desk._read(requests, lambda count: None, line))
    assert {place: one.domain for place, one in found.items() if isinstance(one, Result)} == dict(
        enumerate(["people", "towns", "seas", "people"])
    )
    spans = [(e.start, e.end, e.label) for e in alone["seas"].entities]
    assert [(e.start, e.end, e.label) for e in found[2].entities] == spans
    assert [request.domain for request in line.left] == ["towns", "people"], (
        "who comes behind it does not keep it waiting"
    )


def test_a_removed_domain_ends_the_joining_and_not_the_batch(desk: Desk, library: Path) -> None:
    read(desk, "people", "seas")
    shutil.rmtree(library / "seas")
    with pytest.raises(UnknownDomainError):
        read(desk, "seas")
    line = Line("seas", "people")
    found = dict(desk._read([Request(TEXT, "people")], lambda count: None, line))
    assert list(found) == [0]
    assert len(line.left) == 2
    told = dict(desk._read(line.left, lambda count: None, Line()))
    assert isinstance(told[0], UnknownDomainError)
    assert isinstance(told[1], Result)


def test_only_some_taggers_stay_in_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 1)
    assert [r.domain for r in read(desk, "people", "towns", "villages")] == ["people", "towns", "villages"]
    assert kept(desk) == ["villages"]
    read(desk, "towns")
    assert kept(desk) == ["towns"]
    read(desk, "people")  # prefixes do not count
    assert kept(desk) == ["towns"]


def test_a_caller_who_is_turned_away_leaves_nothing_in_line(library: Path) -> None:
    desk = Desk(library, waiting=2)
    read(desk, "people", "towns")  # everything is loaded
    with pytest.raises(BusyError):
        desk.submit([Request(TEXT, "people"), *[Request(TEXT, "towns")] * 3])
    assert desk.waiting == 0
    assert [r.domain for r in read(desk, "people", "towns")] == ["people", "towns"]
    desk.close()
    with pytest.raises(BusyError, match="stopping"):
        read(desk, "people")


def test_a_backbone_that_is_not_there_is_told_to_its_callers_only(library: Path, tmp_path: Path) -> None:
    desk = Desk(library, backbone=tmp_path / "nowhere")
    tagged, steered = desk.submit([Request(TEXT, "towns"), Request(TEXT, "people")])
    assert tagged.result(60).domain == "towns"
    with pytest.raises(BackboneNotFoundError):
        steered.result(60)
    desk.close()


def test_an_endpoint_has_a_line_of_its_own_and_is_asked_again_when_its_domain_is_made_anew(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDNER_LLM_KEY", "none")
    silent = threading.Event()

    def reply(number: int, body: dict[str, object]) -> Said:
        return (
            Said(answering('{"entities": []}').body, until=silent) if number < 2 else Said({"error": "no"}, status=401)
        )

    with serving(reply) as endpoint:
        # Whoever reads the tagger meanwhile may take long, and the one request is not to be sent again.
        patient = quick("retrieval.method=bm25", "llm.timeout=600")
        far = IFWRANER.from_pretrained(endpoint.url, model="far", settings=patient)
        Library(library).add(far.add_domain(Domain.from_corpus("far", people(3)), people(3)))
        desk = Desk(library)
        waiting = desk.submit([Request(TEXT, "far")])[0]
        assert read(desk, "towns")[0].domain == "towns"  # nobody waits for what is far away
        assert not waiting.done()
        silent.set()
        assert waiting.result(60).domain == "far"
        outcomes = desk.submit([Request("Ann", "far"), Request("Bob", "far")])
        assert sorted(type(future.exception(60)).__name__ for future in outcomes) == ["EndpointError", "NoneType"]
        former = desk._routes["far"].batcher
        Library(library).add(far.add_domain(Domain.from_corpus("far", people(2)), people(2)))
        with pytest.raises(EndpointError):
            read(desk, "far")
        assert desk._routes["far"].batcher is not former
        desk.close()


def test_an_own_domain_goes_before_what_ships_whatever_the_rest_of_the_library_is_like(
    library: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ships = tmp_path / "package" / "tiny" / "domains"
    shutil.copytree(library, ships)
    shutil.rmtree(ships / "people")
    shutil.copytree(ships / "seas", ships / "people")  # another domain under the same name
    toml = ships / "people" / "domain.toml"
    toml.write_text(toml.read_text().replace('"seas"', '"people"'))
    monkeypatch.setattr(bundled, "DATA", tmp_path / "package")
    expected = open_domain("people", library=library).predict(TEXT, domain="people")[0]
    (library / "library.json").write_text("damaged")
    (library / ".initial").mkdir()
    (library / ".initial" / "prefix.json").write_text("damaged")
    desk = Desk(library)
    assert read(desk, "people")[0] == expected
    (library / "people").rename(library / ".people.aside")
    shipped = read(desk, "people")[0]
    assert shipped.domain == "people"
    (library / ".people.aside").rename(library / "people")
    assert read(desk, "people")[0] == expected
    desk.close()


def test_a_damaged_domain_is_not_the_callers_to_mend(desk: Desk, library: Path) -> None:
    (library / "people" / "domain.toml").write_text("damaged")
    with pytest.raises(LibraryError, match="domain 'people' cannot be read") as caught:
        read(desk, "people")
    assert not isinstance(caught.value, UnknownDomainError)
    assert read(desk, "seas")[0].domain == "seas"


def test_what_cannot_be_loaded_is_not_tried_again_at_once(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def fails(name: str, **options: object) -> None:
        tried.append(name)
        raise BackboneNotFoundError("no weights")

    monkeypatch.setattr(module, "open_domain", fails)
    monkeypatch.setattr(module, "AGAIN", 3600.0)  # however long the three take
    desk = Desk(library)
    for _ in range(3):
        with pytest.raises(BackboneNotFoundError):
            read(desk, "towns")
    assert tried == ["towns"]
    monkeypatch.setattr(module, "AGAIN", 0.0)
    with pytest.raises(BackboneNotFoundError):
        read(desk, "towns")
    assert tried == ["towns", "towns"]
    desk.close()
    assert desk.join(120)


def test_an_imported_domain_asks_only_an_endpoint_that_was_confirmed(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDNER_LLM_KEY", "none")
    with serving(lambda number, body: answering('{"entities": []}')) as endpoint:
        far = IFWRANER.from_pretrained(endpoint.url, model="far", settings=quick("retrieval.method=bm25"))
        Library(library).add(far.add_domain(Domain.from_corpus("far", people(3)), people(3)))
        other = Library(tmp_path / "other")
        other.import_(Library(library).export("far", tmp_path / "far.zip"))
        wary, trusting = Desk(other.folder), Desk(other.folder, endpoints=[endpoint.url])
        with pytest.raises(LibraryError, match="was imported, and sends texts to") as caught:
            read(wary, "far")
        assert f"--endpoint {endpoint.url}" in str(caught.value)
        assert not endpoint.requests
        assert read(trusting, "far")[0].domain == "far"
        threads = [trusting._routes["far"].batcher]
        shutil.rmtree(other.folder / "far")
        with pytest.raises(UnknownDomainError):
            read(trusting, "far")
        assert threads[0].join(120)  # nothing of it is left
        assert not trusting._routes
        for desk in (wary, trusting):
            desk.close()
