"""What would have no effect on a domain's training is refused, however it is asked for: an option, ``--set``, a file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import Result

from xdner.library.store import Library
from xdner.settings import Settings
from xdner.testing.commands import refused, run
from xdner.testing.places import FEW_STEPS, training


def train(name: str, library: Path, backbone: str, places: Path, *more: str) -> Result:
    made = run(*training(name, library, backbone, places, *FEW_STEPS, *more))
    assert made.exit_code == 0, made.stderr
    return made


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, backbone: str, places: Path) -> Path:
    """Its domains start from the instruction."""
    folder = tmp_path_factory.mktemp("library")
    for name in ("towns", "seas"):
        train(name, folder, backbone, places)
    return folder


def test_settings_of_other_jobs_are_refused_before_anything_is_loaded(places: Path, tmp_path: Path) -> None:
    args = training("towns", tmp_path, "nowhere", places)
    assert "training a domain makes no use of instruct.rank" in refused(*args, "--set", "rank=4")


CHOICE = [
    (["--alpha", "0.3"], "selector.alpha"),
    (["--without", "prefix-similarity"], "selector.alpha"),
    (["--without", "entity-similarity"], "selector.alpha"),
    (["--set", "selector.temperature=5"], "selector.temperature"),
    (["--set", "top_k=1"], "selector.top_k"),
    (["--set", "learn_alpha=true"], "transfer.learn_alpha"),
]
MIXTURE = [(["--without", "warm-up"], "transfer.warmup_share"), (["--set", "source_share=1"], "transfer.source_share")]
ONE, CHAIN = "training a domain with one source", "the strategy chain"
ENSEMBLE = "the strategy ensemble, whose members have one source each,"


@pytest.mark.parametrize(
    ("sources", "job", "mixes"),
    [
        ([], "training a domain without sources", False),
        (["--from", "towns"], ONE, True),
        (["--from", "towns", "--strategy", "single"], ONE, True),
        (["--from", "towns,seas", "--without", "seas"], ONE, True),
        (["--from", "towns,seas", "--strategy", "chain"], CHAIN, False),
        (["--from", "towns,seas", "--set", "transfer.strategy=chain"], CHAIN, False),
        (["--from", "towns,seas", "--strategy", "ensemble"], ENSEMBLE, True),
    ],
)
def test_where_nothing_chooses_among_sources_what_would_say_how_is_refused(
    library: Path, places: Path, tmp_path: Path, sources: list[str], job: str, mixes: bool
) -> None:
    base = training("rivers", library, "./no", places)  # there is no such backbone: nothing is loaded before
    for idle, key in (*CHOICE, *([] if mixes else MIXTURE)):
        assert f"{job} makes no use of {key}" in refused(*base, *sources, *idle), idle
    for idle, _ in MIXTURE if mixes else ():
        assert "there is no folder" in refused(*base, *sources, *idle), idle
    file = tmp_path / "s.toml"
    file.write_text("[selector]\nalpha = 0.3\n")
    told = refused(*base, *sources, "--config", str(file))
    assert f"{job} makes no use of selector.alpha, which {file} sets to 0.3 → Leave it out" in told
    file.write_text(Settings().to_toml())
    assert "there is no folder" in refused(*base, *sources, "--config", str(file), "--set", "epochs=2"), (
        "defaults are harmless"
    )
    if sources:
        assert "there is no folder" in refused(*base, "--from", "towns,seas", "--alpha", "0.3"), "two are chosen among"


def test_one_source_that_is_left_of_all_has_nothing_beside_it(tmp_path: Path, backbone: str, places: Path) -> None:
    train("towns", tmp_path, backbone, places)
    base = training("rivers", tmp_path, backbone, places, *FEW_STEPS)
    assert f"{ONE} makes no use of selector.alpha" in refused(*base, "--from", "all", "--alpha", "0.3")
    assert f"{ONE} makes no use of an α for towns" in refused(*base, "--from", "towns", "--alpha", "towns=0.1")
    assert "rivers" not in Library(tmp_path)


def test_another_start_than_the_librarys_is_refused(library: Path, tmp_path: Path, backbone: str, places: Path) -> None:
    init, strength = ["--set", "prefix.init=noise"], ["--set", "noise=0.5"]
    job = "training a domain from the library's own initial prefix makes no use of"
    args = training("rivers", library, backbone, places, *FEW_STEPS)
    told = refused(*args, *init, *strength)
    assert f"{job} prefix.init; {job} prefix.noise → Leave it out, or choose a new folder" in told
    assert "prefix.init=instruction makes no use of prefix.noise" in refused(*args, *strength)
    file = tmp_path / "s.toml"
    file.write_text('[prefix]\ninit = "noise"\n')
    assert f"{job} prefix.init, which {file} sets to 'noise'" in refused(*args, "--config", str(file))
    assert "rivers" not in Library(library)
    for asked in (["--set", "prefix.init=instruction"], ["--set", "hidden=7", "--set", "reparametrization=mlp"]):
        train("rivers", library, backbone, places, *asked)  # says what is anyway, or how to go on from there
    starts = {Library(library).get(name).prefix.initial for name in ("towns", "seas", "rivers")}
    assert len(starts) == 1
    Library(library).remove("rivers")


def test_one_command_trains_all_domains_of_a_library_and_a_domains_settings_are_a_config(
    tmp_path: Path, backbone: str, places: Path
) -> None:
    init, strength = ["--set", "prefix.init=noise"], ["--set", "noise=0.5"]
    for name in ("towns", "seas"):
        made = json.loads(train(name, tmp_path, backbone, places, *init, *strength, "--json").stdout)
        assert (made["settings"]["prefix"]["init"], made["settings"]["prefix"]["noise"]) == ("noise", 0.5)
    stored = tmp_path / "towns" / "settings.toml"
    again = run(*training("towns", tmp_path, backbone, places, "--config", str(stored), "--json"))
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["settings"] == made["settings"]
    args = training("rivers", tmp_path, backbone, places, *FEW_STEPS)
    assert "makes no use of prefix.noise" in refused(*args, *init, "--set", "noise=0.25")
    assert "the initial prefix has length 3" in refused(*args, *init, *strength, "--set", "length=4"), "by its own name"
    two = json.loads(
        train("rivers", tmp_path, backbone, places, "--from", "towns,seas", "--alpha", "0.3", "--json").stdout
    )
    stored = tmp_path / "rivers" / "settings.toml"
    again = run(
        *training("rivers", tmp_path, backbone, places, "--config", str(stored), "--from", "towns,seas", "--json")
    )
    assert json.loads(again.stdout)["settings"] == two["settings"]
