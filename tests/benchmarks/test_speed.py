"""The speed benchmark on tiny random models: what is counted is exact, what is timed is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import speed
from benchmarks.timing import models, peer, roofline
from benchmarks.timing.forced import ForcedGrammar
from benchmarks.timing.inference import ARMS, Bench, Plan, _one_pass, first_sight
from benchmarks.timing.memory import peak_memory
from benchmarks.timing.models import ModelRecipe
from benchmarks.timing.roofline import load_of
from benchmarks.timing.stock import prefix_model
from benchmarks.timing.training import TRAINERS, _trainer
from xdner.backbone.base import Backbone
from xdner.backbone.linear import PackedLinear
from xdner.codec.instructor import Instructor
from xdner.recognizers import residents
from xdner.testing.models import save_tiny_backbone

SENTENCES = ("Ann/person Lee in Rome/place", "Rome/place", "no one", "Bo/person of the end of Rome/place", "Oslo/place")


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sentences of the domain ``towns``."""
    folder = tmp_path_factory.mktemp("speed") / "towns"
    folder.mkdir()
    lines = []
    for sentence in SENTENCES:
        pairs = [word.partition("/") for word in sentence.split()]
        lines.append("\n".join(f"{word}\t{'B-' + label if label else 'O'}" for word, _, label in pairs))
    (folder / "dev.txt").write_text("\n\n".join(lines) + "\n")
    return folder / "dev.txt"


@pytest.fixture(scope="session")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_backbone(tmp_path_factory.mktemp("speed") / "t5", "t5")


@pytest.fixture
def plan_for(file: Path) -> Callable[..., Plan]:
    def make(folder: Path, *, forced: bool = False) -> Plan:
        return Plan(ModelRecipe(str(folder)), file, 10, None, (1, 3), (1, 2), 1, forced=forced, memory=False)

    return make


def bench_for(plan: Plan) -> tuple[Backbone, Bench]:
    backbone = plan.recipe.load()
    return backbone, Bench(backbone, plan.workload(backbone), forced=plan.forced)


@pytest.mark.parametrize("domains", [1, 2, 7])
@pytest.mark.parametrize("batch", [1, 3])
def test_all_arms_under_the_grammar_write_the_same(
    plan_for: Callable[..., Plan], backbone: Path, domains: int, batch: int
) -> None:
    _, bench = bench_for(plan_for(backbone))
    done = {}
    for name in ("generate-grammar", "by-domain", "xdner"):
        bench.prepare(name, domains)
        done[name] = bench.arms[name].read(bench.items(name, domains), batch)
    ours = done["xdner"]
    assert done["by-domain"].outputs == ours.outputs
    assert done["generate-grammar"].outputs == ours.outputs[: len(SENTENCES)]
    assert len(ours.outputs) == (10 if domains == 7 else 5), "whole repetitions, until each domain has a sentence"
    assert ours.ended == len(ours.outputs)
    # Different prefixes give different results: the prefix of each sentence is really that of its domain.
    assert domains < 7 or len(set(ours.outputs)) > 2


