"""The package under test is the one that users get: built as they build it, whole."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import reconciler

CHECKOUT = Path(__file__).parents[1]
INSTALLED = Path(reconciler.__file__).parent


def editable() -> bool:
    """Whether this is `make dev`'s environment, where the checkout is what is installed."""
    origin = json.loads(metadata.distribution("reconciler").read_text("direct_url.json") or "{}")
    return origin.get("dir_info", {}).get("editable", False)


def test_tests_import_the_installed_package_and_not_the_checkout() -> None:
    assert ("site-packages" in INSTALLED.parts) is not editable()


def test_every_module_is_in_the_package() -> None:
    """reconciler/modules is a link: a build back end may drop it without a word."""
    declared = {path.name for path in (CHECKOUT / "modules").glob("*.py")}
    packaged = {path.name for path in (INSTALLED / "modules").glob("*.py")}
    assert packaged == declared, (
        "or the installed wheel is older than the checkout: `make` renews it"
    )


def test_version_is_told_once() -> None:
    assert metadata.version("reconciler") == reconciler.__version__
