"""LANER on tiny random encoders: it learns, resumes bit for bit, is stored whole, and fails clearly."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from xdner.backbone.encoder import load_encoder
from xdner.domain import Domain, Label
from xdner.errors import (
    BackboneError,
    BackboneMismatchError,
    DomainError,
    SettingsError,
    TaggerFormatError,
    TrainingError,
    TrainingInterrupted,
    UnknownDomainError,
)
from xdner.library.entry import sentence_hashes
from xdner.recognizers.base import Request
from xdner.recognizers.laner import LANER
from xdner.recognizers.laner_training import LanerTraining
from xdner.tagger.carry import name_vectors, start_from_names
from xdner.tagger.settings import LanerSettings
from xdner.testing.models import save_tiny_backbone
from xdner.testing.taggers import TOWNS, save_letter_encoder
from xdner.text import Sentence
from xdner.training.progress import SilentProgress
from xdner.training.run import Run
from xdner.training.sources import LabelledSource
from xdner.training.tagger_task import TaggerTask

DOMAIN = Domain.from_corpus("towns", TOWNS)
SEAS = [
    Sentence.from_words(["Ann", "saw", "Baltic"], [(0, 1, "person"), (2, 3, "sea")]),
    Sentence.from_words(["Bob", "Lee", "saw", "no", "one"], [(0, 2, "person")]),
]
SOURCE = LabelledSource(Domain.from_corpus("seas", SEAS), SEAS)


def quick(*overrides: str) -> LanerSettings:
    few = (
        "epochs=2",
        "training.batch_size=3",
        "label_size=8",
        "evaluate_from=1",
        "evaluate_every=1",
        "learning_rate=0.01",
        "warmup=0",
    )
    return LanerSettings.build(None, [*few, "source_epochs=1", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_letter_encoder(tmp_path_factory.mktemp("laner") / "encoder")


@pytest.fixture(scope="module")
def trained(folder: Path) -> LANER:
    made = LANER.from_pretrained(folder, settings=quick("epochs=40", "evaluate_from=40"))
    made.train(DOMAIN, TOWNS, TOWNS)
    return made


def found(recognizer: LANER, *texts: str | Sentence, **options: Any) -> list[list[tuple[str, str]]]:
    return [[(e.text, e.label) for e in r.entities] for r in recognizer.predict(list(texts), **options)]


@pytest.mark.parametrize(
    "variant", [(), ("history=forward",), ("head=crf",), ("head=plain",), ("new_rows=name", "word_shape=true")], ids=str
)
def test_a_tiny_tagger_learns_what_can_be_learned(folder: Path, variant: tuple[str, ...]) -> None:
    recognizer = LANER.from_pretrained(folder, settings=quick("epochs=60", "evaluate_from=60", *variant))
    made = recognizer.train(DOMAIN, TOWNS, TOWNS, sources=[SOURCE])
    assert made.result.best_dev == 1.0
    assert recognizer.evaluate(TOWNS, beam=3).micro.f1 == 1.0
    assert [name for name, _ in made.run.phases] == ["source", "target"]
    (result,) = recognizer.predict("Ann Lee in Rome")
    assert all(e.score is not None and 0 < e.score <= 1.0001 for e in result.entities)


def test_one_text_or_many_in_any_batch(trained: LANER) -> None:
    texts = [s.text for s in TOWNS] * 2
    together = trained.predict(texts)
    alone = [trained.predict(t, domain="towns")[0] for t in texts]
    assert [[e.key for e in r.entities] for r in together] == [[e.key for e in r.entities] for r in alone]
    for one, other in zip(together, alone, strict=True):
        for a, b in zip(one.entities, other.entities, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-5)
    for beam in (0, -1, 10**6):
        with pytest.raises(SettingsError, match=r"tagger\.beam must be"):
            trained.predict(texts, beam=beam)
    counts: list[int] = []
    trained.predict([*texts, ""], done=counts.append)
    assert counts[-1] == len(texts)
    assert trained.predict("  ")[0].entities == ()


def test_domains_in_one_batch_each_have_their_own_tagger(folder: Path, trained: LANER) -> None:
    both = LANER.from_pretrained(folder, settings=quick())
    both.train(SOURCE.domain, SEAS)
    alone = found(both, "Ann saw Baltic")
    both.add(trained._entry("towns"))
    results = both.recognize([Request("Ann Lee", "towns"), Request("Ann saw Baltic", "seas"), Request("Rome", "towns")])
    assert [r.domain for r in results] == ["towns", "seas", "towns"]
    assert [(e.text, e.label) for e in results[1].entities] == alone[0]
    assert [e.text for e in results[2].entities] == ["Rome"]
    with pytest.raises(UnknownDomainError, match="which domain"):
        both.predict("Rome")
    with pytest.raises(UnknownDomainError, match="no domain 'nope'"):
        both.predict("Rome", domain="nope")


def test_a_sentence_longer_than_the_positions_is_read_in_windows(tmp_path: Path) -> None:
    small = save_letter_encoder(tmp_path / "small", positions=16)
    recognizer = LANER.from_pretrained(small, settings=quick("epochs=60", "evaluate_from=60", "overlap=2", "window=8"))
    long = Sentence.from_words(["no", "one", "Rome"] * 12, [(i, i + 1, "city") for i in range(2, 36, 3)])
    recognizer.train(DOMAIN, [*TOWNS, long], TOWNS)
    (result,) = recognizer.predict(long)
    assert result.windows > 4
    assert [e.key for e in result.entities] == [e.key for e in long.entities]  # nothing dropped, nothing twice
    (cut,) = recognizer.predict("x" * 100)
    assert cut.diagnostics == {"capped_words": 1}


def test_dev_can_be_sampled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scored: list[int] = []

    class Looked(TaggerTask):
        def evaluate(self) -> float | None:
            scored.append(len(self.dev))
            return super().evaluate()

    monkeypatch.setattr("xdner.recognizers.laner_training.TaggerTask", Looked)
    made = LANER.from_pretrained(folder, settings=quick("dev_limit=2")).train(DOMAIN, TOWNS, TOWNS)
    assert scored == [2, 2]
    assert made.entry.notes["dev_sentences"] == len(TOWNS)


# -- stages --------------------------------------------------------------------------------------------------------------


def test_a_source_stage_changes_what_the_target_starts_from(folder: Path) -> None:
    recognizer = LANER.from_pretrained(folder, settings=quick())
    before = {n: p.clone() for n, p in recognizer.encoder.model.state_dict().items()}  # type: ignore[union-attr]
    plain, drawn = recognizer.train(DOMAIN, TOWNS), recognizer.train(DOMAIN, TOWNS, sources=[SOURCE])
    assert plain.result.history[0].loss != drawn.result.history[0].loss
    assert drawn.entry.notes["sources"] == [{"name": "seas", "sentences": 2}]
    after = recognizer.encoder.model.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(after[n], p) for n, p in before.items()), "the recognizer's own encoder stays as it came"


def test_a_ready_source_is_the_same_as_its_sentences(folder: Path) -> None:
    recognizer = LANER.from_pretrained(folder, settings=quick())
    recognizer.train(SOURCE.domain, SEAS, settings=quick("epochs=1", "patience=0"))
    ready = recognizer.train(DOMAIN, TOWNS, start="seas")
    direct = recognizer.train(DOMAIN, TOWNS, sources=[SOURCE])
    assert [r.loss for r in ready.result.history] == [r.loss for r in direct.result.history]
    # A recognizer without an encoder can go on from a domain that brings its own.
    other = LANER(settings=quick())
    other.add(recognizer._entry("seas"))
    again = other.train(DOMAIN, TOWNS, start="seas")
    assert [r.loss for r in again.result.history] == [r.loss for r in ready.result.history]


def test_what_cannot_be_started_from(folder: Path, tmp_path: Path, trained: LANER) -> None:
    with pytest.raises(TrainingError, match="no encoder to train"):
        LANER().train(DOMAIN, TOWNS)
    with pytest.raises(UnknownDomainError):
        LANER.from_pretrained(folder).train(DOMAIN, TOWNS, start="nope")
    other = LANER.from_pretrained(save_letter_encoder(tmp_path / "other", seed=1))
    other.add(trained._entry("towns"))
    with pytest.raises(BackboneMismatchError, match="was trained on the encoder"):
        other.train(SOURCE.domain, SEAS, start="towns")
    with pytest.raises(SettingsError, match="built differently"):
        trained.train(SOURCE.domain, SEAS, start="towns", settings=quick("head=crf"))
    with pytest.raises(DomainError, match="labels that domain 'seas' does not"):
        trained.train(SOURCE.domain, TOWNS)


class _Stop(SilentProgress):
    """Ctrl-C, some steps into a stage."""

    def __init__(self, at: int) -> None:
        self.left = at

    def step(self, done: int, loss: float) -> None:
        import signal

        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("steps", [1, 4], ids=["in the source stage", "in the target stage"])
def test_resuming_ends_as_if_nothing_had_happened(folder: Path, tmp_path: Path, steps: int) -> None:
    settings = quick("epochs=4", "source_epochs=2", "checkpoint_every=1", "training.batch_size=2", "new_rows=name")

    def run(where: Path, **options: Any) -> dict[str, torch.Tensor]:
        recognizer = LANER.from_pretrained(folder, settings=settings)
        made = recognizer.train(DOMAIN, TOWNS, TOWNS[:3], sources=[SOURCE], run=Run(where, **options))
        return dict(made.entry.tensors)

    straight = run(tmp_path / "one")
    with pytest.raises(TrainingInterrupted):
        run(tmp_path / "two", progress=_Stop(steps))
    resumed = run(tmp_path / "two", resume=True)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    with pytest.raises(TrainingError, match="no checkpoint"):
        run(tmp_path / "three", resume=True)


def test_what_an_older_run_left_is_not_resumed(folder: Path, tmp_path: Path) -> None:
    """One run ends in its target stage; another one, with other settings, in its source stage, and is resumed."""

    def run(epochs: int, **options: Any) -> None:
        settings = quick(f"epochs={epochs}", "source_epochs=2", "checkpoint_every=1", "training.batch_size=2")
        recognizer = LANER.from_pretrained(folder, settings=settings)
        recognizer.train(DOMAIN, TOWNS, TOWNS[:3], sources=[SOURCE], run=Run(tmp_path, **options))

    for epochs, steps in ((4, 4), (3, 1)):
        with pytest.raises(TrainingInterrupted):
            run(epochs, progress=_Stop(steps))
    run(3, resume=True)


def test_a_run_with_other_words_for_a_sources_types_is_another_one(folder: Path, tmp_path: Path) -> None:
    settings = quick("source_epochs=2", "checkpoint_every=1", "training.batch_size=2", "new_rows=name")
    other = Domain("seas", [Label("person"), Label("sea", "great water")])
    recognizer = LANER.from_pretrained(folder, settings=settings)
    with pytest.raises(TrainingInterrupted):
        recognizer.train(DOMAIN, TOWNS, sources=[SOURCE], run=Run(tmp_path, progress=_Stop(1)))
    with pytest.raises(TrainingError, match="belongs to another run"):
        recognizer.train(DOMAIN, TOWNS, sources=[LabelledSource(other, SEAS)], run=Run(tmp_path, resume=True))


def test_a_domain_says_all_that_it_has_learned_from(folder: Path) -> None:
    recognizer = LANER.from_pretrained(folder, settings=quick("epochs=1"))
    made = recognizer.train(DOMAIN, TOWNS[:2], sources=[SOURCE])
    assert made.entry.seen == sentence_hashes([*TOWNS[:2], *SEAS])
    later = recognizer.train(Domain("later", DOMAIN.labels), TOWNS[2:4], start="towns")
    assert later.entry.seen == sentence_hashes([*TOWNS[:4], *SEAS])


def test_names_are_read_with_the_shapes_that_were_learned(folder: Path) -> None:
    settings = quick("new_rows=name", "word_shape=true")
    encoder = load_encoder(folder)
    training = LanerTraining(encoder, DOMAIN, list(TOWNS), [], settings, sources=[SOURCE])
    before = training._network(encoder.fresh(), ["person", "sea"], None)
    assert before.shape is not None
    with torch.no_grad():
        before.shape.weight.mul_(1000)
    made = training._network(before.encoder, DOMAIN.label_names, before)
    rows = made.head.weight.detach().clone()
    vectors = name_vectors(made, training.pieces, {"city": "city", "person": "person"})
    start_from_names(made, vectors, before.tags, settings.training.seed)
    assert torch.equal(made.head.weight, rows)


# -- stored ---------------------------------------------------------------------------------------------------------------


def test_what_is_loaded_is_what_was_saved(trained: LANER, tmp_path: Path) -> None:
    folder = trained.save("towns", tmp_path / "towns")
    assert not list(folder.rglob("*.bin"))
    assert not list(folder.rglob("*.pkl"))
    reader = LANER()
    assert reader.load(folder) == "towns"
    assert reader.labels("towns") == ("city", "person")
    ours, theirs = trained.predict(list(TOWNS)), reader.predict(list(TOWNS))
    assert [r.entities for r in ours] == [r.entities for r in theirs]


def _edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / name
        path.write_text(change(path.read_text()))

    return edit


def _cut(folder: Path) -> None:
    path = folder / "tagger.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _manifest(**changes: Any) -> Callable[[Path], None]:
    return _edit("tagger.json", lambda text: json.dumps(json.loads(text) | changes))


def _rehashed(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    """A stranger who alters a file puts its hash right, too."""

    def edit(folder: Path) -> None:
        import hashlib

        _edit(name, change)(folder)
        manifest = json.loads((folder / "tagger.json").read_text())
        manifest["files"][name]["sha256"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "tagger.json").write_text(json.dumps(manifest))

    return edit


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_cut, "truncated or was altered"),
        (_edit("encoder/config.json", lambda t: t + " "), "truncated or was altered"),
        (lambda f: (f / "encoder" / "tokenizer.json").unlink(), "cannot read"),
        (lambda f: (f / "tagger.json").unlink(), "there is no"),
        (_edit("tagger.json", lambda t: t[:20]), "not a tagger's manifest"),
        (_manifest(format=99), "format 99"),
        (_manifest(tags=["O", "O"]), "broken entries in 'tags'"),
        (_manifest(files={"../x": {"sha256": ""}}), "broken entries in 'files'"),
        (_manifest(encoder={}), "does not name its encoder"),
        (_edit("domain.toml", lambda t: t.replace('name = "city"', 'name = "town"')), "was trained for city, person"),
        (_edit("settings.toml", lambda t: t.replace("label_size = 8", "label_size = 9")), "describes another tagger"),
        (_rehashed("encoder/config.json", lambda t: t.replace('"hidden_size": 16', '"hidden_size": 32')), "another model"),
        (
            _rehashed("encoder/config.json", lambda t: t.replace('num_hidden_layers": 1', 'num_hidden_layers": 99999999')),
            "99999999 layers",
        ),
        (_rehashed("encoder/tokenizer.json", lambda t: "{}"), "cannot be made again"),
    ],
)  # fmt: skip
def test_a_damaged_folder_gives_one_error(
    trained: LANER, tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    folder = trained.save("towns", tmp_path / "towns")
    harm(folder)
    with pytest.raises(TaggerFormatError, match=says) as caught:
        LANER().load(folder)
    assert caught.value.hint


def test_code_that_a_stranger_sends_is_never_run(
    trained: LANER, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformers would ask, and somebody may say yes."""
    folder = trained.save("towns", tmp_path / "towns")
    code = folder / "encoder" / "strange.py"
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import BertConfig as Strange\n")
    _edit("tagger.json", lambda t: t.replace('"files": {', '"files": {"encoder/strange.py": {"sha256": ""},', 1))(
        folder
    )
    _rehashed("encoder/strange.py", lambda t: t)(folder)
    added = {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Strange"}}
    _rehashed("encoder/config.json", lambda t: json.dumps(json.loads(t) | added))(folder)
    monkeypatch.setattr("builtins.input", lambda *asked: "y")
    with pytest.raises(TaggerFormatError, match="cannot be made again"):
        LANER().load(folder)
    with pytest.raises(BackboneError):
        load_encoder(folder / "encoder")
    assert not (tmp_path / "ran").exists()


def test_other_words_for_a_type_are_no_damage(trained: LANER, tmp_path: Path) -> None:
    folder = trained.save("towns", tmp_path / "towns")
    _edit("domain.toml", lambda t: t.replace('verbalization = "city"', 'verbalization = "big town"'))(folder)
    LANER().load(folder)


# -- encoders -------------------------------------------------------------------------------------------------------------


def test_models_that_are_no_encoder_for_a_tagger(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(BackboneError, match="is a causal model; the tagger needs an encoder"):
        LANER.from_pretrained(save_tiny_backbone(tmp_path / "causal"))
    slow = tmp_path / "slow"
    shutil.copytree(folder, slow)
    for path in slow.glob("token*"):
        path.unlink()
    (slow / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CanineTokenizer"}))
    with pytest.raises(BackboneError, match=r"CanineTokenizer\) is not a fast one"):
        LANER.from_pretrained(slow)
    with pytest.raises(BackboneError, match="the device 'warp'"):
        LANER.from_pretrained(folder, device="warp")


def test_positions_of_a_model_that_counts_from_its_padding(tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    from xdner.testing.taggers import letter_tokenizer

    config = RobertaConfig(
        vocab_size=80, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=20, pad_token_id=1,
    )  # fmt: skip
    RobertaModel(config).save_pretrained(tmp_path)
    letter_tokenizer().save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path)
    assert encoder.positions == 18
    made = LANER(encoder, settings=quick("epochs=1", "window=64"))
    made.train(DOMAIN, TOWNS)
    assert made.predict(" ".join(["abc"] * 40))[0].windows > 1


def test_gradient_checkpointing_gives_the_same_gradients_and_keeps_less(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for on in (False, True):
        made = LANER.from_pretrained(folder, settings=quick())
        training = LanerTraining(made.encoder, DOMAIN, TOWNS, TOWNS, quick())
        network = training._network(made.encoder.fresh(), DOMAIN.label_names, None)
        task = TaggerTask(network, training.pieces, TOWNS, (), recompute=on)
        kept: list[torch.Tensor] = []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            loss = task.loss([0, 1], random.Random(0))
        loss.backward()
        found.append(({n: p.grad for n, p in task.parameters().items()}, len(kept)))
    (plain, all_kept), (again, less) = found
    assert less < all_kept
    asked: list[bool] = []
    whole = TaggerTask.__init__
    monkeypatch.setattr(TaggerTask, "__init__", lambda *a, **k: (asked.append(k["recompute"]), whole(*a, **k))[1])
    LANER.from_pretrained(folder, settings=quick("epochs=1", "gradient_checkpointing=true")).train(DOMAIN, TOWNS)
    assert asked == [True]
    assert any(gradient is not None for name, gradient in plain.items() if name.startswith("encoder."))
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