def test_what_generate_does_is_counted(plan_for: Callable[..., Plan], backbone: Path) -> None:
    _, bench = bench_for(plan_for(backbone))
    items = bench.items("generate-grammar", 1)
    bench.prepare("generate-grammar", 1)
    for batch in (1, 2, 5):
        done = bench.arms["generate-grammar"].read(items, batch)
        order = sorted(range(len(items)), key=lambda i: (-len(items[i][0].prompt), i))
        groups = [order[first : first + batch] for first in range(0, len(order), batch)]
        # A batch goes on until its last row has ended, and its finished rows are computed all the same.
        longest = [max(len(done.outputs[i]) for i in group) for group in groups]
        assert done.calls == sum(longest)
        assert done.row_steps == sum(n * len(group) for n, group in zip(longest, groups, strict=True))
        widths = [max(len(items[i][0].prompt) for i in group) * len(group) for group in groups]
        assert done.prompt_tokens == sum(widths)
        assert done.target_tokens == sum(map(len, done.outputs))
    free = bench.arms["generate"].read(items, 1)
    assert all(len(ids) <= len(case.gold) for ids, (case, _) in zip(free.outputs, items, strict=True))


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_forced_lengths_are_those_of_the_gold_targets(
    plan_for: Callable[..., Plan], backbone: Path, t5: Path, kind: str
) -> None:
    folder = backbone if kind == "llama" else t5
    _, bench = bench_for(plan_for(folder, forced=True))
    work = bench.workload
    instructor = Instructor(work.encoder, work.codec)
    context = len(instructor.context(work.domain))
    for name in ARMS:
        bench.prepare(name, 2)
        for batch in (1, 3):
            items = bench.items(name, 2)
            done = bench.arms[name].read(items, batch)
            assert done.outputs == [case.gold for case, _ in items], name
            assert done.ended == len(items)
            if not name.startswith("generate"):
                steps = [_decisions(bench, case) for case, _ in items]
                # One call for each decision at most, the reading of the prompt included; drafts can only save some.
                assert done.row_steps <= sum(steps)
                assert done.calls <= done.row_steps
                more = -context if kind == "llama" else 1  # kept, or read with an end token by the encoder
                assert done.prompt_tokens == sum(len(case.prompt) + more for case, _ in items)


def _decisions(bench: Bench, case: Any) -> int:
    """Places of a gold target where the engine has to look at the model; the first one is always looked at."""
    work = bench.workload
    state = ForcedGrammar(work.encoder, work.domain, work.codec, work.targets()).start(case.words)
    found = 0
    for place, token in enumerate(case.gold):
        found += place == 0 or len(state.legal()) > 1
        state.advance(token)
    return found


def test_a_forced_state_knows_when_it_has_left_the_target(plan_for: Callable[..., Plan], backbone: Path) -> None:
    _, bench = bench_for(plan_for(backbone))
    work = bench.workload
    case = work.cases[0]
    grammar = ForcedGrammar(work.encoder, work.domain, work.codec, work.targets())
    right = grammar.start(case.words)
    assert right.legal().gold == case.gold[0]  # type: ignore[attr-defined]
    wrong = right.copy()
    wrong.advance(next(token for token in wrong.legal() if token != case.gold[0]))
    assert wrong.legal().gold is None  # type: ignore[attr-defined]
    assert wrong.copy().legal().gold is None  # type: ignore[attr-defined]
    right.advance(case.gold[0])
    assert right.legal().gold == case.gold[1]  # type: ignore[attr-defined]


