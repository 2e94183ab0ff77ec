"""Whole jobs on files, as the command line does them; each can be called from Python with the same words."""

from xdner.workflows.backbones import instruct_backbone
from xdner.workflows.domains import ABLATIONS, Outcome, train_domain
from xdner.workflows.examples import example_folder
from xdner.workflows.initial import train_initial
from xdner.workflows.reading import evaluate_domain, open_domain, select_sources
from xdner.workflows.taggers import TAGGER_ABLATIONS, train_tagger

__all__ = [
    "ABLATIONS",
    "TAGGER_ABLATIONS",
    "Outcome",
    "evaluate_domain",
    "example_folder",
    "instruct_backbone",
    "open_domain",
    "select_sources",
    "train_domain",
    "train_initial",
    "train_tagger",
]
