"""What the programs about transfer between domains share: options, corpora, preparation, runs, engines, comparisons."""