def test_domains_differ_in_their_prefixes_and_their_bytes_are_exact(
    plan_for: Callable[..., Plan], backbone: Path
) -> None:
    model, bench = bench_for(plan_for(backbone))
    work = bench.workload
    first, second = work.keys_values(0), work.keys_values(1)
    assert all(torch.equal(a, b) for a, b in zip(first[0], work.prefix.keys, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(second[1], work.keys_values(1)[1], strict=True))
    bench.prepare("xdner", 1)
    a_key = sum(s.heads * s.head_dim for s in model.sites)
    context = len(Instructor(work.encoder, work.codec).context(work.domain))
    assert bench.ours.bytes_per_domain() == {
        "prefix": 2 * 4 * a_key * work.prefix.length,
        "context": 2 * 4 * a_key * context,
        "context_tokens": context,
        "prefix_stored": 2 * 2 * a_key * work.prefix.length,
    }


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_stock_model_has_the_very_same_weights(
    plan_for: Callable[..., Plan], backbone: Path, t5: Path, kind: str
) -> None:
    model, bench = bench_for(plan_for(backbone if kind == "llama" else t5))
    own = {p.data_ptr() for p in model.model.parameters()}
    trained = prefix_model(model, 2, trained=True)
    for stock in (bench.stock.model.get_base_model(), trained.get_base_model()):
        assert {p.data_ptr() for p in stock.parameters()} == own
        assert stock.config._attn_implementation == "sdpa"
    assert model.model.config._attn_implementation == "xdner"
    ours = dict(model.model.named_modules())
    packed = [name for name, module in ours.items() if isinstance(module, PackedLinear)]
    assert len(packed) == {"llama": 21, "t5": 2 * (4 + 2) + 2 * (8 + 2)}[kind]
    for stock in (bench.stock.model.get_base_model(), trained.get_base_model()):
        theirs = dict(stock.named_modules())
        assert [type(theirs[name]) for name in packed] == [nn.Linear] * len(packed), "our faster layers are ours alone"
        assert all(theirs[name].weight is ours[name].weight for name in packed)
        assert not any(isinstance(module, PackedLinear) for module in stock.modules())


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_tokens_of_training_are_counted(plan_for: Callable[..., Plan], backbone: Path, t5: Path, kind: str) -> None:
    plan = plan_for(backbone if kind == "llama" else t5)
    model = plan.recipe.load()
    work = plan.workload(model)
    context = len(Instructor(work.encoder, work.codec).context(work.domain))
    prompts, golds = sum(len(c.prompt) for c in work.cases), sum(len(c.gold) for c in work.cases)
    _, steps, tokens = _trainer("trainer", model, work, 1).run()
    # One sentence at a time there is no padding; T5's encoder reads an end token.
    assert steps == len(work.cases)
    assert tokens == prompts + golds + (len(work.cases) if kind == "t5" else 0)
    _, steps, tokens = _trainer("xdner", model, work, 2).run()
    if kind == "t5":
        assert tokens == prompts + golds + len(work.cases)
    else:  # the context once a step, and the last target token not at all
        assert tokens == prompts + golds - len(work.cases) - context * (len(work.cases) - steps)


def test_operations_are_those_of_the_linear_layers(plan_for: Callable[..., Plan], backbone: Path, t5: Path) -> None:
    llama = plan_for(backbone).recipe.load()
    ((layers, rows),) = load_of(llama, 5, 2)
    # Three layers: q, k, v, o and three of the feed-forward part; 48 wide, 64 inside, 4 heads of 16, half as many keys.
    assert rows == 7
    assert sum(m.weight.numel() for m in layers) == 3 * (48 * 64 * 2 + 48 * 32 * 2 + 3 * 48 * 64)
    (reading, read), (writing, written) = load_of(plan_for(t5).recipe.load(), 5, 2)
    assert (read, written) == (5, 2)
    attention, feed = 4 * 32 * 48, 2 * 32 * 64
    assert sum(m.weight.numel() for m in reading) == 2 * (attention + feed) + 2 * (attention // 2)
    assert sum(m.weight.numel() for m in writing) == 2 * (attention + attention // 2 + feed)


# -- the program ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def program(
    file: Path, backbone: Path, t5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    monkeypatch.setattr(models, "T5_SHAPES", {"tiny": {"num_layers": 2}})
    for key in ("vocab_size", "hidden_size", "intermediate_size"):
        monkeypatch.setitem(peer.ENCODER, key, 384)  # where gliner is installed, a small one will do
    monkeypatch.setattr(roofline, "SQUARE", 32)
    monkeypatch.setattr(roofline, "LARGE", 1 << 18)

    def run(*more: str) -> int:
        return speed.main([
            "--backbone", str(backbone), "--data", str(file), "--sentences", "3", "--batch", "2", "--domains", "1", "2",
            "--rounds", "2", "--no-memory", "--t5-shapes", "tiny", "--t5-domains", "1", "--training-batch", "2",
            "--stored", "7", "--out", str(tmp_path / "speed.json"), "--history", str(tmp_path / "history.jsonl"), *more,
        ])  # fmt: skip

    return run


def test_a_run_prints_its_tables_and_writes_all_of_them(
    program: Callable[..., int], t5: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--t5-tokenizer", str(t5)) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "speed.json").read_text())
    parts = {"inference", "peer", "t5", "training", "roofline", "store"}
    assert set(found) == {"asked", "date", "commit", "machine", "versions", *parts}
    for part, forced in ((found["inference"], False), (found["t5"][0], True)):
        assert part["forced"] is forced
        for cell in part["cells"]:
            assert set(cell["arms"]) == {n for n in ARMS if cell["domains"] > 1 or n not in ("by-domain", "one-domain")}
            for arm in cell["arms"].values():
                assert len(arm["seconds"]) == 2
                rates = arm["sentences_per_second"]
                assert 0 < rates["low"] <= rates["median"] <= rates["high"]
                assert 0 < arm["cold_sentences_per_second"] < rates["high"]
                assert 0 < arm["first_result_seconds"] <= max(arm["seconds"])
                assert arm["target_tokens_per_sentence"] > 0
            assert cell["arms"]["generate-grammar"]["same_as_xdner"] == 1
    assert [(c["domains"], c["batch"]) for c in found["inference"]["cells"]] == [(1, 2), (2, 2)]
    assert set(found["training"]["arms"]) == set(TRAINERS)
    assert set(found["roofline"]["work"]) == {"prefill", "decoding", "training"}
    for name in (*ARMS.values(), *TRAINERS.values()):
        assert f"| {name} |" in printed
    for title in ("## Reading: ", "## Reading, random weights: t5-tiny", "## Training a prefix", "## Roofline"):
        assert title in printed
    assert program("--table", "--data", "nowhere") == 0
    assert capsys.readouterr().out == printed


def test_only_what_was_asked_for_is_measured(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--only", "roofline", "--threads", "1") == 0
    found = json.loads((tmp_path / "speed.json").read_text())
    assert set(found) == {"asked", "date", "commit", "machine", "versions", "roofline"}
    assert found["roofline"]["threads"] == 1
    assert "## Reading" not in capsys.readouterr().out


def test_arms_can_be_left_out(program: Callable[..., int], tmp_path: Path) -> None:
    assert tuple(ARMS) == speed.ARMS
    assert program("--only", "inference", "--arms", "one-domain") == 0
    one, two = json.loads((tmp_path / "speed.json").read_text())["inference"]["cells"]
    assert (list(one["arms"]), list(two["arms"])) == (["xdner"], ["xdner", "one-domain"])


def test_a_second_measurement_stands_beside_the_first(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    history = tmp_path / "history.jsonl"
    assert program("--only", "inference") == 0
    assert "## History" not in capsys.readouterr().out
    assert program("--only", "inference", "--dtype", "bfloat16") == 0
    assert "## History" not in capsys.readouterr().out, "another type does not compare"
    assert program("--only", "inference") == 0
    printed = capsys.readouterr().out
    first, other, second = (json.loads(line) for line in history.read_text().splitlines())
    assert first["asked"] == second["asked"] != other["asked"]
    name = next(n for n in second["figures"] if n.endswith("domains 2 batch 2: faster than (a) generate, peft"))
    cell = json.loads((tmp_path / "speed.json").read_text())["inference"]["cells"][1]["arms"]
    ours, theirs = (cell[arm]["sentences_per_second"]["median"] for arm in ("xdner", "generate"))
    assert second["figures"][name] == pytest.approx(ours / theirs, abs=1e-4)
    assert f"| {name} | {first['figures'][name]:.2f} | {second['figures'][name]:.2f} |" in printed
    history.write_text("{}\n")
    assert program("--table") == 1
    assert "history.jsonl:1: no line of a history" in capsys.readouterr().err


def test_measurements_of_other_data_do_not_compare(
    program: Callable[..., int],
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = tmp_path / "history.jsonl"
    short = ("--only", "inference", "--domains", "1", "--arms", "xdner", "--rounds", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert program(*short) == 0
    line = json.loads(history.read_text())
    assert line["asked"]["data"] == "towns/dev.txt"
    assert line["asked"]["data_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert line["machine"]["OMP_WAIT_POLICY"] == "PASSIVE"
    # A line as it was written before data was recorded: readable, and compared with nothing.
    old = json.loads(history.read_text())
    del old["asked"]["data"], old["asked"]["data_sha256"], old["machine"]["OMP_WAIT_POLICY"]
    history.write_text(json.dumps(old) + "\n" + json.dumps(line) + "\n")
    elsewhere = tmp_path / "villages" / "dev.txt"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(file.read_bytes())
    assert program(*short, "--data", str(elsewhere)) == 0
    other = tmp_path / "towns" / "dev.txt"
    other.parent.mkdir()
    other.write_text(file.read_text().replace("Ann", "Eve"))
    assert program(*short, "--data", str(other)) == 0
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert program(*short) == 0
    assert "## History" not in capsys.readouterr().out, "another folder, other bytes, threads that wait otherwise"
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    assert program(*short) == 0
    table = capsys.readouterr().out.partition("## History")[2]
    (row,) = [line for line in table.splitlines() if "sentences/s" in line]
    assert row.count("|") == 4, "this measurement and the one like it"


def test_a_store_is_read_from_disk_from_files_and_from_memory(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(residents, "size_of", lambda ready: 400_000)  # so that two fit into a megabyte
    assert program("--only", "store", "--resident-mb", "1") == 0
    store = json.loads((tmp_path / "speed.json").read_text())["store"]
    assert (store["domains"], store["sentences"], store["budget"], store["bytes_ready"]) == (7, 3, 1_000_000, 400_000)
    first, again, resident = store["passes"].values()
    assert (first["domains"], first["made"], first["mapped"]) == (3, 3, 0)
    assert (again["domains"], again["made"], again["mapped"]) == (3, 0, 3)
    assert (resident["domains"], resident["made"], resident["mapped"]) == (1, 0, 0)
    assert all(work["bytes_in_memory"] <= store["budget"] for work in store["passes"].values())
    assert "## A store of 7 domains" in capsys.readouterr().out


def test_mistakes_are_told_before_anything_is_measured(
    program: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program("--only", "t5") == 1
    assert "T5 needs a tokenizer\n  → Give its folder with --t5-tokenizer." in capsys.readouterr().err
    assert program("--t5-shapes", "small") == 1
    assert "unknown shape of T5: small\n  → Known are tiny." in capsys.readouterr().err
    assert program("--only", "t5", "--t5-tokenizer", str(tmp_path)) == 1
    assert "cannot read a T5 tokenizer and configuration" in capsys.readouterr().err
    assert program("--data", str(tmp_path / "nothing.txt")) == 1
    assert "nothing.txt: No such file or directory\n  → Name a labeled file with --data." in capsys.readouterr().err
    long = tmp_path / "long.txt"
    long.write_text("Ann\tB-person\n" + "word\tO\n" * 200)
    assert program("--data", str(long)) == 1
    assert "long.txt has from 1 to 80 words" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peak memory is read from Linux' /proc")
def test_peak_memory_is_that_of_a_process_of_its_own(plan_for: Callable[..., Plan], backbone: Path) -> None:
    found = peak_memory("cpu", _one_pass, plan_for(backbone), "xdner", 2, 2)
    assert found is not None
    assert 0 <= found["above_model"] < found["peak"]


def test_making_prefixes_up_is_in_no_arms_time(
    plan_for: Callable[..., Plan], backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user's prefixes are there; noise that tells domains of a stream apart is the benchmark's."""

    class Watch:
        running = False

        def now(self) -> float:
            self.running = not self.running
            return 0.0

    _, bench = bench_for(plan_for(backbone))
    watch, make, seen = Watch(), bench.workload.keys_values, list[bool]()
    monkeypatch.setattr(bench.workload, "keys_values", lambda domain: seen.append(watch.running) or make(domain))
    for arm in (bench.stock, bench.ours):
        monkeypatch.setattr(arm, "clock", watch)
    for name in ("generate", "xdner"):
        bench.prepare(name, 2)
    assert seen == [False] * 4


def test_a_stream_in_one_domain_sees_one_domain_for_the_first_time() -> None:
    prepared = {"generate": 3.0, "xdner": 8.0}
    assert {name: first_sight(name, 4, prepared) for name in ARMS} == {
        "generate": 3.0, "generate-grammar": 3.0, "by-domain": 8.0, "xdner": 8.0, "one-domain": 2.0,
    }  # fmt: skip
