"""``--recognizer if-wraner`` from the command line: the same commands as for the others, in one library with them."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from xdner.backbone.lora import ADAPTER_FILES
from xdner.recognizers.if_wraner import IFWRANER
from xdner.recognizers.retrievers import Retrievers
from xdner.retrieval.stop_words import stop_words
from xdner.testing.commands import refused, run
from xdner.testing.encoders import save_tiny_encoder
from xdner.testing.endpoints import Said, answering, serving
from xdner.testing.examples import SHORT
from xdner.testing.examples import train_command as train
from xdner.testing.models import save_tiny_backbone

QUICK = [
    "--set", "epochs=2", "--set", "training.batch_size=2", "--set", "rank=2", "--set", "retrieval.k=2", "--set",
    "retrieval.method=random",
]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, files: Path) -> Path:
    """A tuned model without examples, and a domain that takes it; and one without any tuning."""
    folder = tmp_path_factory.mktemp("library")
    own = ["--llm", files / "llm", "--set", f"prompt.template={files / 'short.toml'}", *QUICK]
    for command in (
        train("tuned", folder, *own, "--source", files / "news.txt", "--json"),
        train("towns", folder, "--from", "tuned", "--examples", files / "towns.txt"),
        train("raw", folder, *own, "--train", files / "towns.txt", "--dev", files / "dev.txt"),
    ):
        result = run(*command)
        assert result.exit_code == 0, result.stderr
        if "--json" in command:
            made = json.loads(result.stdout)
            assert made["settings"]["tune"]["rank"] == 2
            assert made["kilobytes"] > 1
            assert any("no examples" in w for w in made["warnings"])
        elif "towns" in command:
            assert "is ready (nothing was trained)" in result.stderr
            assert "1 of 3 examples has no entities" in result.stderr
        else:
            assert "was not tuned" in result.stderr
            assert "--dev chooses the best epoch of a tuning" in result.stderr
    assert not (folder / ".runs" / "tuned").exists()
    return folder


def test_a_seed_is_everybodys(files: Path, tmp_path: Path) -> None:
    """Also where the examples are not drawn, and there is nothing to draw."""
    own = ["--llm", files / "llm", "--examples", files / "towns.txt", "--seed", "3"]
    for method, more, seed in (("none", [], 3), ("random", [], 3), ("random", ["--set", "retrieval.seed=5"], 5)):
        asked = train("towns", tmp_path, *own, "--set", f"retrieval.method={method}", *more, "--json")
        result = run(*asked)
        assert result.exit_code == 0, result.stderr
        settings = json.loads(result.stdout)["settings"]
        assert (settings["training"]["seed"], settings["retrieval"]["seed"]) == (3, seed)


def test_reading_and_scoring(library: Path, files: Path) -> None:
    where = ["--domain", "towns", "--library", str(library)]
    read = json.loads(run("predict", "Ann in Rome", "Bob", *where, "--json").stdout)
    assert [r["text"] for r in read] == ["Ann in Rome", "Bob"]
    assert {e["label"] for r in read for e in r["entities"]} <= {"person", "city"}
    report = json.loads(run("evaluate", "--data", str(files / "dev.txt"), *where, "--json").stdout)
    assert report["micro"]["gold"] == 2
    # Two domains of one tuned model may share a call; a raw one is another model.
    both = run("predict", "Ann", "Bob", "-d", "towns", "-d", "tuned", "--library", str(library), "--json")
    assert [r["domain"] for r in json.loads(both.stdout)] == ["towns", "tuned"]
    assert "adapter" in refused("predict", "Ann", "Bob", "-d", "towns", "-d", "raw", "--library", str(library))


def test_a_library_shows_it(library: Path, tmp_path: Path) -> None:
    where = ["--library", str(library)]
    listed = {d["name"]: d for d in json.loads(run("domains", "list", *where, "--json").stdout) if not d.get("shipped")}
    assert {d["recognizer"] for d in listed.values()} == {"if-wraner"}
    assert (listed["towns"]["examples"], listed["towns"]["template"]) == (3, "short-1")
    assert listed["towns"]["adapter"] == listed["tuned"]["adapter"] is not None
    assert listed["raw"]["adapter"] is None
    shown = run("domains", "show", "towns", *where)
    assert "news" in shown.stdout, shown.stderr
    assert "random, k = 2" in shown.stdout
    assert run("domains", "verify", *where).exit_code == 0
    file = tmp_path / "towns.xdner"
    assert run("domains", "export", "towns", "--out", str(file), *where).exit_code == 0
    other = ["--library", str(tmp_path / "other")]
    assert run("domains", "import", str(file), "--name", "cities", *other).exit_code == 0
    one = json.loads(run("predict", "Ann in Rome", "--domain", "towns", *where, "--json").stdout)
    two = json.loads(run("predict", "Ann in Rome", "--domain", "cities", *other, "--json").stdout)
    assert one[0]["entities"] == two[0]["entities"]


def test_types_from_a_file(library: Path, files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "library"
    shutil.copytree(library, copy)
    made = run(*train("seas", copy, "--from", "tuned", "--domain-file", files / "seas.toml"))
    assert made.exit_code == 0, made.stderr
    entry = json.loads(run("domains", "show", "seas", "--library", str(copy), "--json").stdout)
    assert entry["domain"]["labels"][0]["description"] == "salt water"


def test_a_template_that_is_named_is_read_again(library: Path, files: Path, tmp_path: Path) -> None:
    copy = tmp_path / "library"
    shutil.copytree(library, copy)
    own, named = ["--from", "tuned", "--examples", files / "towns.txt"], f"prompt.template={files / 'short.toml'}"
    changed, before = SHORT.replace("version = 1", "version = 2"), (files / "short.toml").read_text()
    (tmp_path / "all.toml").write_text(f'[prompt]\ntemplate = "{files / "short.toml"}"\n')
    try:
        (files / "short.toml").write_text(changed)
        for more, version in (([], 1), (["--set", named], 2), (["--config", tmp_path / "all.toml"], 2)):
            made = run(*train("new", copy, *own, *more))
            assert made.exit_code == 0, made.stderr
            assert (copy / "new" / "template.toml").read_text() == (before if version == 1 else changed)
            assert str(files / "short.toml") in (copy / "new" / "settings.toml").read_text()
    finally:
        (files / "short.toml").write_text(before)


def test_an_adapter_from_anywhere(library: Path, files: Path, tmp_path: Path) -> None:
    """As a peft folder: a domain's own is one."""
    copy = tmp_path / "library"
    shutil.copytree(library, copy)
    entry = json.loads(run("domains", "show", "tuned", "--library", str(copy), "--json").stdout)
    own = ["--adapter", copy / "tuned" / "adapter", "--llm", files / "llm", "--examples", files / "towns.txt"]
    assert run(*train("same", copy, *own)).exit_code == 0
    same = json.loads(run("domains", "show", "same", "--library", str(copy), "--json").stdout)
    assert same["adapter"] == entry["adapter"]
    other = save_tiny_backbone(tmp_path / "other", seed=7)
    swapped = train(
        "same", copy, "--adapter", copy / "tuned" / "adapter", "--llm", other, "--examples", files / "towns.txt"
    )
    assert "was trained on other weights (llm) than those of other" in refused(*swapped)
    # One that peft wrote says no more than its model's name.
    factors = copy / "tuned" / "adapter" / ADAPTER_FILES[1]
    save_file(load_file(factors), factors, {"format": "pt"})
    for llm, doubt in ((other, True), (files / "llm", False)):
        made = run(*swapped[:-3], str(llm), *swapped[-2:])
        assert made.exit_code == 0, made.stderr
        assert ("says it was trained on llm" in " ".join(made.stderr.split())) == doubt
    assert "give one of them" in refused(*train("same", copy, *own, "--source", files / "news.txt"))


