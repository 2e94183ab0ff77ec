"""Tables of a measurement, from its JSON and from nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.layout import table
from benchmarks.timing.inference import ARMS
from benchmarks.timing.training import TRAINERS

__all__ = ["markdown"]

Found = Mapping[str, Any]


def markdown(found: Found) -> str:
    """All tables that the measurement has parts for, each with what one must know to read it."""
    parts = [f"# Speed, commit {found['commit']}", "", *_machine(found["machine"])]
    if "inference" in found:
        parts += _inference(found["inference"], "Reading")
    for shape in found.get("t5", []):
        parts += _inference(shape, "Reading, random weights")
    if "peer" in found:
        parts += _peer(found["peer"])
    if "training" in found:
        parts += _training(found["training"])
    if "roofline" in found:
        parts += _roofline(found["roofline"])
    if "store" in found:
        parts += _store(found["store"])
    return "\n".join(parts) + "\n"


def _machine(machine: Found) -> list[str]:
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return [f"{machine['processor']}, {machine['cores']} cores, torch with {machine['torch_threads']} threads{gpu}."]


# -- reading -------------------------------------------------------------------------------------------------------------


def _inference(found: Found, title: str) -> list[str]:
    wrote = "every arm writes the gold targets" if found["forced"] else "every arm writes what it predicts"
    lines = [
        "", f"## {title}: {found['backbone']}, {found['dtype']}, {found['device']}", "",
        f"{found['sentences']} sentences, prompts of {found['prompt_tokens_per_sentence']:.0f} tokens, gold targets of "
        f"{found['gold_tokens_per_sentence']:.1f}, prefix of {found['prefix_length']}; {wrote}. Sentences a second: median "
        "of the rounds [slowest, fastest]; cold: the first sight of every domain is in the time.", "",
    ]  # fmt: skip
    names = ["domains", "batch", "arm", "sentences/s", "cold", "(d) is faster by", "first result, s", "memory, MiB"]
    lines += table(names, list(_times(found["cells"])), left=3)
    lines += ["", "The same passes in counts, which do not depend on the machine:", ""]
    names = ["domains", "batch", "arm", "calls/sentence", "row-steps/sentence", "tokens/row-step", "tokens/call",
             "prompt tokens", "target tokens", "same as (d)"]  # fmt: skip
    lines += table(names, list(_counts(found["cells"])), left=3)
    return [*lines, "", *_domain(found["domain"]), "", *(f"- {note}" for note in _notes(found))]


def _times(cells: list[Found]) -> Iterator[list[str]]:
    for cell in cells:
        ours = cell["arms"]["xdner"]["sentences_per_second"]["median"]
        for name, arm in cell["arms"].items():
            here = arm["sentences_per_second"]["median"]
            yield [
                str(cell["domains"]), str(cell["batch"]), ARMS[name], _rate(arm["sentences_per_second"]),
                f"{arm['cold_sentences_per_second']:.2f}", "" if name == "xdner" else f"× {ours / here:.2f}",
                f"{arm['first_result_seconds']:.2f}", _memory(arm["memory_mib"]),
            ]  # fmt: skip


def _counts(cells: list[Found]) -> Iterator[list[str]]:
    for cell in cells:
        for name, arm in cell["arms"].items():
            yield [
                str(cell["domains"]), str(cell["batch"]), ARMS[name], f"{arm['calls_per_sentence']:.2f}",
                f"{arm['row_steps_per_sentence']:.2f}", f"{arm['tokens_per_row_step']:.2f}",
                f"{arm['tokens_per_call']:.2f}", f"{arm['prompt_tokens_per_sentence']:.1f}",
                f"{arm['target_tokens_per_sentence']:.1f}", f"{100 * arm['same_as_xdner']:.0f} %",
            ]  # fmt: skip


def _domain(domain: Found) -> list[str]:
    return [
        f"One domain in memory: prefix {domain['prefix']:,} bytes, context of {domain['context_tokens']} tokens "
        f"{domain['context']:,} bytes; on disk {domain['prefix_stored']:,} bytes. Loading it from disk takes "
        f"{1000 * domain['load_seconds']:.1f} ms, reading its context {1000 * domain['steer_seconds']:.1f} ms."
    ]


def _notes(found: Found) -> Iterator[str]:
    yield (
        "(a) and (b) read one domain at a time, long prompts first, the whole prompt of every sentence; (a) may write as "
        "many tokens as the longest gold target of the batch has, (b) until the grammar ends. Of a stream that repeats "
        "the sentences to have one for each domain, they read the first repetition."
    )
    yield (
        "A row-step is one row in one call of the model. Finished rows stay in the batches of `generate` and count, as they "
        "are computed. Tokens are those that were written, the end included."
    )
    yield "Memory: the peak of a process that does nothing else, model included, and in brackets what came on top of it."
    if found["forced"]:
        yield "A T5 of peft has its prefix in the decoder's self-attention only, ours has one in every attention."
    else:
        yield (
            "Same as (d): sentences with the same target tokens. In 16 bits, and where two tokens are as good as each other, "
            "arms may differ."
        )


# -- the rest ------------------------------------------------------------------------------------------------------------


def _peer(found: Found) -> list[str]:
    lines = ["", "## An encoder for orientation: GLiNER, small shape", ""]
    if "missing" in found:
        return [*lines, f"Not measured: {found['missing']}."]
    lines += [f"Random weights, forward passes only, {found['sentences']} sentences in one domain.", ""]
    rows = [[batch, _rate(cell["sentences_per_second"])] for batch, cell in found["batches"].items()]
    return [*lines, *table(["batch", "sentences/s"], rows, left=1)]


def _training(found: Found) -> list[str]:
    ours = found["arms"]["xdner"]["sentences_per_second"]["median"]
    rows = []
    for name, arm in found["arms"].items():
        here = arm["sentences_per_second"]["median"]
        rows.append([
            TRAINERS[name], _rate(arm["sentences_per_second"]), "" if name == "xdner" else f"× {ours / here:.2f}",
            str(arm["steps"]), f"{arm['tokens_per_sentence']:.1f}", _memory(arm["memory_mib"]),
        ])  # fmt: skip
    names = ["loop", "sentences/s", "xdner is faster by", "steps/epoch", "tokens/sentence", "memory, MiB"]
    return [
        "", f"## Training a prefix: {found['backbone']}, {found['dtype']}, batch {found['batch']}", "",
        f"{found['sentences']} sentences, one epoch a round, prefix of {found['prefix_length']}. Tokens are those that "
        "the model's layers work on: padding and repeated contexts count.", "",
        *table(names, rows, left=1),
    ]  # fmt: skip


def _roofline(found: Found) -> list[str]:
    machine = found["machine"]
    rows = [
        [name, f"{work['tokens']}", f"{1000 * work['seconds']:.1f}", f"{work['gflops']:.1f}",
         f"{work['layers_gflops']:.1f}", _share(work["share_of_layers"]), _share(work["share_of_square"]),
         f"{work['weights_gbytes']:.2f}", _share(work["share_of_memory"])]
        for name, work in found["work"].items()
    ]  # fmt: skip
    names = ["work", "tokens", "ms", "GFLOP/s", "its layers alone, GFLOP/s", "share of layers", "share of square",
             "weights read, GB/s", "share of memory"]  # fmt: skip
    return [
        "", f"## Roofline: {found['backbone']}, {found['dtype']}, batch {found['batch']}, {found['threads']} threads", "",
        f"A large square product makes {machine['square_gflops']:.1f} GFLOP/s; memory is read at "
        f"{machine['memory_gbytes']:.1f} GB/s; a decoding step reads {machine['bytes_per_decoding_step']:,} bytes of "
        "weights. Only multiplications of linear layers count as work done.", "",
        *table(names, rows, left=1),
    ]  # fmt: skip


def _store(found: Found) -> list[str]:
    told = {
        "first": "never seen before: loaded, context read",
        "again": "once more: in memory, or mapped from a file",
        "resident": "all of them in memory",
    }
    rows = [
        [told[kind], f"{work['domains']:,}", f"{work['sentences_per_second']:.2f}", str(work["made"]),
         str(work["mapped"]), f"{work['bytes_in_memory']:,}"]
        for kind, work in found["passes"].items()
    ]  # fmt: skip
    load = found["load_seconds"]
    return [
        "", f"## A store of {found['domains']:,} domains", "",
        f"A domain takes {found['bytes_on_disk']:,} bytes on disk and {found['bytes_ready']:,} in memory once it is ready; at "
        f"most {found['budget']:,} bytes of ready domains stay there. Putting one in takes "
        f"{1000 * found['add_seconds']:.1f} ms (the last ones {1000 * found['add_seconds_last']:.1f} ms), loading one "
        f"{1000 * load['median']:.1f} ms (95 % of them under {1000 * load['p95']:.1f} ms), listing all "
        f"{1000 * found['list_seconds']:.0f} ms.", "",
        *table(["domains", "distinct", "sentences/s", "made ready", "mapped", "bytes in memory"], rows, left=1),
    ]  # fmt: skip


def _rate(rate: Found) -> str:
    return f"{rate['median']:.2f} [{rate['low']:.2f}, {rate['high']:.2f}]"


def _memory(memory: Found | None) -> str:
    return "" if memory is None else f"{memory['peak']:.0f} ({memory['above_model']:.0f})"


def _share(value: float) -> str:
    return f"{100 * value:.0f} %"
