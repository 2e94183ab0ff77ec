"""Settings: files, overrides, and all mistakes at once."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdner.errors import SettingsError
from xdner.groups import GroupedSettings, Use, Within
from xdner.prompting.settings import WranerSettings
from xdner.retrieval.settings import INDEXING, IndexSettings
from xdner.settings import (
    DOMAIN,
    INSTRUCTION,
    START,
    CodecSettings,
    DecodingSettings,
    PrefixSettings,
    Settings,
    TrainingSettings,
)
from xdner.tagger.settings import LanerSettings
from xdner.training.adapt_settings import AdaptationSettings, adaptation
from xdner.workflows.backbones import INSTRUCT_DEFAULTS
from xdner.workflows.initial import INITIAL_DEFAULTS

BOUNDED = settings(max_examples=100, deadline=None)


def problems(**options) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.build(**options)
    return caught.value.problems


def test_defaults_are_possible_and_survive_toml(tmp_path):
    made = Settings.build()
    assert made == Settings()
    (tmp_path / "s.toml").write_text(made.to_toml())
    assert Settings.build(tmp_path / "s.toml") == made


def test_base_then_file_then_overrides(tmp_path):
    (tmp_path / "s.toml").write_text("[training]\nepochs = 5\nseed = 5\n")
    made = Settings.build(
        tmp_path / "s.toml",
        ["seed=6", "codec.form=paper", "training.learning_rate=1", "prefix.length = 20"],
        base={"training": {"epochs": 4, "seed": 4, "patience": 4}},
    )
    assert (made.training.patience, made.training.epochs, made.training.seed) == (4, 5, 6)
    assert made.codec.form == "paper"
    assert isinstance(made.training.learning_rate, float)
    assert made.prefix.length == 20


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "s.toml").write_bytes(b"\xef\xbb\xbf[training]\nepochs = 5\n")
    assert Settings.build(tmp_path / "s.toml").training.epochs == 5


def test_all_mistakes_are_told_at_once(tmp_path):
    (tmp_path / "s.toml").write_text("[trainin]\nepochs = 5\n[training]\nepoch = 5\nseed = '1'\nbatch_size = 0\n")
    found = problems(file=tmp_path / "s.toml", overrides=["nonsense", "lenght=3", "codec.form=free", "a.b.c=1"])
    assert found == [
        "unknown group 'trainin' (did you mean 'training'?)",
        "unknown setting 'training.epoch' (did you mean 'epochs'?)",
        "training.seed must be int, not '1'",
        "'nonsense' is not of the form key=value",
        "unknown setting 'lenght' (did you mean 'prefix.length'?)",
        "unknown group 'a.b'",
        "codec.form must be one of 'lines', 'paper', not 'free'",
        "training.batch_size must be at least 1, not 0",
    ]


def test_the_hint_lists_what_there_is():
    with pytest.raises(SettingsError) as caught:
        Settings.build(overrides=["x=1"])
    for group in dataclasses.fields(Settings):
        for key in dataclasses.fields(getattr(Settings(), group.name)):
            assert key.name in caught.value.hint


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("epochs=true", "must be int"),
        ("epochs=1.5", "must be int"),
        ("shuffle_options=1", "must be bool"),
        ("learning_rate=nan", "positive and finite"),
        ("learning_rate=inf", "positive and finite"),
        ("learning_rate=1" + "0" * 400, "positive and finite"),
        ("epochs=1" + "0" * 5000, "must be int"),
        ("noise=nan", "prefix.noise must not be negative"),
        ("weight_decay=nan", "training.weight_decay must not be negative"),
        ("clip=inf", "training.clip must not be negative or infinite"),
        ("anchor=-1", "training.anchor must not be negative"),
        ("drop_options=nan", "training.drop_options must be from 0 to 1"),
        ("seed=18446744073709551616", "training.seed must be from 0 to 9.22337e+18"),
        ("lora_dropout=1", "instruct.lora_dropout must be from 0 to less than 1"),
        ("warmup=1.1", "training.warmup must be from 0 to 1"),
        ("max_pieces=63", "at least 64"),
        ("repeats=3", "codec.repeats must be one of 1, 2"),
        ("version=2", "not known here"),
        ("length=0", "from 1 to 512"),
        ("hidden=0", "prefix.hidden must be at least 1"),
        ("window=3", "decoding.window must be at least 4, not 3"),
        ("repeats=true", "codec.repeats must be one of 1, 2, not True"),
        ("warmup_share=1.0", "transfer.warmup_share must be from 0 to less than 1"),
        ("overlap=41", "half the window (40)"),
        ("decoding.batch_size=0", "decoding.batch_size must be at least 1"),
        ("batch_size=4", "'batch_size' is ambiguous: write training.batch_size or decoding.batch_size"),
        ("epochs=" + "[" * 5000, "must be int"),
    ],
)
def test_impossible_values_are_told(override, says):
    assert says in problems(overrides=[override])[0]


def test_values_given_in_python_are_checked_too():
    for group in (CodecSettings(form="free"), CodecSettings(repeats=True)):  # type: ignore[arg-type]
        with pytest.raises(SettingsError, match=r"codec.* must be one of"):
            Settings(codec=group)


@pytest.mark.parametrize(
    ("within", "says", "inside", "outside"),
    [
        (Within(), "must not be negative or infinite", [0, 10**400], [-1, math.inf, math.nan]),
        (Within(3), "must be at least 3", [3], [2.9, -math.inf]),
        (Within(0, above=True), "must be positive and finite", [1e-300], [0, math.inf]),
        (Within(1, 2), "must be from 1 to 2", [1, 2], [0.9, 2.1]),
        (Within(1, 2, below=True), "must be from 1 to less than 2", [1, 1.9], [2]),
        (Within(1, 2, above=True), "must be above 1 and at most 2", [1.1, 2], [1]),
        (Within(1, 2, above=True, below=True), "must be between 1 and 2", [1.5], [1, 2]),
    ],
)
def test_bounds(within, says, inside, outside):
    assert str(within) == says
    assert all(map(within.has, inside))
    assert not any(map(within.has, outside))


@dataclasses.dataclass(frozen=True)
class Sails(GroupedSettings):
    """Uses a part of ``training`` only."""

    USE: ClassVar = Use("a sail", {"training": frozenset({"epochs", "seed"})})
    training: TrainingSettings = dataclasses.field(default_factory=TrainingSettings)


def test_what_has_no_effect_is_refused_where_it_was_asked_for(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text("[training]\nanchor = 3.0\npatience = 3\nepochs = 2\n")
    with pytest.raises(SettingsError) as caught:
        Sails.build(file, ["patience=3", "training.likelihood=vocabulary", "epoch=3", "training.patienze=1"])
    assert caught.value.problems == [
        f"a sail makes no use of training.anchor, which {file} sets to 3.0",  # that patience is 3 changes nothing
        "a sail makes no use of training.patience",
        "a sail makes no use of training.likelihood",
        "unknown setting 'epoch' (did you mean 'training.epochs'?)",
        "unknown setting 'training.patienze'",
    ]
    assert caught.value.hint == "Groups and keys: training: epochs, seed."
    whole = dataclasses.replace(Sails(), training=TrainingSettings(anchor=3.0, epochs=2))
    assert Sails.build(base=whole.to_dict(), overrides=["epochs=3"]).training == TrainingSettings(anchor=3.0, epochs=3)
    file.write_text(whole.to_toml())
    assert Sails.stored(file) == whole
    with pytest.raises(SettingsError, match="cannot read settings from"):
        Sails.stored(tmp_path / "none.toml")


@pytest.mark.parametrize("kind", [LanerSettings, WranerSettings, AdaptationSettings])
def test_what_methods_use_is_there_and_their_own_file_is_a_config(tmp_path, kind):
    for group, keys in kind.USE.keys.items():
        assert keys < {f.name for f in dataclasses.fields(getattr(kind(), group))}
    file = tmp_path / "s.toml"
    file.write_text(kind.build().to_toml())
    assert kind.build(file) == kind.build()


JOBS = [(DOMAIN, {}), (START, INITIAL_DEFAULTS), (INSTRUCTION, INSTRUCT_DEFAULTS)]


@pytest.mark.parametrize(("use", "own"), JOBS)
def test_a_file_of_all_defaults_is_a_config_of_every_job(tmp_path, use, own):
    file = tmp_path / "s.toml"
    for written in (Settings(), Settings.build(base=own)):
        file.write_text(written.to_toml())
        made = Settings.build(file, base=own, use=use)
        usual = Settings.build(base=own)
        for group, entries in made.to_dict().items():
            for key, value in entries.items():
                # What has no effect stays as the job has it: a record does not name what was passed over.
                wanted = written if use.has(group, key) else usual
                assert value == getattr(getattr(wanted, group), key), (group, key)


def test_a_trained_domains_settings_are_a_config_of_the_next_one_and_other_jobs_say_what_is_in_the_way(tmp_path):
    stored = Settings.build(overrides=["strategy=none", "evaluate_from=6", "dev_limit=80", "length=3"])
    file = tmp_path / "settings.toml"
    file.write_text(stored.to_toml())
    assert Settings.build(file, use=DOMAIN) == stored
    for use, own in JOBS[1:]:
        with pytest.raises(SettingsError) as caught:
            Settings.build(file, base=own, use=use)
        assert f"{use.job} makes no use of transfer.strategy, which {file} sets to 'none'" in caught.value.problems
        assert f"{use.job} makes no use of training.dev_limit, which {file} sets to 80" in caught.value.problems


def test_a_name_that_only_idle_groups_have_is_refused_and_not_called_ambiguous():
    for use, owners in ((START, "selector.alpha or instruct.alpha"), (START, "transfer.strategy")):
        with pytest.raises(SettingsError) as caught:
            Settings.build(overrides=[f"{owners.split('.')[-1]}=1"], use=use)
        assert caught.value.problems == [f"training an initial prefix makes no use of {owners}"]
    assert Settings.build(overrides=["alpha=1"], use=DOMAIN).selector.alpha == 1  # one group that is used has it


def test_a_job_may_say_what_to_do_instead():
    use = Use("a raft", {"training": frozenset({"epochs"})}, "Build a ship.")
    for asked, hint in (["seed=2"], "Build a ship."), (["seed=2", "sail=1"], "Groups and keys: "):
        with pytest.raises(SettingsError) as caught:
            Settings.build(overrides=asked, use=use)
        assert (caught.value.hint or "").startswith(hint)


@pytest.mark.parametrize("kind", [IndexSettings, WranerSettings])
def test_settings_of_another_retrieval_method_are_refused(kind):
    def told(*asked, **more):
        with pytest.raises(SettingsError) as caught:
            kind.build(overrides=asked, **more)
        return caught.value.problems

    assert told("aggregation=max", "method=random") == ["retrieval.method=random makes no use of retrieval.aggregation"]
    assert told("retrieval.seed=2") == ["retrieval.method=word makes no use of retrieval.seed"]
    assert told("method=sentence", "layer=2") == ["retrieval.method=sentence makes no use of retrieval.layer"]
    assert told("nprobe=4", "search=memory") == ["retrieval.search=memory makes no use of retrieval.nprobe"]
    bm25 = {"retrieval": {"method": "bm25", "layer": 2}}
    assert told("layer=1", base=bm25) == ["retrieval.method=bm25 makes no use of retrieval.layer"]
    for asked in (
        ["method=random", "retrieval.seed=2", "k=3"],
        ["aggregation=max", "rows=all", "candidates=4", "nprobe=4", "layer=1", "pooling=max"],
        ["method=sentence", "encoder=x", "sentence_pooling=cls"],
        ["method=bm25", "stop_words=none", "retrieval.timeout=3"],
    ):
        kind.build(overrides=asked)
    # The words of a domain that is asked otherwise can be indexed: who looks for them later says so.
    assert IndexSettings.build(overrides=["layer=1"], base=bm25, use=INDEXING).retrieval.layer == 1


@pytest.mark.parametrize(
    ("kind", "use", "asked", "refused"),
    [
        (Settings, DOMAIN, ["rank=4", "epochs=3"], "training a domain makes no use of instruct.rank"),
        (Settings, START, ["rank=4", "per_source=9"], "training an initial prefix makes no use of instruct.rank"),
        (Settings, START, ["patience=4"], "training an initial prefix makes no use of training.patience"),
        (Settings, START, ["reparametrization=mlp", "init=noise", "noise=0.1"],
         "training an initial prefix makes no use of prefix.reparametrization"),
        (Settings, INSTRUCTION, ["rank=4", "length=3"], "instruction tuning makes no use of prefix.length"),
        (AdaptationSettings, adaptation("encoder", "full"), ["lora_rank=4", "block=64", "head_steps=4", "longest_span=5"],
         "continued pre-training of all weights of an encoder makes no use of adapt.lora_rank"),
        (AdaptationSettings, adaptation("seq2seq", "lora"), ["lora_rank=4", "share=0.2", "span=4", "longest_span=5"],
         "continued pre-training of LoRA factors of a T5 makes no use of adapt.longest_span"),
    ],
)  # fmt: skip
def test_a_job_says_what_it_makes_no_use_of(kind, use, asked, refused):
    for group, keys in use.keys.items():
        assert keys < {f.name for f in dataclasses.fields(getattr(kind(), group))}
    with pytest.raises(SettingsError) as caught:
        kind.build(overrides=asked, use=use)
    assert caught.value.problems == [refused]
    assert kind.build(overrides=asked) != kind()  # another job may use it


@pytest.mark.parametrize("content", [b"\xff\xfe", b"= 1", b"a = 1" + b"0" * 5000, b"a = " + b"[" * 5000])
def test_unreadable_files_are_told(tmp_path, content):
    (tmp_path / "s.toml").write_bytes(content)
    assert problems(file=tmp_path / "s.toml")[0].startswith(f"cannot read settings from {tmp_path / 's.toml'}")


def test_missing_files_and_folders_are_told(tmp_path):
    assert "cannot read settings from" in problems(file=tmp_path / "none.toml")[0]
    assert "cannot read settings from" in problems(file=tmp_path)[0]


def test_a_base_of_odd_keys_is_told():
    assert problems(base={1: {}, "training": {2: 3}}) == ["unknown group 1", "unknown setting 'training.2'"]


def test_direct_construction_checks_values():
    with pytest.raises(SettingsError, match=r"training\.batch_size must be at least 1, not 0"):
        Settings(training=TrainingSettings(batch_size=0))


@BOUNDED
@given(st.lists(st.text() | st.from_regex(r"[a-z_.]{0,20}=.{0,20}"), max_size=3))
def test_any_override_is_used_or_refused_with_a_settings_error(overrides):
    with contextlib.suppress(SettingsError):
        assert isinstance(Settings.build(overrides=overrides), Settings)


VALUE = {int: st.integers(-2, 10**6), float: st.floats(), bool: st.booleans()}


@BOUNDED
@given(st.data())
def test_what_can_be_built_survives_toml(tmp_path_factory, data):
    group, kind = data.draw(
        st.sampled_from([("codec", CodecSettings), ("prefix", PrefixSettings), ("training", TrainingSettings)])
        | st.just(("decoding", DecodingSettings))
    )
    numbers = [f for f in dataclasses.fields(kind) if type(f.default) in VALUE]
    entry = data.draw(st.sampled_from(numbers))
    value = data.draw(VALUE[type(entry.default)])
    try:
        made = Settings.build(base={group: {entry.name: value}})
    except SettingsError:
        return
    assert not (isinstance(value, float) and not math.isfinite(value))
    path = tmp_path_factory.mktemp("settings") / "s.toml"
    path.write_text(made.to_toml())
    assert Settings.build(path) == made


@pytest.mark.parametrize(
    ("sentences", "epochs", "first", "every"),
    [(100, 12, 4, 2), (1000, 12, 4, 2), (20, 40, 12, 6), (1, 60, 20, 10)],
)
def test_few_sentences_are_read_more_often(sentences: int, epochs: int, first: int, every: int) -> None:
    planned = TrainingSettings().scheduled(sentences)
    assert (planned.epochs, planned.evaluate_from, planned.evaluate_every) == (epochs, first, every)


def test_epochs_that_are_asked_for_stay() -> None:
    asked = TrainingSettings(epochs=3)
    assert asked.scheduled(1) is asked


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["noise=0.1"], "prefix.init=instruction makes no use of prefix.noise"),
        (["prefix.hidden=8"], "prefix.reparametrization=none makes no use of prefix.hidden"),
        (["weighting=sum", "temperature=0.5"], "selector.weighting=sum makes no use of selector.temperature"),
        (["weighting=loss", "selector.pool=max"], "selector.weighting=loss makes no use of selector.pool"),
        (["weighting=loss", "selector.alpha=1"], "selector.weighting=loss makes no use of selector.alpha"),
    ],
)
def test_what_another_setting_of_its_group_makes_idle_is_refused(overrides: list[str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.build(None, overrides)
    assert caught.value.problems == [says]
    assert caught.value.hint == "Leave one of the two out."
    # The order says nothing, and what the other setting has a use for is taken.
    with pytest.raises(SettingsError):
        Settings.build(None, overrides[::-1])
    assert Settings.build(None, ["init=noise", "noise=0.1"]).prefix.noise == 0.1
    assert Settings.build(None, ["hidden=8", "reparametrization=mlp"]).prefix.hidden == 8
    assert Settings.build(None, ["weighting=loss", "temperature=0.5"]).selector.temperature == 0.5


def test_a_file_of_settings_may_hold_what_another_one_makes_idle(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[prefix]\nnoise = 0.3\nhidden = 9\n", encoding="utf-8")
    assert Settings.build(file).prefix == PrefixSettings(noise=0.3, hidden=9)
