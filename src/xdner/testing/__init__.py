"""Fakes small enough to read: tokenizers and tiny random models, for tests without weights."""