def test_a_domain_that_is_tuned_cannot_be_resumed(library: Path, files: Path) -> None:
    again = train("tuned", library, "--llm", files / "llm", *QUICK, "--source", files / "news.txt", "--resume")
    assert "is trained already, and no run of it was interrupted" in refused(*again)


def test_a_domain_of_another_method_is_not_replaced(files: Path, library: Path, tmp_path: Path) -> None:
    shutil.copytree(library / "raw", tmp_path / "towns")
    before = sorted(path.read_bytes() for path in (tmp_path / "towns").iterdir() if path.is_file())
    where = ["--train", str(files / "towns.txt"), "--library", str(tmp_path)]
    for recognizer in ([], ["--recognizer", "laner"]):
        told = refused("train", "towns", *where, *recognizer)
        assert "holds a domain of examples, made by another method" in told
        assert "xdner domains remove towns" in told
    assert before == sorted(path.read_bytes() for path in (tmp_path / "towns").iterdir() if path.is_file())


def test_the_next_command_names_the_library(files: Path, library: Path, tmp_path: Path) -> None:
    shutil.copytree(library / "tuned", tmp_path / "my domains" / "tuned")
    made = run(*train("new", tmp_path / "my domains", "--from", "tuned", "--examples", files / "towns.txt"))
    assert f"xdner predict --domain new --library '{tmp_path / 'my domains'}'" in made.stderr


