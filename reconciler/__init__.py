"""GitOps for hosts: a Git repository declares servers, `reconciler` makes and keeps them so."""

__version__ = "0.1.0"
