"""Removing a domain, or putting another one in its place, and what it has elsewhere."""

from __future__ import annotations

from pathlib import Path

from xdner.errors import RetrievalError
from xdner.library.parts import INDEX
from xdner.library.store import Library
from xdner.retrieval.pool import Pool, has_pool, open_pool

__all__ = ["import_domain", "remove_domain", "server_rows"]


def server_rows(name: str, library: str | Path | None = None) -> str:
    """Where a Milvus server has the rows of a domain's index, in words; empty if none has."""
    pool = _on_server(Library(library), name)
    return "" if pool is None else _rows(pool)


def remove_domain(name: str, library: str | Path | None = None) -> str:
    """Delete a domain, or an index that none was made of yet, and its index's rows on a server.

    Returns:
        What could not be removed, in words, or nothing: a server that does not answer is no reason to keep the domain.

    Raises:
        UnknownDomainError: it is not there.
        LibraryError: another process writes.
        StorageError: it cannot be deleted.
    """
    store = Library(library)
    # Read before, dropped after: a domain that stays needs its rows.
    pool = _on_server(store, name)
    store.remove(name)
    return _drop(pool)


def import_domain(
    file: str | Path, library: str | Path | None = None, *, name: str | None = None, replace: bool = False
) -> tuple[Path, str]:
    """Add a domain from an exported file (:meth:`~xdner.library.store.Library.import_`). The rows of an index that it replaces
    go from their server: no export brings a server along.

    Returns:
        Its folder, and what could not be removed, in words, or nothing.

    Raises:
        XdnerError: see there; nothing has changed then.
    """
    store, pools = Library(library), list[Pool | None]()
    made = store.import_(
        file, name=name, replace=replace, giving_way=lambda folder: pools.append(_pool_on_server(folder))
    )
    return store.path(made), " ".join(filter(None, map(_drop, pools)))


def _drop(pool: Pool | None) -> str:
    """The rows go. What could not be removed, in words, or nothing."""
    if pool is None:
        return ""
    try:
        pool.drop()
    except RetrievalError as error:
        return f"{_rows(pool)} is still there: {error.message}"
    return ""


def _rows(pool: Pool) -> str:
    return f"collection {pool.manifest.collection} in {pool.title}"


def _on_server(store: Library, name: str) -> Pool | None:
    folder = store.path(name)
    # Of a link only the link is removed: the domain is another library's.
    if (name not in store and name not in store.begun()) or folder.is_symlink():
        return None
    return _pool_on_server(folder)


def _pool_on_server(folder: Path) -> Pool | None:
    if not has_pool(folder / INDEX):
        return None
    try:
        pool = open_pool(folder / INDEX)
    except RetrievalError:  # damaged: nobody knows what is its own
        return None
    return pool if pool.manifest.uri else None
