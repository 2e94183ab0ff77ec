"""``xdner explain``: which examples a text would be shown with, and which words brought them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from xdner.cli.common import (
    ConfigOption,
    DeviceOption,
    EncoderOption,
    JsonOption,
    LibraryOption,
    SetOption,
    guarded,
    print_json,
    say_note,
    stdout,
)
from xdner.cli.visible import visible

if TYPE_CHECKING:
    from xdner.workflows.explaining import Explanation

_MATCHES = 8  # of an example that are shown; JSON has all


def explain(
    text: Annotated[str, typer.Argument(help="In quotes.", show_default=False)],
    domain: Annotated[str, typer.Option("--domain", "-d", help="With examples, or an index of them.", show_default=False)],
    k: Annotated[int | None, typer.Option("--k", "-k", help="Examples to show (default: the domain's).", min=0, show_default=False)] = None,
    encoder: EncoderOption = None,
    library: LibraryOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    device: DeviceOption = "cpu",
    json_: JsonOption = False,
) -> None:  # fmt: skip
    """Show which examples of a domain's index a text brings, and by which words.

    Example: xdner explain "Whisk the egg whites." --domain cooking

    Settings are those of the domain's prompts. A baseline instead: --set method=sentence, bm25, random or densest.
    """
    with guarded():
        from xdner.workflows import explain_text

        found = explain_text(
            text, domain, k=k, library=library, encoder=encoder, config=config, overrides=set_ or [], device=device
        )
        if json_:
            print_json(found.to_dict())
        elif found.hits:
            stdout.print(explanation_table(found))
        else:
            why = "method is none" if found.method == "none" else "k is 0" if found.k == 0 else "none is like it"
            say_note(f"no example is shown with this text: {why}")


def explanation_table(found: Explanation) -> Table:
    """An example a row: score, its text with its entities, and the words that brought it, best first."""
    how = f"{found.method}, {found.aggregation}" if found.aggregation else found.method
    table = Table(title=escape(f"examples for: {visible(found.sentence.text)}"), title_justify="left", caption=how)
    table.add_column("score", justify="right")
    table.add_column("example", overflow="fold", ratio=3)
    by_words = any(hit.matches for hit in found.hits)
    if by_words:
        table.add_column("word → word of the example, cosine", overflow="fold", ratio=2)
    for hit in found.hits:
        shown, at, sentence = "", 0, hit.example.sentence
        for entity in sentence.entities:
            before, mention = sentence.text[at : entity.start], sentence.text[entity.start : entity.end]
            shown += (
                f"{escape(visible(before))}[bold]{escape(visible(mention))}[/][dim]⟨{escape(visible(entity.label))}⟩[/]"
            )
            at = entity.end
        shown += escape(visible(sentence.text[at:]))
        lines = [
            f"{visible(found.sentence.words[m.query].text)} → {visible(sentence.words[m.example].text)} {m.similarity:.2f}"
            for m in hit.matches[:_MATCHES]
        ]
        if len(hit.matches) > _MATCHES:
            lines.append(f"… {len(hit.matches) - _MATCHES} more")
        table.add_row(f"{hit.score:.2f}", shown, *([escape("\n".join(lines))] if by_words else []))
    return table
