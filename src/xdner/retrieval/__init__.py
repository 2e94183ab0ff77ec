"""Labelled examples of a domain, found for a sentence: by word embeddings (IF-WRANER) or by one of the baselines."""
