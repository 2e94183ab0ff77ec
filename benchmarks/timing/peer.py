"""An encoder for orientation: GLiNER in its small shape with random weights.

It is no competitor in these tables: it reads a sentence with its types once and writes nothing, and random weights find
nothing. It shows what a forward pass over the same sentences costs. It has the backbone's tokenizer or T5's, because the
one it was published with is not here; the number of pieces is about the same.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing.clock import Clock, rate
from benchmarks.timing.inference import Plan

__all__ = ["measure_peer"]

#: The encoder of ``gliner_small``: DeBERTa-v3-small.
ENCODER: dict[str, Any] = {
    "model_type": "deberta-v2", "vocab_size": 128100, "hidden_size": 768, "num_hidden_layers": 6,
    "num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 0,
    "relative_attention": True, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"], "layer_norm_eps": 1e-7, "max_relative_positions": -1, "position_biased_input": False,
}  # fmt: skip


def measure_peer(plan: Plan, tokenizer: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Sentences a second at each batch size.

    Args:
        plan: sentences, batch sizes and rounds.
        tokenizer: folder of a tokenizer; the backbone's by default.
        say: takes lines for a person.

    Returns:
        ``missing``, a reason in words, or ``batches``: by size, ``sentences_per_second``.
    """
    if importlib.util.find_spec("gliner") is None:
        return {"missing": "gliner is not installed"}
    import torch
    from gliner import GLiNER
    from gliner.config import GLiNERConfig
    from transformers import AutoTokenizer

    backbone = plan.recipe.load()
    workload = plan.workload(backbone)
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        (AutoTokenizer.from_pretrained(tokenizer) if tokenizer else backbone.tokenizer).save_pretrained(folder)
        config = GLiNERConfig(
            model_name=folder, encoder_config=dict(ENCODER), hidden_size=512, max_len=384, max_width=12
        )
        try:
            model = GLiNER.from_config(config, backbone_from_pretrained=False, map_location=str(backbone.device))
        except (AttributeError, ImportError, OSError, TypeError, ValueError) as error:
            # Its releases bind themselves to releases of transformers; one that does not fit is no result of ours.
            return {"missing": f"gliner cannot be used: {str(error).splitlines()[0] if str(error) else repr(error)}"}
    model = model.to(backbone.dtype).eval()
    texts = sorted((case.sentence.text for case in workload.cases), key=len, reverse=True)
    clock, labels = Clock(backbone.device), list(workload.domain.options)
    found: dict[str, Any] = {"batches": {}, "sentences": len(texts), "weights": "random"}
    for batch in plan.batches:
        say(f"gliner: batch {batch}")
        seconds = []
        with torch.inference_mode():
            for number in range(plan.rounds + 1):
                began = clock.now()
                model.inference(texts, labels, batch_size=batch)
                if number:  # the first one warms up
                    seconds.append(clock.now() - began)
        found["batches"][str(batch)] = {"seconds": seconds, "sentences_per_second": rate(len(texts), seconds)}
    return found
