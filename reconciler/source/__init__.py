"""The state repo: its commits and its work tree, read without trusting what is in them."""

from __future__ import annotations

from reconciler.source.git import init
from reconciler.source.gittree import GitTree
from reconciler.source.lint import lint
from reconciler.source.worktree import WorkTree

__all__ = ["GitTree", "WorkTree", "init", "lint", "open_tree"]


def open_tree(directory: str, ref: str | None) -> GitTree | WorkTree:
    """The commit that `ref` names, or without one the directory as it is on disk.

    Raises UsageError for a directory or ref that is not there, ConfigError, SourceError,
    TrustError.
    """
    return WorkTree(directory) if ref is None else GitTree(directory, ref)
