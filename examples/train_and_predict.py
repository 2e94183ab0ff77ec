"""A domain of your own: labelled sentences in, entities out.

python examples/train_and_predict.py [BACKBONE]
"""

from __future__ import annotations

import sys

import xdner
from xdner.workflows import example_folder


def main(backbone: str | None = None, *overrides: str) -> list[xdner.Result]:
    folder = example_folder("gardening")
    train, dev = xdner.read_corpus(folder / "train.jsonl"), xdner.read_corpus(folder / "dev.jsonl")
    domain = xdner.Domain.read(folder / "domain.toml")

    recognizer = xdner.CPNER.from_pretrained(backbone)
    settings = xdner.Settings.build(base=recognizer.backbone.recommended, overrides=["epochs=6", *overrides])
    trained = recognizer.train(domain, train, dev, settings=settings)
    print(f"dev F1 {trained.result.best_dev:.3f} after epoch {trained.result.best_epoch}")

    results = recognizer.predict(["The roses have black spot again, so I dug in some bone meal."], domain="gardening")
    for result in results:
        for entity in result.entities:
            print(f"{entity.start:>3}-{entity.end:<3} {entity.label:<15} {entity.text}  ({entity.score:.2f})")
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
