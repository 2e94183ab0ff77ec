"""The backbone of a measurement, as a recipe that a second process can follow too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdner.errors import DataError

if TYPE_CHECKING:
    from xdner.backbone.base import Backbone

__all__ = ["T5_SHAPES", "ModelRecipe"]

#: Published shapes of T5; what is not named here is the same in all of them.
T5_SHAPES: dict[str, dict[str, int]] = {
    "small": {"d_model": 512, "d_kv": 64, "d_ff": 2048, "num_layers": 6, "num_decoder_layers": 6, "num_heads": 8},
    "base": {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12},
}


@dataclass(frozen=True)
class ModelRecipe:
    """Which model, where and in which type.

    Attributes:
        name: alias, hub id or folder; of a random T5, its shape.
        device, dtype: as :func:`xdner.backbone.load.load_backbone` takes them.
        threads: that torch uses; 0 leaves them as they are.
        t5: numbers of a T5 that is made with random weights.
        tokenizer: folder of that T5's tokenizer and configuration.
    """

    name: str
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 0
    t5: tuple[tuple[str, int], ...] = ()
    tokenizer: Path | None = None

    @classmethod
    def random_t5(cls, shape: str, tokenizer: Path, like: ModelRecipe) -> ModelRecipe:
        """A T5 of a published shape with random weights, on the same device and in the same type as another."""
        return cls(f"t5-{shape}", like.device, like.dtype, like.threads, tuple(T5_SHAPES[shape].items()), tokenizer)

    def load(self) -> Backbone:
        """The model, frozen; random weights are the same ones each time.

        Raises:
            DataError: the tokenizer's folder cannot be read.
            BackboneError: see :func:`xdner.backbone.load.load_backbone`.
        """
        import torch

        from xdner.backbone.load import load_backbone

        if self.threads:
            torch.set_num_threads(self.threads)
        if self.tokenizer is None:
            return load_backbone(self.name, device=self.device, dtype=self.dtype)
        return self._random(self.tokenizer)

    def _random(self, folder: Path) -> Backbone:
        import torch
        from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

        from xdner.backbone.t5 import T5Backbone

        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            config = T5Config.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise DataError(
                f"cannot read a T5 tokenizer and configuration from {folder}: {str(error).splitlines()[0]}",
                hint="Give a folder with config.json and tokenizer.json with --t5-tokenizer.",
            ) from None
        for key, value in self.t5:
            setattr(config, key, value)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = T5ForConditionalGeneration(config)
        model = model.to(device=self.device, dtype=getattr(torch, self.dtype))
        return T5Backbone(model, tokenizer, name=self.name)