def test_the_encoder_beside_an_endpoint_is_where_it_was_asked_for() -> None:
    made = IFWRANER.from_pretrained("http://127.0.0.1:9/v1", model="m", device="meta")
    assert isinstance(made.make_retriever, Retrievers)
    assert made.make_retriever.device == "meta"


def test_settings_that_do_nothing(library: Path, files: Path, tmp_path: Path) -> None:
    new = train("x", tmp_path, "--llm", files / "llm", "--examples", files / "towns.txt")
    message = refused(*new, "--set", "replace_mentions=0.9", "--set", "anchor=3", "--set", "training.drop_options=0.5")
    for name in ("replace_mentions", "anchor", "drop_options"):
        assert f"IF-WRANER makes no use of training.{name}" in message
    copy = tmp_path / "library"
    shutil.copytree(library, copy)
    own = ["--from", "tuned", "--examples", files / "towns.txt", "--set", "rank=3", "--set", "learning_rate=1e-3"]
    told = run(*train("y", copy, *own, "--json"))
    assert (
        "there is no --source, and so no training: training.learning_rate, tune.rank have no effect"
        in json.loads(told.stdout)["warnings"]
    )


def test_an_interrupted_tuning_goes_on(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from xdner.training.prompt_task import PromptTask

    command = train("x", tmp_path, "--llm", files / "llm", "--source", files / "news.txt", *QUICK)
    calls, own = [], PromptTask.loss

    def stops(self: PromptTask, indices: Any, rng: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(self, indices, rng)

    monkeypatch.setattr(PromptTask, "loss", stops)
    assert run(*command).exit_code != 0
    monkeypatch.undo()
    again = run(*command, "--resume")
    assert again.exit_code == 0, again.stderr
    assert run("domains", "verify", "--library", str(tmp_path)).exit_code == 0


def test_a_model_behind_an_endpoint(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDNER_LLM_KEY", "sk-secret-4711")
    where = ["--library", str(tmp_path / "library")]
    with serving(lambda n, body: answering('{"person": ["Ann"]}' if n < 2 else "hm")) as endpoint:
        own = ["--llm", endpoint.url, "--model", "big", "--examples", files / "towns.txt", "--set", "llm.backoff=0.01"]
        own += ["--set", "retrieval.method=none"]
        made = run(*train("towns", tmp_path / "library", *own))
        assert made.exit_code == 0, made.stderr
        assert endpoint.requests == []  # nothing is asked before somebody asks
        assert "kB" not in made.stderr
        facts = json.loads(run("domains", "show", "towns", *where, "--json").stdout)
        assert (facts["url"], "fingerprint" in facts) == (endpoint.url, False)
        assert f"url  {endpoint.url}" in run("domains", "show", "towns", *where).stdout
        empty = run("explain", "Ann", "-d", "towns", *where)
        assert (empty.stdout, "method is none" in empty.stderr) == ("", True)
        assert "k is 0" in run("explain", "Ann", "-d", "towns", "-k", "0", "--set", "method=densest", *where).stderr
        read = run("predict", "Ann in Rome", "-d", "towns", *where, "--json")
        assert [e["text"] for e in json.loads(read.stdout)[0]["entities"]] == ["Ann"]
        shown = run("predict", "Ann left", "Bob", "-d", "towns", *where)
        assert "malformed answers: 1" in shown.stderr
        assert "the first answer that could not be read: 'hm': it is no JSON object" in " ".join(shown.stderr.split())
        scored = ["evaluate", "-d", "towns", "--data", str(files / "dev.txt"), *where]
        report = json.loads(run(*scored, "--json").stdout)
        assert report["notes"] == {"malformed_answers": 1}
        assert report["unread"] == [{"id": "dev:1", "answer": "hm", "why": "it is no JSON object"}]
        told = " ".join(run(*scored).stderr.split())
        assert "malformed answers: 1" in told
        assert "the first answer that could not be read, of dev:1: 'hm': it is no JSON object" in told
        # A domain that came from somebody else asks nobody before its address was confirmed.
        file, other = str(tmp_path / "towns.xdner"), ["--library", str(tmp_path / "other")]
        assert run("domains", "export", "towns", "--out", file, *where).exit_code == 0
        assert run("domains", "import", file, *other).exit_code == 0
        before = len(endpoint.requests)
        assert f"was imported, and sends texts to {endpoint.url}" in refused("predict", "Ann", "-d", "towns", *other)
        assert len(endpoint.requests) == before
        assert run("predict", "Ann", "-d", "towns", "--backbone", endpoint.url, *other).exit_code == 0
        every = "".join(r.stdout + r.stderr for r in (made, read, shown))
        assert "sk-secret-4711" not in every
    assert not any(b"sk-secret-4711" in p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    # Whoever names a model of another kind is told so, and not asked for a name that no option gives.
    local = refused("predict", "Ann", "-d", "towns", *where, "--backbone", str(files / "llm"))
    assert f"was made for the language model big, this is {files / 'llm'}" in local
    assert f"Use {endpoint.url}" in local
    taken = run(
        *train(
            "here", tmp_path / "library", "--from", "towns", "--llm", files / "llm", "--examples", files / "towns.txt"
        )
    )
    assert taken.exit_code == 0, taken.stderr
    away = refused("predict", "Ann", "-d", "here", *where, "--backbone", endpoint.url)
    assert f"was made for the language model llm, this is {endpoint.url}" in away
    gone = refused(
        "predict", "Ann", "-d", "towns", "--library", str(tmp_path / "library"), "--backbone", "http://127.0.0.1:9/v1"
    )
    assert "failed" in gone or "refused" in gone


def test_mistakes_give_one_error_with_the_next_step(
    library: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = train("x", tmp_path, "--llm", files / "llm")
    examples, source = ["--examples", str(files / "towns.txt")], ["--source", str(files / "news.txt")]
    assert "nothing that says which types" in refused(*new)
    assert "--strategy is an option of --recognizer cp-ner" in refused(*new, *examples, "--strategy", "single")
    assert "there is no template 'nope'" in refused(*new, *examples, "--set", "prompt.template=nope")
    assert "retrieval.k must not be negative" in refused(*new, *examples, "--set", "retrieval.k=-1")
    assert "--resume goes on with a tuning" in refused(*new, *examples, "--resume")
    assert "names a model behind an endpoint" in refused(*new, *examples, "--model", "m")
    assert "--k-shot samples examples" in refused(*new, *source, "--k-shot", "2")
    remote = train("x", tmp_path, "--llm", "http://127.0.0.1:9/v1", *examples)
    assert "which model at http://127.0.0.1:9/v1" in refused(*remote)
    assert "cannot be" in refused(*remote, "--model", "m", *source)
    encoder = save_tiny_encoder(tmp_path / "an-encoder")
    wrong = refused(*train("x", tmp_path, "--llm", encoder, *examples))
    assert "is an encoder; IF-WRANER asks a causal language model" in wrong
    assert "--llm http://" in wrong
    assert "--llm http://" in refused(*train("x", tmp_path, "--llm", "./nosuchmodel", *examples))
    monkeypatch.setenv("XDNER_CACHE", str(tmp_path / "empty"))
    assert "xdner backbones pull" in refused(*train("x", tmp_path, "--llm", "smollm2-135m", *examples))
    other = save_tiny_backbone(tmp_path / "other", seed=7)
    swapped = refused(*train("x", library, "--from", "tuned", "--llm", other, *examples))
    assert "'tuned' was made for the language model llm, this is other" in swapped
    both = train("x", library, "--from", "tuned", *examples, *source)
    assert "give one of them" in refused(*both)
    plain = ["train", "x", "--library", str(tmp_path)]
    assert "nothing to train on" in refused(*plain)
    assert "--llm is an option of --recognizer if-wraner" in refused(*plain, *examples, "--llm", "x")
    assert "it has no prefix" in refused(*plain[:2], *examples, "--library", str(library), "--from", "towns")
    laner = ["train", "x", "--recognizer", "laner", *examples, "--library", str(library), "--from", "towns"]
    assert "'towns' is no LANER domain: a LANER domain starts from another" in refused(*laner)


def test_what_was_read_before_a_server_failed_is_given_out(files: Path, tmp_path: Path) -> None:
    where, texts = ["-d", "towns", "--library", str(tmp_path / "library")], ["Ann left", "Ann came", "Bob", "Eve"]
    (tmp_path / "texts.txt").write_text("\n".join(texts))

    def reply(number: int, body: dict[str, Any]) -> Said:
        return answering('{"person": ["Ann"]}') if number % 4 < 2 else Said({"error": "out of money"}, 402)

    with serving(reply) as endpoint:
        own = ["--llm", endpoint.url, "--model", "big", "--examples", files / "towns.txt"]
        own += ["--set", "retrieval.method=none", "--set", "llm.concurrency=1"]
        assert run(*train("towns", tmp_path / "library", *own)).exit_code == 0
        shown = run("predict", "--file", str(tmp_path / "texts.txt"), *where)
        assert shown.exit_code == 1
        assert [line.split()[-1] for line in shown.stdout.splitlines()] == ["left", "came"]
        told = " ".join(shown.stderr.split())
        assert "2 of 4 texts were not read, the first of them is number 3" in told
        assert "402: out of money" in told
        while len(endpoint.requests) % 4:  # so that the next run begins with answers
            endpoint.requests.append({})
        read = json.loads(run("predict", "--file", str(tmp_path / "texts.txt"), *where, "--json").stdout)
    assert [r["text"] for r in read] == texts
    assert [len(r.get("entities", ())) for r in read] == [1, 1, 0, 0]
    assert len(endpoint.requests) == 7
    assert ["402: out of money" in r.get("error", "") for r in read] == [False, False, True, True]


def test_what_is_not_installed_is_told_before_the_work(
    files: Path, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["--llm", files / "llm", "--examples", files / "towns.txt"]
    made = train("towns", tmp_path, *own, "--set", "stop_words=none")
    assert run(*made).exit_code == 0
    assert run(*train("words", tmp_path, *own)).exit_code == 0

    def loads(*_: object, **__: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr("xdner.recognizers.if_wraner.load_backbone", loads)
    monkeypatch.setitem(sys.modules, "bm25s", None)
    stop_words.cache_clear()
    for command in (train("x", tmp_path, *own), ["predict", "Ann", "-d", "words", "--library", str(tmp_path)]):
        assert "lists of stop words need the package bm25s" in refused(*command)
    assert "BM25 needs the package bm25s" in refused(
        *train("x", tmp_path, *own, "--set", "method=bm25", "--set", "stop_words=none")
    )
    monkeypatch.setitem(sys.modules, "peft", None)
    tuning = train("x", tmp_path, "--llm", files / "llm", "--source", files / "news.txt", *QUICK)
    assert "needs the package peft" in refused(*tuning)
