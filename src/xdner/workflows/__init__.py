"""Whole jobs on files, as the command line does them; each can be called from Python too."""

from xdner.workflows.adaptation import adapt_backbone
from xdner.workflows.backbones import instruct_backbone
from xdner.workflows.domains import ABLATIONS, ALL, Outcome, train_domain
from xdner.workflows.examples import example_folder
from xdner.workflows.examples_domain import train_examples
from xdner.workflows.explaining import explain_text
from xdner.workflows.indexing import index_examples
from xdner.workflows.initial import train_initial
from xdner.workflows.material import DomainFiles
from xdner.workflows.options import JobOptions
from xdner.workflows.reading import evaluate_domain, open_domain, select_sources
from xdner.workflows.removing import import_domain, remove_domain
from xdner.workflows.sampling import Sampled, sample_file
from xdner.workflows.taggers import TAGGER_ABLATIONS, train_tagger

__all__ = [
    "ABLATIONS",
    "ALL",
    "TAGGER_ABLATIONS",
    "DomainFiles",
    "JobOptions",
    "Outcome",
    "Sampled",
    "adapt_backbone",
    "evaluate_domain",
    "example_folder",
    "explain_text",
    "import_domain",
    "index_examples",
    "instruct_backbone",
    "open_domain",
    "remove_domain",
    "sample_file",
    "select_sources",
    "train_domain",
    "train_examples",
    "train_initial",
    "train_tagger",
]
