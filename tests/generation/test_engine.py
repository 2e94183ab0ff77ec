"""The engine against the plainest possible decoding: one row, one token, the whole prompt read again every time."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest
import torch

from xdner.backbone.base import Backbone, Extent, Ids, Session
from xdner.backbone.causal import CausalBackbone
from xdner.backbone.store import PrefixRows
from xdner.backbone.t5 import T5Backbone
from xdner.codec.grammar import Grammar, GrammarState
from xdner.codec.instructor import Instructor
from xdner.codec.words import WordEncoder
from xdner.domain import Domain
from xdner.generation import engine as engine_file
from xdner.generation.engine import SMALL, Engine
from xdner.generation.jobs import Generated, Job, More, Steering, length_of
from xdner.settings import CodecSettings
from xdner.testing.models import tiny_causal, tiny_t5
from xdner.testing.tokenizers import byte_level_tokenizer, t5_like_tokenizer
from xdner.text import Sentence

DOMAINS = [
    Domain.from_labels("people", ["person", "place"]),
    Domain.from_labels("music", ["genre", "band", "bandleader"]),
]
TEXTS = ["the inner tern", "a", "on the pier the pier", "in tones, other tones", "x y z x y"]


def backbone_of(kind: str) -> Backbone:
    if kind == "t5":
        return T5Backbone(tiny_t5("t5"), t5_like_tokenizer())
    return CausalBackbone(tiny_causal(kind), byte_level_tokenizer())


def jobs_for(backbone: Backbone, form: str, order: str) -> list[Job]:
    """Two domains with prefixes of different lengths, all texts in both. Which words look like names is drawn: some
    drafts go on, some close, and most are wrong."""
    drawn = random.Random(1)
    encoder = WordEncoder(backbone.tokenizer)
    settings = CodecSettings(form=form, order=order, repeats=1)  # type: ignore[arg-type]
    made = []
    for index, domain in enumerate(DOMAINS):
        generator = torch.Generator().manual_seed(index)
        shapes = [(s.heads, 2 + 3 * index, s.head_dim) for s in backbone.sites]
        keys, values = ([torch.randn(s, generator=generator) for s in shapes] for _ in range(2))
        instructor, grammar = Instructor(encoder, settings), Grammar(encoder, domain, settings)
        context = backbone.read_context(instructor.context(domain), PrefixRows.stack([(keys, values)], [0]))
        steering = Steering(keys, values, context)
        for text in TEXTS:
            words = encoder.words(Sentence.from_text(text))
            names = [drawn.random() < 0.5 for _ in words]
            made.append(Job(instructor.source(words), grammar.start(words), steering, room=40, names=names))
    random.Random(0).shuffle(made)
    return made


def plain(backbone: Backbone, job: Job) -> tuple[list[int], list[float], float]:
    """Greedy over legal tokens; also the smallest margin between the best two, below which a tie may fall either way."""
    state: GrammarState = job.state.copy()
    prefix = PrefixRows.stack([(job.steering.keys, job.steering.values)], [0])
    ids: list[int] = []
    scores: list[float] = []
    margin = float("inf")
    while not state.done and len(ids) < job.room:
        legal = list(state.legal())
        states = backbone.target_states([job.source], [[*ids, 0]], prefix, job.steering.context)
        logits = backbone.logits(states[-1:], legal)[0]
        if len(legal) > 1:
            best = logits.topk(2).values
            margin = min(margin, float(best[0] - best[1]))
        choice = int(logits.argmax())
        scores.append(float(logits.softmax(0)[choice]))
        ids.append(legal[choice])
        state.advance(legal[choice])
    return ids, scores, margin


@pytest.mark.parametrize("kind", ["llama", "gemma3", "t5"])
@pytest.mark.parametrize(
    ("form", "order"), [("lines", "mention-first"), ("lines", "type-first"), ("paper", "type-first")]
)
def test_batches_equal_plain_greedy_decoding(kind: str, form: str, order: str) -> None:
    backbone = backbone_of(kind)
    jobs = jobs_for(backbone, form, order)
    generated = Engine(backbone, batch_size=4).run(jobs)
    compared = 0
    for job, output in zip(jobs, generated, strict=True):
        ids, scores, margin = plain(backbone, job)
        if margin < 1e-4:
            continue
        compared += 1
        assert list(output.ids) == ids
        assert output.probabilities == pytest.approx(scores, abs=1e-4)
    assert compared >= len(jobs) - 2


def test_results_do_not_depend_on_the_batch() -> None:
    backbone = backbone_of("llama")
    jobs = jobs_for(backbone, "lines", "mention-first")
    one = Engine(backbone, batch_size=1).run(jobs)
    many = Engine(backbone, batch_size=len(jobs)).run(jobs)
    assert [r.ids for r in one] == [r.ids for r in many]


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_waiting_rows_take_the_places_of_finished_ones(kind: str) -> None:
    backbone = backbone_of(kind)
    jobs = jobs_for(backbone, "lines", "mention-first") * 3
    alone = [Engine(backbone, batch_size=1).run([job])[0] for job in jobs[:10]] * 3
    engine = Engine(backbone, batch_size=5)
    for job, output, expected in zip(jobs, engine.run(jobs), alone, strict=True):
        if plain(backbone, job)[2] >= 1e-4:
            assert output.ids == expected.ids
    # Batch after batch, each would take as many calls as its longest row.
    steps = sorted(_steps(backbone, job) for job in jobs)
    batches = sum(max(steps[i : i + 5]) for i in range(0, len(steps), 5))
    assert engine.counts.row_steps == sum(steps)
    assert engine.counts.calls <= batches + len(jobs) // 2


def _steps(backbone: Backbone, job: Job) -> int:
    """Model calls for one job by itself."""
    engine = Engine(backbone, batch_size=1)
    engine.run([job])
    return engine.counts.calls


def test_forced_runs_take_one_step_and_are_counted() -> None:
    backbone = backbone_of("llama")
    jobs = jobs_for(backbone, "lines", "mention-first")
    engine = Engine(backbone, batch_size=len(jobs))
    generated = engine.run(jobs)
    counts = engine.counts
    assert counts.target_tokens == sum(len(g.ids) for g in generated)
    assert counts.prompt_tokens == sum(len(j.source) for j in jobs)
    taken = sum(probability < 1.0 for g in generated for probability in g.probabilities)
    assert taken < counts.target_tokens, "some tokens must have been forced"
    # A step takes at least one decision of every row in it, and one more for every guess that was right.
    assert counts.row_steps <= taken + len(jobs) - counts.accepted
    assert counts.calls <= counts.row_steps
    assert counts.calls < max(len(g.ids) for g in generated) + 1
    assert counts.decisions < counts.target_tokens


def test_on_a_processor_jobs_of_unlike_room_share_their_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room that is not written is no memory there. Prompts of unlike length are read apart as before."""
    backbone = backbone_of("llama")
    jobs = jobs_for(backbone, "lines", "mention-first")
    jobs = [replace(job, room=job.room * (40 if i % 2 else 1)) for i, job in enumerate(jobs)]
    longest = max(len(job.source) for job in jobs)
    extents: list[Extent] = []

    def noted(extent: Extent) -> Session:
        extents.append(extent)
        return begin(extent)

    begin = backbone.begin
    monkeypatch.setattr(backbone, "begin", noted)
    Engine(backbone, batch_size=4, choose=by_checksum).run(jobs)
    assert [(e.rows, e.room) for e in extents] == [(4, max(job.room for job in jobs))]
    extents.clear()
    monkeypatch.setattr(engine_file, "SMALL", 1)
    long = replace(jobs[0], source=[*jobs[0].source] * 6)
    Engine(backbone, batch_size=4, choose=by_checksum).run([*jobs, long])
    assert [e.source for e in extents] == [6 * len(jobs[0].source), longest]


