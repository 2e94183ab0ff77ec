"""``xdner train``: train a domain on labelled sentences, its prefix (CP-NER) or its tagger (LANER), or make one of examples
(IF-WRANER)."""

from __future__ import annotations

import enum
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xdner.cli.common import (
    BackboneOption,
    ConfigOption,
    DeviceOption,
    DtypeOption,
    FormatOption,
    JsonOption,
    LibraryOption,
    ResumeOption,
    SeedOption,
    SetOption,
    ablations,
    chosen_over,
    guarded,
    in_library,
    pairs,
    print_json,
    say,
    say_done,
    say_note,
    split_names,
    stdout,
    transfer_overrides,
)
from xdner.errors import SettingsError

if TYPE_CHECKING:
    from xdner.workflows import Outcome


#: Panels of the help.
_TRANSFER, _WRANER = "Learning from other domains", "IF-WRANER's language model"


class Recognizer(enum.StrEnum):
    """Which method trains the domain."""

    CP_NER = "cp-ner"
    LANER = "laner"
    IF_WRANER = "if-wraner"


def train(
    name: Annotated[str, typer.Argument(help="Name of the domain.", show_default=False)],
    train_file: Annotated[Path | None, typer.Option("--train", "--examples", help="Labelled sentences (CoNLL columns or JSONL); if-wraner shows them to its model.", show_default=False)] = None,
    dev_file: Annotated[Path | None, typer.Option("--dev", help="Labelled sentences for early stopping.", show_default=False)] = None,
    domain_file: Annotated[Path | None, typer.Option("--domain-file", help="TOML or JSON with types and their verbalizations.", show_default=False)] = None,
    backbone: BackboneOption = None,
    library: LibraryOption = None,
    recognizer: Annotated[Recognizer, typer.Option("--recognizer", help="cp-ner: a prefix on a frozen model; laner: an encoder (--backbone minilm-l6, …) that is tuned as a whole; if-wraner: a language model (--llm) that is shown examples.")] = Recognizer.CP_NER,
    llm: Annotated[str | None, typer.Option("--llm", rich_help_panel=_WRANER, help="if-wraner: alias, hub id, folder, or an OpenAI-compatible API (http://…/v1; key: $XDNER_LLM_KEY).", show_default=False)] = None,
    model: Annotated[str | None, typer.Option("--model", rich_help_panel=_WRANER, help="if-wraner: name of the model behind --llm http://…", show_default=False)] = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", rich_help_panel=_WRANER, help="if-wraner: LoRA factors of the language model, a folder in peft's format.", show_default=False)] = None,
    source: Annotated[list[Path] | None, typer.Option("--source", rich_help_panel=_TRANSFER, help="laner, if-wraner: labelled sentences of a source domain, learned first (repeatable).", show_default=False)] = None,
    from_: Annotated[str | None, typer.Option("--from", rich_help_panel=_TRANSFER, help="Known domains to draw on: a,b,c or all; laner, if-wraner: one such domain to go on from.", show_default=False)] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", rich_help_panel=_TRANSFER, help="none, single, collaborative, chain or ensemble.", show_default=False)] = None,
    alpha: Annotated[list[str] | None, typer.Option("--alpha", rich_help_panel=_TRANSFER, help="Share of the types' similarity: 0.5, or music=0.8 for one source (repeatable).", show_default=False)] = None,
    source_data: Annotated[list[str] | None, typer.Option("--source-data", rich_help_panel=_TRANSFER, help="NAME=FILE: a source's training sentences, for --strategy chain (repeatable).", show_default=False)] = None,
    without: Annotated[list[str] | None, typer.Option("--without", rich_help_panel=_TRANSFER, help="entity-similarity, prefix-similarity, warm-up, options, or a source's name; laner: label-background or label-context (repeatable).", show_default=False)] = None,
    format: FormatOption = None,
    k_shot: Annotated[int | None, typer.Option("--k-shot", help="Train on a seeded sample of so many sentences.", show_default=False)] = None,
    seed: SeedOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    dtype: DtypeOption = "float32",
    device: DeviceOption = "cpu",
    resume: ResumeOption = False,
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Train a domain: a prefix on a frozen model, a whole tagger (--recognizer laner), or make one of examples (if-wraner).

    Example: xdner train cooking --train train.jsonl --dev dev.jsonl

    With known domains' help: xdner train cooking --train train.jsonl --from all

    A tagger, after a source: xdner train ai --recognizer laner --source conll2003.txt --train train.txt --dev dev.txt

    A tuned language model that is shown examples: xdner train ai --recognizer if-wraner --source music.txt --examples ai.txt
    """
    with guarded():
        from xdner.training.progress import RichProgress
        from xdner.workflows import (
            ABLATIONS,
            TAGGER_ABLATIONS,
            DomainFiles,
            JobOptions,
            train_domain,
            train_examples,
            train_tagger,
        )

        files = DomainFiles(train_file, dev_file, domain_file, format, k_shot)
        options = JobOptions(library, seed, config, set_ or (), dtype, device, resume, RichProgress(name))
        cp_ner = {"--strategy": strategy, "--alpha": alpha, "--source-data": source_data}
        outcome: Outcome[Any]
        if recognizer is Recognizer.IF_WRANER:
            _only("cp-ner", cp_ner)
            _only("cp-ner and laner", {"--without": without})
            if llm and backbone:
                raise SettingsError(
                    ["--llm and --backbone both name the language model"], hint="Leave one of the two out."
                )
            outcome = train_examples(
                name, files, options, llm=llm or backbone, model=model, adapter=adapter, source_files=source or (),
                start=_start(from_, "an IF-WRANER domain"),
            )  # fmt: skip
        elif recognizer is Recognizer.LANER:
            _only("if-wraner", {"--llm": llm, "--model": model, "--adapter": adapter})
            _only("cp-ner", cp_ner)
            _only("cp-ner and if-wraner", {"--dtype": dtype if dtype != "float32" else None})
            outcome = train_tagger(
                name, files, replace(options, overrides=chosen_over(ablations(without, TAGGER_ABLATIONS), set_)),
                encoder=backbone, source_files=source or (), start=_start(from_, "a LANER domain"),
            )  # fmt: skip
        else:
            _only("if-wraner", {"--llm": llm, "--model": model, "--adapter": adapter})
            _only("laner and if-wraner", {"--source": source})
            switches = [w for w in without or () if w in ABLATIONS]
            alphas, overrides = transfer_overrides(strategy, alpha, switches, set_)
            data = {k: Path(v) for k, v in pairs(source_data, "--source-data", "NAME=FILE").items()}
            outcome = train_domain(
                name, files, replace(options, overrides=overrides), backbone=backbone, sources=split_names(from_),
                source_data=data, alphas=alphas, leave_out=[w for w in without or () if w not in ABLATIONS],
            )  # fmt: skip
        _tell(name, outcome, library, json_)


def _start(from_: str | None, what: str) -> str | None:
    """The one domain that a method goes on from."""
    names = split_names(from_)
    if len(names) > 1 or names == ["all"]:
        raise SettingsError([f"--from {from_}: {what} goes on from one domain"], hint="Name one.")
    return names[0] if names else None


def _only(recognizer: str, given: dict[str, Any]) -> None:
    """Options that only one recognizer has are refused for the other."""
    problems = [f"{option} is an option of --recognizer {recognizer}" for option, value in given.items() if value]
    if problems:
        raise SettingsError(problems, hint="Leave it out, or choose the other recognizer.")


def _tell(name: str, outcome: Outcome[Any], library: Path | None, json_: bool) -> None:
    from xdner.cli.render import selection_table

    if json_:
        print_json(outcome.to_dict())
        return
    for warning in outcome.warnings:
        say_note(warning)
    if outcome.selection is not None:
        stdout.print(selection_table(outcome.selection))
    voters = len(outcome.entry.prefixes)
    how = f"the vote of {voters}" if voters > 1 else f"epoch {outcome.best_epoch}"
    dev = "" if outcome.dev_f1 is None else f", dev F1 {outcome.dev_f1:.3f} ({how})"
    done = f"trained in {outcome.seconds:.0f} s{dev}" if outcome.best_epoch else "is ready (nothing was trained)"
    say_done(f"domain {name} {done}")
    size = f"  ({outcome.kilobytes:.0f} kB)" if outcome.kilobytes else ""  # examples alone have no weights
    say(f"  {outcome.folder}{size}")
    say(f'  next: xdner predict --domain {name}{in_library(library)} "your text"')
