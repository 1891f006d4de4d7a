"""What the agent is about to meet, found out by who installs it: fetched, judged, compiled once.

By the same provider and in the same words as the agent's own runs, but nothing becomes trusted and
nothing is applied.
"""

from __future__ import annotations

from reconciler.agent.config import Config
from reconciler.agent.link import Provider
from reconciler.agent.places import Places
from reconciler.engine.facts import gather
from reconciler.engine.wire import error_from_json


def try_out(places: Places, config: Config) -> None:
    """Raises ReconcilerError: what keeps this host from being converged, and what to do."""
    from reconciler.source.mark import Marks

    settings = config.to_json()
    with Provider.start(places, config.secret_files(), config.fetch_patience) as provider:
        offer = provider.fetch(settings)
        answer = provider.judge(settings, Marks(places.trust).load().to_json(), offer)
        refusal = answer.get("refused") or answer.get("alarm")
        if refusal:
            raise error_from_json(refusal)
        provider.compile(settings, str(offer["commit"]), gather(places.root))
