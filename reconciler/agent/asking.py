"""What a run asks of the provider: started with the first question, and anew where it has ended.

systemd ends each conversation after a while, and a run may take longer than that: who installs
packages for half an hour still gets the content of the next file.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

from reconciler.agent.config import Config
from reconciler.agent.link import Gone, Provider
from reconciler.agent.places import Places
from reconciler.catalog import Catalog

T = TypeVar("T")


class Asking:
    """The questions of one run. Each raises ReconcilerError where it is not answered."""

    def __init__(self, places: Places, config: Config) -> None:
        self._places = places
        self._config = config
        self._settings = config.to_json()
        self._provider: Provider | None = None
        self._about: tuple[str, Mapping[str, object]] = ("", {})
        self._compiled = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    @property
    def begun(self) -> bool:
        """Whether anything was asked yet: what costs little then would have to start a process."""
        return self._provider is not None

    def judge(self, mark: Mapping[str, Any], offer: Mapping[str, Any]) -> dict[str, Any]:
        """Whether what a poll has brought may be used, after what `mark` says."""
        return self._ask(lambda provider: provider.judge(self._settings, mark, offer))

    def describe(self, commit: str) -> dict[str, str]:
        """Who made a commit, and what it says."""
        return self._ask(lambda provider: provider.describe(self._settings, commit))

    def point(self, pointers: Mapping[str, str]) -> None:
        """Keep these commits in the mirror; "" for none."""
        self._ask(lambda provider: provider.point(self._settings, pointers))

    def compile(self, commit: str, facts: Mapping[str, object]) -> Catalog:
        """The catalog of this host; contents and secrets are those of it from now on."""
        self.take(commit, facts)
        return Catalog.from_json(self._ask(self._compile))

    def take(self, commit: str, facts: Mapping[str, object]) -> None:
        """Let contents and secrets be those of this commit, compiled once they are asked for."""
        self._about, self._compiled = (commit, facts), False

    def content(self, sha256: str) -> Iterator[bytes]:
        """The bytes of a content that the catalog names."""
        return self._ask_of_catalog(lambda provider: _begun(provider.content(sha256)))

    def secrets(self) -> dict[str, str]:
        """The values behind the handles of the catalog."""
        return self._ask_of_catalog(lambda provider: provider.secrets())

    # -- details -------------------------------------------------------------------------

    def _ask(self, question: Callable[[Provider], T]) -> T:
        """The answer; a conversation that has ended meanwhile is begun once more."""
        if self._provider is not None:
            try:
                return question(self._provider)
            except Gone:
                self._hang_up()
        self._provider = Provider.start(self._places, self._config.secret_files())
        return question(self._provider)

    def _ask_of_catalog(self, question: Callable[[Provider], T]) -> T:
        def compiled(provider: Provider) -> T:
            if not self._compiled:
                self._compile(provider)
            return question(provider)

        return self._ask(compiled)

    def _compile(self, provider: Provider) -> dict[str, Any]:
        commit, facts = self._about
        _, document = provider.compile(self._settings, commit, facts)
        self._compiled = True
        return document

    def _hang_up(self) -> None:
        if self._provider is not None:
            self._provider.close()
        self._provider, self._compiled = None, False


def _begun(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same, of which the first has come: until then it can be asked for once more."""
    return itertools.chain([next(pieces, b"")], pieces)
