"""One frozen model, one batch, several domains.

    python examples/mixed_domains.py LIBRARY

The library is a folder of trained domains, as `xdner train` fills it. It may have thousands: each is loaded when it is first
asked for, and memory is bounded.
"""

from __future__ import annotations

import sys

import xdner


def main(library: str, backbone: str | None = None) -> list[xdner.Result]:
    recognizer = xdner.CPNER.from_pretrained(backbone)
    recognizer.attach(library)

    text = "Fold in the egg whites, spray the roses with neem oil and restart checkout-api on web-07."
    results = recognizer.predict([text] * len(recognizer.domains), domain=list(recognizer.domains))
    for result in results:
        found = ", ".join(f"{e.text} ({e.label})" for e in result.entities)
        print(f"{result.domain:<12} {found or 'nothing'}")
    return results


if __name__ == "__main__":
    main(*sys.argv[1:])
