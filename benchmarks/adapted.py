"""The parts of ``adaptation.py``: the text, the adapted encoders, the arm that uses them, and the table."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arms import Corpora, Measured, Target
from benchmarks.layout import flat, percent, points, table
from benchmarks.record import read_json, refuse_other_options, write_json
from benchmarks.runs import Run
from benchmarks.tables import Row, compared, rows_of
from benchmarks.tagger_baseline import TaggerArm
from xdner.corpora.io import read_corpus
from xdner.errors import DataError
from xdner.evaluation import RULE, paired_bootstrap_counts, seed_summary
from xdner.files import write_atomically
from xdner.training.progress import Progress
from xdner.workflows import JobOptions, adapt_backbone

__all__ = ["DEFAULTS", "AdaptedArm", "Adaptation", "markdown", "words_of"]

# The text is small: it is read often, as CrossNER's program does (15 epochs).
DEFAULTS = ("training.epochs=15",)


def words_of(corpora: Corpora, names: Sequence[str], path: Path) -> Path:
    """Write the words of train files, one sentence a line, and nothing of their labels.

    Raises:
        CorpusError: a file is missing.
    """
    lines = []
    for name in names:
        sentences = list(read_corpus(corpora.folder / name / "train.txt"))[: corpora.limit]
        lines += [" ".join(word.text for word in sentence.words) for sentence in sentences]
    data = "\n".join(lines) + "\n"
    if not path.is_file() or path.read_text(encoding="utf-8") != data:
        write_atomically(path, data)
    return path


@dataclass(frozen=True)
class Adaptation:
    """How encoders are adapted, one for each seed; what is there is used.

    Attributes:
        encoder: where they start.
        texts: plain text.
        folder: gets ``seed<n>`` with ``seed<n>.json``.
        origin: of the text, for a reader.
        overrides: of the settings of ``xdner adapt``.
        device: ``cpu``, ``cuda``, ...
    """

    encoder: str
    texts: tuple[Path, ...]
    folder: Path
    origin: str
    overrides: tuple[str, ...] = ()
    device: str = "cpu"

    def asked(self) -> dict[str, Any]:
        """All that the encoders depend on."""
        digests = {path.name: _sha256(path) for path in self.texts}
        return {"backbone": self.encoder, "text": digests, "origin": self.origin, "overrides": list(self.overrides)}

    def made(self, seed: int, progress: Progress) -> tuple[Path, dict[str, Any]]:
        """The encoder of a seed, and how it was made.

        Raises:
            DataError: it is there, but was made with other options.
        """
        folder, record = self.folder / f"seed{seed}", self.folder / f"seed{seed}.json"
        asked = self.asked() | {"seed": seed}
        run = folder.with_name(folder.name + "-run")
        if record.is_file():
            refuse_other_options(record, asked)
        else:
            write_json(record, {"asked": asked})
        if not folder.is_dir():
            begun = any((run / part / "checkpoint" / "state.json").is_file() for part in ("head", "main"))
            done = adapt_backbone(
                self.texts, folder,
                JobOptions(
                    seed=seed, overrides=[*DEFAULTS, *self.overrides], device=self.device, resume=begun, progress=progress
                ),
                backbone=self.encoder,
            )  # fmt: skip
            seconds = round(done.result.seconds, 2)
            write_json(record, {"asked": asked, "seconds": seconds})
        facts = read_json(folder / "xdner-backbone.json")["made"]
        return folder, {"origin": self.origin, **facts} | {k: v for k, v in read_json(record).items() if k == "seconds"}


@dataclass(frozen=True)
class AdaptedArm:
    """The plain tagger on an adapted encoder.

    Attributes:
        name: see :class:`benchmarks.arms.Arm`.
        tagger: the arm that it is compared with; everything but the encoder is the same.
        adaptation: of the encoder.
    """

    name: str
    tagger: TaggerArm
    adaptation: Adaptation

    @property
    def rates(self) -> tuple[float, ...]:
        return self.tagger.rates

    def asked(self) -> dict[str, Any]:
        return self.tagger.asked() | {"adaptation": self.adaptation.asked()}

    def run(self, target: Target, seed: int, rate: float, progress: Progress) -> Measured:
        folder, facts = self.adaptation.made(seed, progress)
        found = replace(self.tagger, encoder=str(folder)).run(target, seed, rate, progress)
        return replace(found, facts=found.facts | {"adaptation": facts})


# -- the table -----------------------------------------------------------------------------------------------------------


def markdown(runs: Sequence[Run]) -> str:
    """Scores, comparisons and notes, from the files of runs alone.

    Raises:
        DataError: no run succeeded.
    """
    rows = rows_of(runs)
    if not rows:
        raise DataError("no run succeeded", hint="The files' `error` says why; try lower rates.")
    targets = sorted({row.target for row in rows})
    parts = ["## Exact-span micro-F1 on dev, in %", "", *_scores(rows, targets)]
    pairs = {t: pair for t in targets if len(pair := _pair(rows, t)) == 2}
    if pairs:
        parts += ["", "## Adapted against plain", "", *_comparison(pairs)]
    parts += ["", "## Notes", "", *(f"- {note}" for note in _notes(runs, rows))]
    return "\n".join(parts) + "\n"


def _pair(rows: Sequence[Row], target: str) -> list[Row]:
    """Adapted and plain, as far as they are there."""
    here = {row.arm: row for row in rows if row.target == target}
    return [here[arm] for arm in ("adapted", "plain") if arm in here]


def _scores(rows: Sequence[Row], targets: Sequence[str]) -> list[str]:
    lines = []
    for row in rows:
        lines.append([row.target, row.arm + (" *" if row.missing else ""), f"{row.rate:g}", *_summary(row.by_seed)])
    for arm in ("plain", "adapted"):
        own = [row for row in rows if row.arm == arm]
        seeds = set.intersection(*(set(row.by_seed) for row in own)) if own else set()
        if len(own) == len(targets) > 1 and seeds:
            means = {seed: statistics.fmean(row.by_seed[seed] for row in own) for seed in sorted(seeds)}
            lines.append([f"mean of {len(own)}", arm, "", *_summary(means)])
    return table(["target", "encoder", "rate", "F1 of each seed", "mean ± sd"], lines, left=2)


def _summary(by_seed: dict[int, float]) -> list[str]:
    found = seed_summary(by_seed.values())
    spread = "" if found.standard_deviation is None else f" ± {percent(found.standard_deviation)}"
    return [", ".join(f"{seed}: {percent(value)}" for seed, value in by_seed.items()), percent(found.mean) + spread]


def _comparison(pairs: dict[str, list[Row]]) -> list[str]:
    lines = []
    for target, (adapted, plain) in pairs.items():
        lines.append([target, *_difference(compared(adapted, plain))])
    shared = set.intersection(*(set(row.by_seed) for pair in pairs.values() for row in pair))
    if len(pairs) > 1 and shared:
        lines.append(["all sentences together", *_difference(_together(list(pairs.values()), sorted(shared)))])
    return table(["target", "adapted − plain, points", "95 % interval", "p"], lines, left=1)


def _difference(found: dict[str, float]) -> list[str]:
    interval = f"[{points(found['low'])}, {points(found['high'])}]"
    return [points(found["delta"]), interval, f"{found['p_value']:.4f}"]


def _together(pairs: Sequence[list[Row]], seeds: Sequence[int]) -> dict[str, float]:
    """One bootstrap over the sentences of all targets, over the seeds that every row has."""
    sides = []
    for side in (0, 1):
        counts = []
        for seed in seeds:
            own = [run for pair in pairs for run in pair[side].runs if run["seed"] == seed]
            sentences = [np.array(run["dev"]["sentence_counts"], dtype=np.int64).reshape(-1, 3) for run in own]
            counts.append(np.concatenate(sentences))
        sides.append(counts)
    found = paired_bootstrap_counts(*sides)
    return {"delta": found.delta, "low": found.interval.low, "high": found.interval.high, "p_value": found.p_value}


def _notes(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    notes = [RULE]
    if runs[0]["limit"] is not None:
        notes.insert(0, f"**A trial: the first {runs[0]['limit']} sentences of each file only. These are no results.**")
    made = {str(facts["settings"]["training"]["seed"]): facts for run in runs if (facts := run.get("adaptation"))}
    for seed, facts in sorted(made.items()):
        before, after = facts["held_out_loss"]["before"], facts["held_out_loss"]["after"]
        told = (
            ""
            if before is None
            else f"; loss on {facts['blocks']['held_out']} held-out blocks {before:.3f} → {after:.3f}"
        )
        notes.append(
            f"Encoder of seed {seed}: {facts['steps']} steps on {facts['text']['tokens']:,} tokens{told}; "
            f"{facts.get('seconds', '?')} s."
        )
    if made:
        first = next(iter(made.values()))
        notes.append(f"The text is {first['origin']}.")
        if "without labels" in first["origin"]:
            notes.append("It holds the sentences that the taggers are trained on, and no other text of the domain.")
    notes.append(
        "The tagger's rate was chosen on the first seed by dev F1, for each encoder by itself, and the epoch on dev in every "
        "run. Comparison: paired bootstrap over dev sentences, 10,000 resamples, two-sided, counts summed over seeds."
    )
    notes += [f"* {row.arm} on {row.target}: {'; '.join(row.missing)}." for row in rows if row.missing]
    for what in ("commit", "machine", "versions"):
        notes.append(f"{what}: " + "; ".join(sorted({flat(run[what]) for run in runs})))
    return notes


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
