"""Instruction tuning on prompts: what an item's prompt holds, the paper's regularization, and a run that learns, resumes bit
for bit and leaves the model as it was."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from xdner.backbone.causal import CausalBackbone
from xdner.domain import Domain
from xdner.errors import DomainError, SettingsError, TrainingError, TrainingInterrupted
from xdner.prompting.settings import WranerSettings
from xdner.prompting.template import Template
from xdner.retrieval.base import Example, Hit, Keys, Retriever
from xdner.testing.examples import SHORT, people, shared_words
from xdner.testing.models import tiny_causal
from xdner.testing.tokenizers import byte_level_tokenizer
from xdner.text import Sentence
from xdner.training.progress import SilentProgress
from xdner.training.prompt_task import PromptTask, duplicated, with_types_removed
from xdner.training.run import Run
from xdner.training.sources import LabelledSource
from xdner.training.tuning import prompt_items, tune

TEMPLATE = Template.parse(SHORT)
PEOPLE = LabelledSource(Domain.from_corpus("people", people()), people())


def quick(*overrides: str) -> WranerSettings:
    few = [
        "epochs=2",
        "training.batch_size=4",
        "accumulation=1",
        "rank=4",
        "retrieval.k=2",
        "learning_rate=0.02",
        *overrides,
    ]
    return WranerSettings.build(None, few)


def backbone() -> CausalBackbone:
    return CausalBackbone(tiny_causal(), byte_level_tokenizer())


def task_of(settings: WranerSettings, sources: Sequence[LabelledSource] = (PEOPLE,)) -> PromptTask:
    model = backbone()
    items = prompt_items(sources, settings, shared_words)
    return PromptTask(model, items, TEMPLATE, settings, parameters=dict(model.model.named_parameters()))


def text_of(task: PromptTask, ids: Sequence[int]) -> str:
    return task.encoder.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def test_an_items_prompt_has_its_types_its_demonstrations_and_its_answer() -> None:
    task = task_of(quick())
    item = task.items[0]
    prompt, answer, _, shown = task.prompt(item, item.domain)
    text = text_of(task, prompt)
    assert shown == 2
    assert text.startswith("person;place;\n")
    assert text.endswith("Ann saw Rome . =")
    assert text.count('{" person": [" ') == 2
    assert "Ann saw Rome . = {" not in text  # it is not its own demonstration
    assert text_of(task, answer[:-1]).strip() == '{" person": [" Ann"], " place": [" Rome"]}'
    assert task.lengths()[0] == len(prompt) + len(answer)


def test_a_removed_type_is_in_no_option_and_no_answer() -> None:
    task = task_of(quick("duplicate=1.0", "remove=0.5"))
    half = len(task.items) // 2
    assert [i.reduced for i in task.items] == [False] * half + [True] * half
    seen = set()
    for step in range(6):
        view = task.view(task.items[half], random.Random(step))
        assert len(view.labels) == 1
        prompt, answer, target, _ = task.prompt(task.items[half], view)
        gone = ({"person", "place"} - set(view.label_names)).pop()
        assert gone not in text_of(task, prompt) + text_of(task, answer)
        assert target.reasons == {"unknown-label": 1}
        seen.add(gone)
    assert seen == {"person", "place"}


def test_types_are_shuffled_at_the_rate_that_is_set() -> None:
    domain = Domain.from_labels("many", [f"t{i}" for i in range(8)])
    source = LabelledSource(domain, [Sentence.from_words(["Ann"], [(0, 1, "t0")])])
    for share in (0.0, 0.5, 1.0):
        task = task_of(quick(f"shuffle={share}"), [source])
        views = [task.view(task.items[0], random.Random(i)) for i in range(300)]
        changed = sum(v.label_names != domain.label_names for v in views)
        assert all(set(v.label_names) == set(domain.label_names) for v in views)
        assert abs(changed / 300 - share) < 0.1


def test_duplicates_are_a_seeded_share() -> None:
    items = prompt_items([PEOPLE], quick("duplicate=0"), shared_words)
    assert len(items) == 12
    more = duplicated(items, 0.5, seed=1)
    assert len(more) == 18
    assert more == duplicated(items, 0.5, seed=1) != duplicated(items, 0.5, seed=2)
    one = Domain.from_labels("one", ["x"])
    assert with_types_removed(one, 1.0, random.Random(0)) is one
    many = Domain.from_labels("many", list("abcd"))
    assert all(
        1 <= len(with_types_removed(many, s, random.Random(i)).labels) < 4 for s in (0, 0.5, 1) for i in range(20)
    )


def test_demonstrations_that_do_not_fit_are_left_out() -> None:
    wide, narrow = task_of(quick()), task_of(quick("max_pieces=140"))
    item = narrow.items[0]
    prompt, answer, _, shown = narrow.prompt(item, item.domain)
    assert shown < 2
    assert len(prompt) + len(answer) <= 140
    best = item.demonstrations[0].text.split()[0]
    assert shown == 0 or best in text_of(narrow, prompt)
    assert wide.prompt(item, item.domain)[3] == 2


def test_a_sentence_that_is_too_long_is_learned_in_windows() -> None:
    words = ["Ann", "Lee", "saw", "Rome", "."] * 32
    # Mentions of two words: no border cuts one.
    spans = [(i, i + 2, "person") if i % 5 == 0 else (i, i + 1, "place") for i in range(160) if i % 5 in (0, 3)]
    long = LabelledSource(PEOPLE.domain, [*PEOPLE.sentences, Sentence.from_words(words, spans)])
    task = task_of(quick("max_pieces=300", "duplicate=0"), [long])
    assert max(task.lengths()) <= task.limit == 300
    windows = task.items[len(PEOPLE.sentences) :]
    assert len(windows) > 2
    assert [w.text for item in windows for w in item.sentence.words] == words
    assert sum(len(item.sentence.entities) for item in windows) == len(spans)
    with pytest.raises(TrainingError, match=r"types of 'many' and one word is longer than 64 tokens"):
        task_of(
            quick("max_pieces=64"),
            [LabelledSource(Domain.from_labels("many", [f"kind{i}" for i in range(30)]), people()[-1:])],
        )


def test_a_mention_longer_than_a_window_is_counted_as_lost() -> None:
    words = [f"part{i}" for i in range(120)]
    long = LabelledSource(
        PEOPLE.domain, [*PEOPLE.sentences, Sentence.from_words(words, [(0, 110, "place"), (115, 116, "place")])]
    )
    task = task_of(quick("max_pieces=300", "duplicate=1"), [long])
    assert task.cut == 1
    made = tune(backbone(), [long], quick("epochs=1", "max_pieces=300", "duplicate=1"), TEMPLATE, shared_words)
    assert made.lost == {"longer than a window": 1}


def test_the_loss_is_on_the_answer_only() -> None:
    task = task_of(quick("shuffle=0", "training.likelihood=vocabulary"))
    item = task.items[0]
    prompt, answer, _, _ = task.prompt(item, item.domain)
    loss = task.loss([0], random.Random(0))
    logits = task.backbone.logits(task.backbone.target_states([prompt], [answer], task.backbone.empty_prefix()))
    assert logits.shape[0] == len(answer)
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
    torch.testing.assert_close(loss, expected)
    other = task_of(quick("shuffle=0"))  # the grammar's: over the legal tokens, where there is a choice
    assert other.loss([0], random.Random(0)) < loss


@pytest.mark.parametrize(("likelihood", "share"), [("grammar", 0.85), ("vocabulary", 0.97)])
def test_a_tiny_model_learns_and_is_left_as_it_was(likelihood: str, share: float) -> None:
    model = backbone()
    before = model.compute_fingerprint()
    told: list[float] = []
    made = tune(
        model, [PEOPLE], quick("epochs=12", "duplicate=0", f"training.likelihood={likelihood}"), TEMPLATE, shared_words,
        score=lambda: told.append(1.0) or 0.5,
    )  # fmt: skip
    losses = [record.loss for record in made.result.history]
    assert losses[-1] < share * losses[0]
    assert model.compute_fingerprint() == before
    assert not any("lora" in name for name, _ in model.model.named_parameters())
    assert len(told) == 12
    assert made.dropped == (0, 0)
    assert made.lost == {}


class Stop(SilentProgress):
    def step(self, step: int, loss: float) -> None:
        if step == 5:
            raise KeyboardInterrupt


def test_a_run_that_was_stopped_goes_on_bit_for_bit(tmp_path: Path) -> None:
    settings = quick("checkpoint_every=2")
    whole = tune(backbone(), [PEOPLE], settings, TEMPLATE, shared_words)
    model = backbone()
    with pytest.raises((KeyboardInterrupt, TrainingInterrupted)):
        tune(model, [PEOPLE], settings, TEMPLATE, shared_words, run=Run(tmp_path, progress=Stop()))
    assert not any("lora" in name for name, _ in model.model.named_parameters())  # it is given back in any case
    again = tune(model, [PEOPLE], settings, TEMPLATE, shared_words, run=Run(tmp_path, resume=True))
    assert again.adapter == whole.adapter
    assert [r.loss for r in again.result.history] == [r.loss for r in whole.result.history]
    with pytest.raises(TrainingError, match="another run"):  # other demonstrations are another run
        tune(model, [PEOPLE], settings, TEMPLATE, reversed_words, run=Run(tmp_path, resume=True))
    model.model.to(torch.bfloat16)
    with pytest.raises(TrainingError, match="another run"):  # and so is another precision
        tune(model, [PEOPLE], settings, TEMPLATE, shared_words, run=Run(tmp_path, resume=True))


def reversed_words(examples: Sequence[Example], settings: WranerSettings) -> Retriever:
    class Reversed:
        def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
            return [hits[::-1] for hits in shared_words(examples, settings).retrieve(queries, k)]

    return Reversed()


def test_a_retriever_that_shows_a_sentence_to_itself_is_refused() -> None:
    class Mirror:
        def __init__(self, pool: Sequence[Example]) -> None:
            self.pool = {e.sentence.text: e for e in pool}

        def retrieve(self, queries: Sequence[Sentence], k: int, without: Keys = ()) -> list[tuple[Hit, ...]]:
            return [(Hit(self.pool[q.text], 1.0),) for q in queries]

    with pytest.raises(TrainingError, match="to itself"):
        prompt_items([PEOPLE], quick(), lambda pool, settings: Mirror(pool))
    assert prompt_items([PEOPLE], quick("retrieval.k=0"), lambda pool, settings: Mirror(pool))[0].demonstrations == ()


def test_each_source_is_shown_its_own_sentences_all_of_them() -> None:
    other = LabelledSource(
        Domain.from_labels("other", ["x"]), [Sentence.from_words(["Ann", str(i)], [(0, 1, "x")]) for i in range(9)]
    )
    items = prompt_items([PEOPLE, other], quick("per_source=2", "duplicate=0"), shared_words)
    assert [i.domain.name for i in items] == ["people", "people", "other", "other"]
    for item in items:
        own = {s.text for s in (PEOPLE if item.domain.name == "people" else other).sentences}
        assert len(item.demonstrations) == 2
        assert {s.text for s in item.demonstrations} <= own - {item.sentence.text}


def test_what_cannot_be_tuned_is_said() -> None:
    with pytest.raises(TrainingError, match="at least one source"):
        tune(backbone(), [], quick(), TEMPLATE, shared_words)
    wrong = LabelledSource(Domain.from_labels("people", ["person"]), people())
    with pytest.raises(DomainError, match="place"):
        tune(backbone(), [wrong], quick(), TEMPLATE, shared_words)
    with pytest.raises(SettingsError, match=r"tune\.remove.*tune\.shuffle"):
        quick("remove=2", "shuffle=-1")


def test_gradient_checkpointing_gives_the_same_gradients_and_keeps_less() -> None:
    found = []
    for on in ("false", "true"):
        task = task_of(quick(f"gradient_checkpointing={on}"))
        task.backbone.model.requires_grad_(True)
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t) or t, lambda t: t):
            loss = task.loss([0, 1], random.Random(0))
        loss.backward()
        found.append(({n: p.grad for n, p in task.parameters().items()}, len(kept)))
    (plain, all_kept), (again, less) = found
    assert less < all_kept / 2
    assert any(gradient is not None for gradient in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-5, atol=1e-6, msg=name)
