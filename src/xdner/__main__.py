"""``python -m xdner`` and the ``xdner`` command."""

from __future__ import annotations

import io
import os
import sys


def prepare_environment() -> None:
    """What must be said before torch and transformers are loaded; who has chosen otherwise keeps it."""
    # OpenMP threads that spin for long while they wait make small matrix products up to ten times slower on a busy machine;
    # threads that sleep at once wake up late: a tenth slower on an idle one (docs/LOG.md). So they spin a little.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # torch keeps half a megabyte for each of the last 1,024 shapes of a matrix product that it has met, and here nearly every
    # pass has another number of tokens.
    for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(cache, "256")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main() -> None:
    """Run the command line."""
    prepare_environment()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what the terminal's encoding cannot say is no reason to fail
    from xdner.cli.app import app

    app()


if __name__ == "__main__":
    main()
