"""A GGUF file, once, into a folder that transformers loads in a second."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

from xdner.backbone.tensors import save_tensors
from xdner.errors import BackboneError
from xdner.files import write_atomically

__all__ = ["convert_gguf", "quiet_transformers"]

# What these say is where and how the model was loaded this time, not what it is.
_TRACES = {
    "config.json": ("_name_or_path", "_model_name_or_path", "quantization_config"),
    "tokenizer_config.json": ("name_or_path", "is_local", "local_files_only"),
}


def convert_gguf(file: Path, folder: Path) -> None:
    """Write a causal model's GGUF file as ``config.json``, ``model.safetensors`` (float32) and tokenizer files.

    A tied output layer is left out of the file; loading ties it again.

    Args:
        file: the GGUF file.
        folder: an empty folder that nobody reads yet.

    Raises:
        BackboneError: transformers cannot read the file.
        StorageError: the disk is full.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        with quiet_transformers():
            model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise BackboneError(
            f"transformers cannot read {file.name}: {str(error).strip().splitlines()[0]}",
            hint="Check the installed versions: xdner doctor",
        ) from error
    # save_pretrained refuses a model that is marked as quantized, although its weights are plain numbers by now.
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, keys in _TRACES.items():
        _drop(folder / name, keys)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    state = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
    save_tensors(state, folder / "model.safetensors")


def _drop(path: Path, keys: tuple[str, ...]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value[key] for key in sorted(value) if key not in keys}
    write_atomically(path, json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no warnings of transformers inside the block.

    One of its bars obeys no switch, so standard error goes nowhere meanwhile: for commands, not for a server's threads.
    """
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
