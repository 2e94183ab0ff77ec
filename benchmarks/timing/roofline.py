"""What the machine could do, measured on it, and which share of that prefill, decoding and training reach.

Matrix rate: the model's own linear layers, one after the other, each on as many rows as the work has tokens; nothing else
is done. Beside it a large square product, for comparison. Memory rate: reading one large matrix, by a product with a
vector or by a sum, whichever is faster. The shares count only multiplications of linear layers, so attention, norms and
Python count as nothing done.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing.clock import Clock
from benchmarks.timing.inference import Plan
from benchmarks.timing.training import our_settings
from benchmarks.timing.workload import Case, Workload
from xdner.backbone.base import Backbone, Extent, Prompts
from xdner.backbone.store import PrefixRows
from xdner.codec.instructor import Instructor
from xdner.recognizers.reader import Reader
from xdner.training.augmentation import Augmentation
from xdner.training.domain_task import DomainTask, make_items

__all__ = ["load_of", "measure_roofline"]

#: Bytes of the matrix whose reading is timed, many times any cache.
LARGE = 1 << 28
SQUARE = 2048


#: Linear layers, with the rows that they work on.
Load = Sequence[tuple[Sequence[nn.Linear], int]]


def load_of(backbone: Backbone, read: int, written: int) -> Load:
    """Which layers work on how many tokens; the output layer is left out, of which only a few rows are ever used.

    Args:
        backbone: the model.
        read: tokens of prompts.
        written: tokens of targets. An encoder-decoder has other layers for them.
    """
    head = backbone.model.get_output_embeddings()
    named = [(n, m) for n, m in backbone.model.named_modules() if isinstance(m, nn.Linear) and m is not head]
    if backbone.kind == "causal":
        return [([m for _, m in named], read + written)]
    # The encoder, and the decoder's projections of the encoder's states, which are kept.
    reading = {
        n for n, _ in named if n.startswith("encoder.") or n.endswith((".EncDecAttention.k", ".EncDecAttention.v"))
    }
    parts = [([m for n, m in named if n in reading], read), ([m for n, m in named if n not in reading], written)]
    return [(layers, rows) for layers, rows in parts if rows]


def _operations(load: Load) -> int:
    return sum(2 * rows * layer.weight.numel() for layers, rows in load for layer in layers)


def _bytes(load: Load) -> int:
    return sum(layer.weight.numel() * layer.weight.element_size() for layers, _ in load for layer in layers)


class _Machine:
    """Rates of the machine for one model."""

    def __init__(self, backbone: Backbone, rounds: int) -> None:
        self._backbone, self._rounds, self.clock = backbone, rounds, Clock(backbone.device)

    def seconds(self, work: Callable[[], object]) -> float:
        """The median of some rounds, after one that does not count."""
        work()
        taken = []
        for _ in range(self._rounds):
            began = self.clock.now()
            work()
            taken.append(self.clock.now() - began)
        return statistics.median(taken)

    def matrix(self, load: Load) -> float:
        """Operations a second of these layers."""
        work = [
            (layer.weight, inputs)
            for layers, rows in load
            for width in {layer.in_features for layer in layers}
            for inputs in [self._random(rows, width)]
            for layer in layers
            if layer.in_features == width
        ]

        def multiply() -> None:
            for weight, inputs in work:
                nn.functional.linear(inputs, weight)

        return _operations(load) / self.seconds(multiply)

    def square(self) -> float:
        """Operations a second of a large square product."""
        a, b = self._random(SQUARE, SQUARE), self._random(SQUARE, SQUARE)
        return 2 * SQUARE**3 / self.seconds(lambda: a @ b)

    def memory(self) -> float:
        """Bytes read a second."""
        width = 4096
        matrix = self._random(LARGE // width // self._backbone.dtype.itemsize, width)
        vector = self._random(1, width)
        fastest = min(self.seconds(lambda: nn.functional.linear(vector, matrix)), self.seconds(matrix.sum))
        return LARGE / fastest

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self._backbone.device).to(self._backbone.dtype)


def measure_roofline(plan: Plan, batch: int, say: Callable[[str], None]) -> dict[str, Any]:
    """The machine's rates, and the shares that three kinds of work reach at one batch size.

    Returns:
        ``machine`` (GFLOP/s, GB/s), ``work``: for ``prefill``, ``decoding`` and ``training`` the rows of a product, seconds,
        rates and shares.
    """
    backbone = plan.recipe.load()
    workload = plan.workload(backbone)
    say(f"{backbone.name}: roofline")
    machine = _Machine(backbone, max(3, plan.rounds))
    with torch.inference_mode():
        rates = {"square": machine.square(), "memory": machine.memory()}
    cases = [workload.cases[i % len(workload.cases)] for i in range(batch)]
    context = len(Instructor(workload.encoder, workload.codec).context(workload.domain))
    prompts, targets = sum(len(c.prompt) for c in cases), sum(len(c.gold) for c in cases)
    with torch.inference_mode():
        prefill, decoding = _read(backbone, workload, cases, machine)
    training = _train(backbone, workload, cases, machine)
    if backbone.kind == "causal":  # the context was read beforehand; the last target token is never read
        first = load_of(backbone, prompts - context * batch, 0)
        whole = load_of(backbone, prompts - context * (batch - 1), targets - batch)
    else:  # an end token for the encoder; the decoder's start token stands for the last target token
        first = load_of(backbone, prompts + batch, batch)
        whole = load_of(backbone, prompts + batch, targets)
    step = load_of(backbone, 0, batch)
    work = {
        "prefill": _share(machine, rates, first, prefill, passes=1),
        "decoding": _share(machine, rates, step, decoding, passes=1),
        # The backward pass has one product a layer, for the states: the weights are frozen.
        "training": _share(machine, rates, whole, training, passes=2),
    }
    return {
        "backbone": backbone.name,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "batch": batch,
        "threads": torch.get_num_threads(),
        "machine": {
            "square_gflops": rates["square"] / 1e9,
            "memory_gbytes": rates["memory"] / 1e9,
            "bytes_per_decoding_step": _bytes(step),
        },
        "work": work,
    }


def _share(machine: _Machine, rates: dict[str, float], load: Load, seconds: float, *, passes: int) -> dict[str, float]:
    with torch.inference_mode():
        possible = machine.matrix(load)
    reached, read = passes * _operations(load) / seconds, passes * _bytes(load) / seconds
    return {
        "tokens": sum(rows for _, rows in load),
        "seconds": seconds,
        "gflops": reached / 1e9,
        "layers_gflops": possible / 1e9,
        "share_of_layers": reached / possible,
        "share_of_square": reached / rates["square"],
        "weights_gbytes": read / 1e9,
        "share_of_memory": read / rates["memory"],
    }


def _read(backbone: Backbone, workload: Workload, cases: Sequence[Case], machine: _Machine) -> tuple[float, float]:
    """Seconds to read the prompts of a batch in one pass, and of one step with one token a row.

    For T5 the first includes the decoder's first step.
    """
    steered = Reader(backbone, workload.settings.decoding).steer(
        workload.domain, workload.codec, *workload.keys_values(0)
    )
    steering, room = steered.steering, machine._rounds + 2
    sources = [steered.instructor.source(case.words) for case in cases]
    rows = PrefixRows.stack([(steering.keys, steering.values)], [0] * len(cases))
    context, source = len(steering.context.ids), max(map(len, sources))
    extent = Extent(len(cases), workload.prefix.length, context, source, context + source + room, room)
    sessions = [backbone.begin(extent) for _ in range(machine._rounds + 1)]
    waiting = iter(sessions)
    prompts = Prompts(sources, rows, [steering.context] * len(cases))
    prefill = machine.seconds(lambda: next(waiting).admit(prompts))
    tokens = [[case.gold[0]] for case in cases]
    return prefill, machine.seconds(lambda: sessions[-1].step(tokens))


def _train(backbone: Backbone, workload: Workload, cases: Sequence[Case], machine: _Machine) -> float:
    """Seconds of the loss and its gradient for a batch."""
    settings = our_settings(workload, len(cases))
    parts = [[t.to(backbone.device, backbone.dtype).requires_grad_() for t in p] for p in workload.keys_values(0)]
    instructor = Instructor(workload.encoder, workload.codec)
    task = DomainTask(
        backbone, make_items(workload.domain, [c.sentence for c in cases], workload.encoder, instructor, 1_000_000),
        workload.codec, settings.training, encoder=workload.encoder, augmentation=Augmentation(shuffle=False),
        parameters={}, prefix=lambda: PrefixRows.stack([(parts[0], parts[1])], [0]), score=lambda: None,
    )  # fmt: skip
    everything = list(range(len(cases)))
    return machine.seconds(lambda: task.loss(everything, random.Random(0)).backward())
