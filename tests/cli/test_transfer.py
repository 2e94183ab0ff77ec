"""Training with known domains' help, and asking the selector, on a tiny random backbone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import Result

from xdner.library.entry import DomainEntry
from xdner.library.store import Library
from xdner.testing.commands import refused, run
from xdner.testing.models import save_tiny_backbone
from xdner.testing.places import FEW_STEPS, training

QUICK = [*FEW_STEPS, "--set", "evaluate_from=1"]


def train(name: str, library: Path, backbone: str, places: Path, *more: str) -> Result:
    return run(*training(name, library, backbone, places, *QUICK, *more))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, backbone: str, places: Path) -> Path:
    folder = tmp_path_factory.mktemp("library")
    for name in ("towns", "seas", "stars"):
        result = train(name, folder, backbone, places)
        assert result.exit_code == 0, result.stderr
    return folder


def test_a_domain_is_trained_with_the_help_of_others(library: Path, backbone: str, places: Path) -> None:
    result = train("rivers", library, backbone, places, "--from", "towns,seas", "--alpha", "seas=0.9", "--json")
    assert result.exit_code == 0, result.stderr
    made = json.loads(result.stdout)
    assert [s["name"] for s in made["selection"]["sources"]] == ["towns", "seas"]
    assert [s["alpha"] for s in made["selection"]["sources"]] == [0.5, 0.9]
    assert made["settings"]["transfer"]["strategy"] == "collaborative"
    entry = Library(library).get("rivers")
    assert entry.prefix.notes["transfer"]["strategy"] == "collaborative"
    start = Library(library).initial_prefix()
    assert start is not None
    assert {Library(library).get(n).prefix.initial for n in Library(library)} == {start.hash()}
    shown = run("predict", "the Elbe", "--domain", "rivers", "--library", str(library))
    assert shown.exit_code == 0, shown.stderr


def test_all_known_domains_may_help_and_a_damaged_one_is_named_and_left_out(
    tmp_path: Path, backbone: str, places: Path
) -> None:
    for name in ("towns", "seas", "stars"):
        assert train(name, tmp_path, backbone, places).exit_code == 0
    (tmp_path / "stars" / "prefix.safetensors").write_bytes(b"broken")
    result = train("rivers", tmp_path, backbone, places, "--from", "all")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert "stars is damaged and was left out" in said
    assert "sources for rivers" in result.stdout
    assert [s["name"] for s in Library(tmp_path).get("rivers").prefix.notes["transfer"]["sources"]] == ["seas", "towns"]
    named = " ".join(train("rivers", tmp_path, backbone, places, "--from", "stars").stderr.split())
    assert "truncated or was altered" in named


@pytest.mark.parametrize(("strategy", "phases"), [("single", 1), ("chain", 2), ("ensemble", 2)])
def test_every_strategy_has_a_name(
    library: Path, backbone: str, places: Path, tmp_path: Path, strategy: str, phases: int
) -> None:
    sources = "towns" if strategy == "single" else "towns,seas"
    more = ["--source-data", f"seas={places / 'seas.txt'}"] if strategy == "chain" else []
    result = train("rivers", library, backbone, places, "--from", sources, "--strategy", strategy, *more, "--json")
    assert result.exit_code == 0, result.stderr
    entry = Library(library).get("rivers")
    assert entry.prefix.notes["transfer"]["strategy"] == strategy
    assert len(entry.prefixes) == (2 if strategy == "ensemble" else 1)
    assert len(entry.prefix.notes["transfer"]["sources"]) == phases


@pytest.mark.parametrize(
    ("what", "group", "key", "value"),
    [
        ("entity-similarity", "selector", "alpha", 0.0),
        ("prefix-similarity", "selector", "alpha", 1.0),
        ("warm-up", "transfer", "warmup_share", 0.0),
        ("options", "codec", "options", False),
    ],
)
def test_parts_can_be_left_out(
    library: Path, backbone: str, places: Path, what: str, group: str, key: str, value: object
) -> None:
    result = train("rivers", library, backbone, places, "--from", "towns,seas", "--without", what, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["settings"][group][key] == value


def test_one_source_can_be_left_out_of_all(tmp_path: Path, backbone: str, places: Path) -> None:
    for name in ("towns", "seas", "stars"):
        assert train(name, tmp_path, backbone, places).exit_code == 0
    result = train("rivers", tmp_path, backbone, places, "--from", "all", "--without", "seas", "--json")
    assert result.exit_code == 0, result.stderr
    assert [s["name"] for s in json.loads(result.stdout)["selection"]["sources"]] == ["stars", "towns"]


def test_a_type_that_no_sentence_has_is_told(tmp_path: Path, backbone: str, places: Path) -> None:
    described = tmp_path / "rivers.toml"
    described.write_text(
        'name = "rivers"\n\n[[labels]]\nname = "river"\n\n[[labels]]\nname = "city"\n\n[[labels]]\nname = "volcano"\n'
    )
    result = train("rivers", tmp_path / "lib", backbone, places, "--domain-file", str(described))
    assert result.exit_code == 0, result.stderr
    assert "no training sentence has the type volcano" in " ".join(result.stderr.split())


def test_a_source_with_another_target_form_is_told(library: Path, backbone: str, places: Path) -> None:
    result = train("rivers", library, backbone, places, "--from", "towns", "--without", "options")
    assert result.exit_code == 0, result.stderr
    assert "towns was trained with codec.options=True (here False)" in " ".join(result.stderr.split())


def test_a_chain_in_a_circle_is_refused(tmp_path: Path, backbone: str, places: Path) -> None:
    for name in ("towns", "seas"):
        assert train(name, tmp_path, backbone, places).exit_code == 0
    first = train("rivers", tmp_path, backbone, places, "--from", "seas", "--strategy", "single")
    assert first.exit_code == 0, first.stderr
    second = train("stars", tmp_path, backbone, places, "--from", "rivers", "--strategy", "single")
    assert second.exit_code == 0, second.stderr
    assert Library(tmp_path).get("stars").ancestors == {"rivers", "seas"}
    args = ["--train", str(places / "seas.txt"), "--backbone", backbone, "--library", str(tmp_path), *QUICK]
    message = refused("train", "seas", *args, "--from", "stars", "--strategy", "chain")
    assert "a chain in a circle: stars learned from 'seas'" in message


def test_what_is_imported_can_be_combined_with_what_is_trained(
    tmp_path: Path, library: Path, backbone: str, places: Path
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "towns.xdner"
    made = run(
        "domains",
        "initial",
        "--backbone",
        backbone,
        "--library",
        str(old),
        *FEW_STEPS,
        "--source",
        str(places / "seas.txt"),
    )
    assert made.exit_code == 0, made.stderr
    assert train("towns", old, backbone, places).exit_code == 0
    assert run("domains", "export", "towns", "--library", str(old), "--out", str(file)).exit_code == 0
    assert run("domains", "import", str(file), "--library", str(new)).exit_code == 0
    result = train("rivers", new, backbone, places, "--from", "towns")
    assert result.exit_code == 0, result.stderr
    assert Library(new).get("rivers").prefix.initial == Library(old).get("towns").prefix.initial
    # A library that knows only the hash of its start trains nothing that could not be combined.
    shutil.rmtree(new / ".initial")
    message = refused(
        "train", "seas", "--train", str(places / "seas.txt"), "--backbone", backbone, "--library", str(new), *QUICK
    )
    assert "started from an initial prefix that is not there" in message


@pytest.mark.parametrize("weighting", ["softmax", "sum"])
def test_the_table_says_how_weights_were_made(library: Path, tmp_path: Path, weighting: str) -> None:
    args = [
        "--from",
        "seas,stars",
        "--library",
        str(library),
        "--out",
        str(tmp_path),
        "--set",
        f"weighting={weighting}",
    ]
    result = run("select", "towns", *args)
    assert result.exit_code == 0, result.stderr
    assert ("weight (Eq. 8)" in result.stdout) == (weighting == "softmax")
    assert ("temperature" in result.stdout) == (weighting == "softmax")
    assert json.loads((tmp_path / "select-towns.json").read_text())[0]["weighting"] == weighting


def test_the_selector_prints_its_parts_and_writes_numbers_and_a_heat_map(library: Path, tmp_path: Path) -> None:
    result = run("select", "towns", "seas", "--from", "all", "--library", str(library), "--out", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "sources for towns" in result.stdout
    assert "effective number of sources" in result.stdout
    assert "= city" in result.stdout, "the same words are marked"
    numbers = json.loads((tmp_path / "select-towns-seas.json").read_text())
    assert [c["target"] for c in numbers] == ["towns", "seas"]
    names = {s["name"] for s in numbers[0]["sources"]}
    assert {"seas", "stars"} <= names
    assert "towns" not in names
    assert sum(s["weight"] for s in numbers[0]["sources"]) == pytest.approx(1.0, abs=1e-4)
    assert (tmp_path / "select-towns-seas.png").read_bytes().startswith(b"\x89PNG")
    as_json = run("select", "towns", "--from", "seas", "--library", str(library), "--out", str(tmp_path), "--json")
    assert json.loads(as_json.stdout)[0]["sources"][0]["weight"] == 1.0


def test_mistakes_get_one_clear_error(library: Path, backbone: str, places: Path, tmp_path: Path) -> None:
    base = ["train", "rivers", "--train", str(places / "rivers.txt"), "--backbone", backbone, "--library", str(library)]
    base += QUICK
    assert "no domain 'moon'" in refused(*base, "--from", "moon")
    assert "takes exactly one source, not 2" in refused(*base, "--from", "towns,seas", "--strategy", "single")
    assert "transfer.strategy must be one of" in refused(*base, "--from", "towns", "--strategy", "magic")
    assert "selector.alpha must be from 0 to 1, not 1.5" in refused(*base, "--from", "towns", "--alpha", "1.5")
    assert "α must be from 0 to 1" in refused(*base, "--from", "towns", "--alpha", "towns=-1")
    assert "'half' is no number" in refused(*base, "--from", "towns", "--alpha", "half")
    assert "α for 'stars', which is no source" in refused(*base, "--from", "towns", "--alpha", "stars=0.5")
    assert "nothing is called 'luck'" in refused(*base, "--from", "towns", "--without", "luck")
    assert "there are none for seas" in refused(*base, "--from", "towns,seas", "--strategy", "chain")
    assert "towns is given twice" in refused(*base, "--from", "towns,towns", "--strategy", "chain")
    assert "not of the form NAME=FILE" in refused(*base, "--from", "towns,seas", "--source-data", "seas")
    assert "needs sources" in refused(*base, "--strategy", "collaborative")
    assert "strategy 'none' uses no sources" in refused(*base, "--from", "towns", "--strategy", "none")
    two = ["--from", "towns,seas"]
    assert "α is 1" in refused(*base, *two, "--without", "warm-up", "--alpha", "0.3")
    assert "α is 1" in refused(*base, *two, "--set", "epochs=1", "--alpha", "0.3")
    assert "--without leaves no source" in refused(*base, "--from", "towns", "--without", "towns")
    assert "α for 'towns', which is no source" in refused(*base, "--alpha", "towns=0.5")
    data = f"stars={places / 'stars.txt'}"
    assert "--source-data for 'stars', which is no source" in refused(*base, "--from", "towns", "--source-data", data)
    data = f"seas={places / 'seas.txt'}"
    assert "strategy 'collaborative' trains on no source's" in refused(
        *base, "--from", "towns,seas", "--source-data", data
    )
    begun = ["--strategy", "chain", "--source-data", data]
    assert "whose prefix a chain begins with" in refused(*base, "--from", "seas,towns", *begun)
    both = ["--without", "entity-similarity", "--without", "prefix-similarity"]
    assert "cannot be left out together" in refused(*base, "--from", "towns,seas", *both)
    twice = ["--without", "entity-similarity", "--alpha", "0.7"]
    assert "--alpha gives another" in refused(*base, "--from", "towns,seas", *twice)
    assert "--alpha is given twice" in refused(*base, *two, "--alpha", "0.2", "--alpha", "0.3")
    assert "--alpha is given twice for 'seas'" in refused(*base, *two, "--alpha", "seas=0.2", "--alpha", "seas=0.2")
    assert "--from names no domain" in refused(*base, "--from", " , ")
    other = ["--strategy", "chain", "--set", "transfer.strategy=ensemble"]
    assert "another option asks for (transfer.strategy=chain)" in refused(*base, *two, *other)
    assert "another option asks for (transfer.warmup_share=0.0)" in refused(
        *base, *two, "--without", "warm-up", "--set", "warmup_share=0.5"
    )
    alone = ["--from", "all", "--library", str(tmp_path / "new")]
    assert "no domain is known that rivers could draw on" in refused(*base, *alone)
    chosen = ["select", "towns", "--from", "seas", "--library", str(library), "--out", str(tmp_path)]
    assert "α for 'stars', which is no source" in refused(*chosen, "--alpha", "stars=0.5")
    both = [*chosen[:3], "seas,towns", *chosen[4:]]
    assert "α for 'towns', which is no source" in refused(*both, "--alpha", "towns=0.5"), "it is the target"
    assert "choosing among sources makes no use of training.epochs" in refused(*chosen, "--set", "epochs=3")
    assert "makes no use of decoding.window" in refused(*chosen, "--set", "window=7")
    assert "weighting=loss" in refused(*chosen, "--set", "weighting=loss")
    assert "seas is given twice" in refused(*chosen[:3], "seas,seas,stars", *chosen[4:])
    longer = [*base, "--from", "towns", "--set", "length=5"]
    assert "the initial prefix has length 3" in refused(*longer)
    assert "there is no source" in refused("select", "towns", "--from", "towns", "--library", str(library))


def test_a_target_without_sentences_or_types_is_refused(library: Path, backbone: str, tmp_path: Path) -> None:
    empty, bare = tmp_path / "empty.txt", tmp_path / "bare.txt"
    empty.write_text("")
    bare.write_text("no\tO\none\tO\n")
    for path in (empty, bare):
        args = ["--train", str(path), "--backbone", backbone, "--library", str(library), "--from", "towns"]
        problem = "the file is empty" if path == empty else "has no entities"
        assert problem in refused("train", "nothing", *args, *QUICK)
    assert "nothing" not in Library(library)


def test_a_source_of_another_backbone_or_start_is_refused(
    library: Path, places: Path, tmp_path: Path, backbone: str
) -> None:
    from dataclasses import replace

    entry = Library(library).get("towns")
    stranger = replace(entry, domain=replace_name(entry, "stranger"), prefix=replace(entry.prefix, initial="sha256:x"))
    stranger.save(library / "stranger")
    message = refused(
        "train", "rivers", "--train", str(places / "rivers.txt"), "--backbone", backbone, "--library", str(library),
        *QUICK, "--from", "stranger",
    )  # fmt: skip
    assert "'stranger' started from another initial prefix" in message
    foreign = replace(stranger, prefix=replace(entry.prefix, backbone="sha256:y"))
    foreign.save(library / "stranger")
    message = refused(
        "train", "rivers", "--train", str(places / "rivers.txt"), "--backbone", backbone, "--library", str(library),
        *QUICK, "--from", "stranger",
    )  # fmt: skip
    assert "fingerprint" in message
    Library(library).remove("stranger")


def replace_name(entry: DomainEntry, name: str) -> object:
    from xdner.domain import Domain

    return Domain(name, entry.domain.labels, entry.domain.instruction)


def test_a_library_can_start_from_a_prefix_trained_on_sources(tmp_path: Path, backbone: str, places: Path) -> None:
    args = ["domains", "initial", "--backbone", backbone, "--library", str(tmp_path / "lib"), *FEW_STEPS]
    nested = tmp_path / "seas.jsonl"
    nested.write_text('{"text": "the Baltic sea", "spans": [[4, 10, "sea"], [4, 14, "sea"]]}\n')
    result = run(*args, "--source", str(places / "towns.txt"), "--source", str(nested))
    assert result.exit_code == 0, result.stderr
    assert "shared start of towns, seas trained" in result.stderr
    assert "nested or overlapping spans (the longest was kept) (1)" in " ".join(result.stderr.split())
    start = Library(tmp_path / "lib").initial_prefix()
    assert start is not None
    assert [s["domain"] for s in start.notes["sources"]] == ["towns", "seas"]
    assert train("rivers", tmp_path / "lib", backbone, places).exit_code == 0
    assert Library(tmp_path / "lib").get("rivers").prefix.initial == start.hash()
    again = refused(*args, "--source", str(places / "stars.txt"))
    assert "has an initial prefix or domains already" in again
    args = [
        "domains",
        "initial",
        "--backbone",
        backbone,
        "--library",
        str(tmp_path / "new"),
        "--source",
        str(places / "towns.txt"),
    ]
    assert "training an initial prefix makes no use of training.patience" in refused(*args, "--set", "patience=2")


def test_a_source_that_is_named_is_not_left_out_beside_all(
    tmp_path: Path, library: Path, backbone: str, places: Path
) -> None:
    other = save_tiny_backbone(tmp_path / "other", seed=5)
    shutil.copytree(library, tmp_path / "lib")
    assert train("stars", tmp_path / "elsewhere", str(other), places).exit_code == 0
    shutil.rmtree(tmp_path / "lib" / "stars")
    shutil.copytree(tmp_path / "elsewhere" / "stars", tmp_path / "lib" / "stars")
    assert train("rivers", tmp_path / "lib", backbone, places, "--from", "all").exit_code == 0
    args = ["--train", str(places / "rivers.txt"), "--backbone", backbone, "--library", str(tmp_path / "lib"), *QUICK]
    message = refused("train", "rivers", *args, "--from", "all,stars")
    assert "the prefix of the source 'stars' was trained on a backbone with fingerprint" in message


def test_the_seed_of_a_file_counts_unless_another_is_given(tmp_path: Path, backbone: str, places: Path) -> None:
    config = tmp_path / "own.toml"
    config.write_text("[training]\nseed = 7\n")

    def seed(*more: str) -> int:
        result = train("towns", tmp_path / "lib", backbone, places, "--json", *more)
        assert result.exit_code == 0, result.stderr
        made: int = json.loads(result.stdout)["settings"]["training"]["seed"]
        assert Library(tmp_path / "lib").get("towns").prefix.notes["seed"] == made
        return made

    assert seed("--config", str(config)) == seed("--set", "training.seed=7") == 7
    assert seed("--config", str(config), "--seed", "3") == 3
    assert seed() == 1
    args = ["--train", str(places / "towns.txt"), "--backbone", backbone, "--library", str(tmp_path / "lib")]
    assert "the seed is given twice" in refused("train", "towns", *args, "--seed", "3", "--set", "seed=4")


def test_texts_of_several_domains_are_read_together(library: Path) -> None:
    args = ["--library", str(library), "--json"]
    result = run("predict", "the Baltic", "Vega shines", "-d", "seas", "-d", "stars", *args)
    assert result.exit_code == 0, result.stderr
    mixed = json.loads(result.stdout)
    assert [r["domain"] for r in mixed] == ["seas", "stars"]
    for name, text, found in (("seas", "the Baltic", mixed[0]), ("stars", "Vega shines", mixed[1])):
        alone = json.loads(run("predict", text, "-d", name, *args).stdout)[0]
        assert [(e["start"], e["end"], e["label"]) for e in found["entities"]] == [
            (e["start"], e["end"], e["label"]) for e in alone["entities"]
        ]
    message = refused("predict", "a", "b", "c", "-d", "seas", "-d", "stars", "--library", str(library))
    assert "3 texts came with 2 domains" in message