def by_checksum(backbone: Backbone, states: torch.Tensor, legal: Sequence[Ids]) -> list[tuple[int, float]]:
    """Decisions that depend on the legal tokens alone: what the engine does with them is the same on every machine."""
    ordered = [sorted(ids) for ids in legal]
    return [(ids[zlib.crc32(repr(ids).encode()) % len(ids)], 1.0) for ids in ordered]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # Ten jobs, long ones first, in four slots. New rows are read in the pass of those that go on.
        (
            "llama",
            {"calls": 10, "row_steps": 34, "fed_tokens": 169, "target_tokens": 163, "drafted": 27, "accepted": 11},
        ),
        ("t5", {"calls": 9, "row_steps": 35, "fed_tokens": 176, "target_tokens": 84, "drafted": 28, "accepted": 5}),
    ],
)
def test_the_same_jobs_take_the_same_passes(kind: str, expected: dict[str, int]) -> None:
    backbone = backbone_of(kind)
    jobs = jobs_for(backbone, "lines", "mention-first")
    engine = Engine(backbone, batch_size=4, choose=by_checksum)
    engine.run(jobs)
    assert asdict(engine.counts).items() >= expected.items()


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_a_pass_reads_no_more_prompts_than_are_good_for_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others come in while the first ones go on. An encoder reads the context with every prompt, and it counts."""
    backbone = backbone_of(kind)
    jobs = jobs_for(backbone, "lines", "mention-first")
    again = len(jobs[0].steering.context.ids) if kind == "t5" else 0
    assert again > 0 or kind == "llama"
    longest = again + max(len(job.source) for job in jobs)
    entered: list[list[int]] = []

    def noted(self: Engine, session: object, runs: Sequence[Ids], new: Sequence[Job]) -> torch.Tensor:
        if new:
            entered.append([again + len(job.source) for job in new])
        return own(self, session, runs, new)

    own = Engine._pass
    monkeypatch.setattr(Engine, "_pass", noted)
    passes, results = [], []
    for most in (len(jobs) * longest, 2 * longest, 1):
        monkeypatch.setattr(engine_file, "PASS", most)
        entered.clear()
        results.append([output.ids for output in Engine(backbone, batch_size=len(jobs), choose=by_checksum).run(jobs)])
        passes.append([*entered])
    assert results[0] == results[1] == results[2]
    assert [len(part) for part in passes[0]] == [len(jobs)]
    assert all(sum(part) <= 2 * longest for part in passes[1])
    assert len(passes[1]) < len(jobs)
    assert [len(part) for part in passes[2]] == [1] * len(jobs)  # one prompt is always read, however long


@pytest.mark.parametrize("kind", ["llama", "t5"])
@pytest.mark.parametrize(
    ("form", "order"), [("lines", "mention-first"), ("lines", "type-first"), ("paper", "type-first")]
)
def test_right_guesses_save_steps_and_wrong_ones_change_nothing(kind: str, form: str, order: str) -> None:
    backbone = backbone_of(kind)
    jobs = jobs_for(backbone, form, order)
    expected = [plain(backbone, job) for job in jobs]
    right = wrong = 0
    for hint in (False, True, None):
        hinted = jobs if hint is None else [replace(job, names=[hint] * len(job.names)) for job in jobs]
        engine = Engine(backbone, batch_size=4)
        generated = engine.run(hinted)
        for (ids, _, margin), output in zip(expected, generated, strict=True):
            assert margin < 1e-4 or list(output.ids) == ids
        taken = sum(_decisions(job, output) for job, output in zip(jobs, generated, strict=True))
        counts = engine.counts
        right += counts.accepted
        wrong += counts.drafted - counts.accepted
        # Each step takes a decision and one more for every right guess; a draft to the end of the target has no last one.
        assert taken <= counts.row_steps + counts.accepted <= taken + len(jobs)
    assert right > 0
    assert wrong > 0


def _decisions(job: Job, output: Generated) -> int:
    """Choices that a target needs: the first token, and every one that is not forced by those before it."""
    state, count = job.state.copy(), 0
    for place, token in enumerate(output.ids):
        count += place == 0 or len(state.legal()) > 1
        state.advance(token)
    return count


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_what_has_ended_is_given_while_others_go_on(kind: str) -> None:
    backbone = backbone_of(kind)
    jobs = jobs_for(backbone, "lines", "mention-first")
    whole = Engine(backbone, batch_size=4, choose=by_checksum)
    expected = whole.run(jobs)
    engine = Engine(backbone, batch_size=4, choose=by_checksum)
    calls, found = [], {}
    for index, generated in engine.stream(jobs):
        assert not torch.is_inference_mode_enabled(), "who reads the stream is in no mode of the engine's"
        calls.append(engine.counts.calls)
        found[index] = generated
    assert [found[i] for i in range(len(jobs))] == expected
    assert engine.counts == whole.counts
    assert calls == sorted(calls)
    assert calls[0] < engine.counts.calls // 2
    assert len(set(calls)) > 3


def test_a_job_without_room_is_cut_and_says_so() -> None:
    backbone = backbone_of("llama")
    job = jobs_for(backbone, "lines", "type-first")[0]
    cut = Engine(backbone).run([Job(job.source, job.state, job.steering, room=1)])[0]
    whole = Engine(backbone).run([job])[0]
    assert len(cut.ids) == 1
    assert cut.ids == whole.ids[:1]
    assert cut.complete == (len(whole.ids) == 1)


def test_progress_is_reported_and_order_kept() -> None:
    backbone = backbone_of("llama")
    jobs = jobs_for(backbone, "lines", "mention-first")
    seen: list[int] = []
    Engine(backbone, batch_size=3).run(jobs, done=seen.append)
    assert seen == list(range(1, 11))
    assert Engine(backbone).run([]) == []


def joining(jobs: Sequence[Job], at: Sequence[int], engine: Engine) -> tuple[More, list[tuple[int, int]]]:
    """Brings each job once so many model calls were made; and what was asked for, with the calls made by then."""
    left, asked = list(zip(at, jobs, strict=True)), []

    def more(places: int) -> list[Job]:
        asked.append((engine.counts.calls, places))
        come = [job for call, job in left if call <= engine.counts.calls][:places]
        del left[: len(come)]
        return come

    return more, asked


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_jobs_join_those_that_are_being_read(kind: str) -> None:
    backbone = backbone_of(kind)
    jobs = jobs_for(backbone, "lines", "mention-first")
    expected = Engine(backbone, choose=by_checksum).run(jobs)
    engine = Engine(backbone, batch_size=4, choose=by_checksum)
    more, asked = joining(jobs[2:], [0, 1, 1, 1, 3, 4, 4, 9], engine)
    found = list(engine.stream(jobs[:2], more=more))
    assert dict(found) == dict(enumerate(expected)), "numbered as they came, and read as alone"
    assert len(found) == len(jobs)
    assert all(0 < places <= 4 for _, places in asked)
    apart = Engine(backbone, batch_size=4, choose=by_checksum)
    for job in jobs:
        apart.run([job])
    assert engine.counts.row_steps == apart.counts.row_steps
    assert engine.counts.calls < apart.counts.calls // 2, "in the same calls, not one after another"


def test_who_has_no_room_in_the_batch_waits_for_its_end_and_nobody_passes() -> None:
    backbone = backbone_of("llama")
    jobs = jobs_for(backbone, "lines", "mention-first")
    long = replace(jobs[1], room=2 * SMALL)
    assert length_of(long) > 2 * SMALL
    engine = Engine(backbone, batch_size=4, choose=by_checksum)
    more, asked = joining([long, jobs[2], jobs[3]], [1, 1, 3], engine)
    ends = {index: engine.counts.calls for index, _ in engine.stream(jobs[:1], more=more)}
    assert sorted(ends) == [0, 1, 2, 3]
    alone = Engine(backbone, choose=by_checksum)
    alone.run([long])
    assert ends[1] - max(ends[0], ends[2]) >= alone.counts.calls, "it was begun when the others had ended"
    between = [call for call, _ in asked if 1 < call < max(ends[0], ends[2])]
    assert between == [], "from then on nobody was asked for, so that the batch ends"
    assert ends[3] > max(ends[0], ends[2]), "who comes later joins the one that waited"
    whole = Engine(backbone, choose=by_checksum).run([jobs[0], long, jobs[2], jobs[3]])
    more, _ = joining([long, jobs[2], jobs[3]], [1, 1, 3], again := Engine(backbone, batch_size=4, choose=by_checksum))
    assert [g for _, g in sorted(again.stream(jobs[:1], more=more), key=lambda pair: pair[0])] == whole


def test_nobody_joins_where_others_wait_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long jobs have slots of their own, and the short ones behind them are not kept waiting by who comes later."""
    backbone = backbone_of("llama")
    monkeypatch.setattr(engine_file, "SMALL", 1)
    jobs = sorted(jobs_for(backbone, "lines", "mention-first"), key=lambda job: -len(job.source))
    long = replace(jobs[0], source=jobs[0].source * 8)
    engine = Engine(backbone, batch_size=2, choose=by_checksum)
    more, asked = joining([jobs[-2]], [0], engine)
    ends = {index: engine.counts.calls for index, _ in engine.stream([jobs[-1], long], more=more)}
    assert next(iter(ends)) == 1
    assert asked[0][0] >= ends[1], "nobody was asked for until the long one had ended"
    assert sorted(ends) == [0, 1, 2]
