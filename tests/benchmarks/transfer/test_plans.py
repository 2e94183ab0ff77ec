"""Which runs a command line asks for, and how long they are."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from benchmarks import cross_domain
from benchmarks.transfer.bench import epochs_for
from benchmarks.transfer.options import Options, options_of
from benchmarks.transfer.pools import Pools
from benchmarks.transfer.specs import conditions, planned
from benchmarks.transfer.tasks import preparations
from xdner.errors import SettingsError


def test_plans() -> None:
    def names(*more: str) -> list[str]:
        given = cross_domain.parser().parse_args(list(more))
        options = options_of(given)
        return [str(s.path(options).relative_to(options.folder)) for s in cross_domain.specs(given, options)]

    core = names()
    assert len(core) == 24
    assert core[0] == "ai/all/none/seed1.json"  # seed by seed
    assert core[7] == "mit-restaurant/k10/collaborative/seed1.json"
    full = names("--plan", "full", "--seeds", "1")
    assert len(full) == len(set(full)) == 8 * 8 + 3 * 2
    assert set(names("--seeds", "1")) <= set(full)
    assert "politics/all/single-conll2003/seed1.json" in full
    assert not any(name.startswith("politics/all/coll") for name in full)
    assert "mit-movie/all/none/seed1.json" in names("--k", "all", "50")
    with pytest.raises(SettingsError, match="there are 4 sources, not 5"):
        names("--source-counts", "5")
    with pytest.raises(SettingsError, match="α must be from 0 to 1, not 2"):
        names("--alphas", "2")
    with pytest.raises(SystemExit):
        names("--k", "0")


def test_epochs_are_the_same_for_every_strategy_and_divide_among_an_ensemble() -> None:
    assert epochs_for(200, 16, 4) == 16  # 13 would do, and 4 members want a multiple of 4
    assert epochs_for(200, 16, 1) == 13
    assert epochs_for(200, 16, 0) == 13
    assert epochs_for(10, 100, 4) == 8  # a warm-up and an epoch for each member


def test_chains_that_begin_alike_share_their_links(options: Callable[..., Options]) -> None:
    """Two workers would else train the same link at the same time, in one folder."""
    given = options("--sources", "conll2003", "politics", "literature", "--drop-shared")
    specs = planned(given, conditions(["ai", "science"], (), [None]), ["chain"], [1, 2])
    stages = [[task.title(given) for task in stage] for stage in preparations(given, Pools(given), specs)]
    assert stages[2:] == [
        ["chain conll2003 → politics for ai"],
        # Science has a sentence of literature.
        [f"chain conll2003 → politics → literature for {target}" for target in ("ai", "science")],
    ]


def test_help_names_the_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cross_domain.main(["--help"])
    assert "none, single, chain, ensemble, collaborative" in " ".join(capsys.readouterr().out.split())
    assert isinstance(cross_domain.parser(), argparse.ArgumentParser)
