"""``python -m xdner`` and the ``xdner`` command."""

from __future__ import annotations

import os


def main() -> None:
    """Run the command line."""
    # OpenMP threads that spin while they wait make small matrix products up to ten times slower on small machines.
    # It must be said before torch is loaded; who has chosen otherwise keeps it.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from xdner.cli.app import app

    app()


if __name__ == "__main__":
    main()
