"""`reconciler drift`: what moved on this host since the agent converged it. It only looks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from reconciler.agent.asking import Asking
from reconciler.agent.config import Config, load
from reconciler.agent.places import Places
from reconciler.agent.policy import drift_policy
from reconciler.agent.state import State
from reconciler.catalog import Catalog, Plan, dumps
from reconciler.cli.console import Output
from reconciler.cli.plan import CHANGES
from reconciler.cli.render import show
from reconciler.errors import ReconcilerError, ResourceError, UsageError
from reconciler.transport.engine import Engine
from reconciler.words import did_you_mean


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "resources", metavar="RESOURCE", nargs="*", help="only these: file:/etc/motd"
    )
    parser.add_argument("--detailed-exitcode", action="store_true", help="exit 2 if anything moved")


def run(args: argparse.Namespace, out: Output) -> int:
    """Compare the machine with the catalog that the agent applied last."""
    places = Places()
    catalog = applied(places)
    config = load(places.config)
    policies = {
        one.id: drift_policy(one, config.drift) for one in catalog.resources if not one.handler
    }
    unknown = [id_ for id_ in args.resources if id_ not in policies]
    if unknown:
        raise UsageError(
            f"the agent applies no {unknown[0]}",
            hint=did_you_mean(unknown[0], policies) or "all of them: reconciler drift -v",
        )
    chosen = set(args.resources) or {id_ for id_, policy in policies.items() if policy != "ignore"}
    part = catalog.only(one for one in catalog.resources if one.id in chosen)
    plan = _plan(places, config, part)
    if out.as_json:
        document = plan.to_json()
        document["schema"] = ["reconciler/drift", 1]
        document["policies"] = {one.id: policies[one.id] for one in plan.results}
        out.document(document)
    else:
        out.lines(show(plan, verbose=out.verbose))
        _say_policies(plan, policies, out)
    if plan.failed:
        return ResourceError.exit_code
    return CHANGES if plan.differs and args.detailed_exitcode else 0


def applied(places: Places) -> Catalog:
    """The catalog that the agent applied last. Raises UsageError, ReconcilerError."""
    try:
        with open(places.catalog, "rb") as file:
            return Catalog.from_json(json.load(file))
    except FileNotFoundError as error:
        raise UsageError(
            "the agent has not applied anything on this host yet", hint="reconciler agent status"
        ) from error
    except PermissionError as error:
        raise UsageError("this takes root", hint="sudo reconciler ...") from error
    except (OSError, ValueError) as error:
        raise ReconcilerError(f"cannot read {places.catalog}: {error}") from error


def _plan(places: Places, config: Config, catalog: Catalog) -> Plan:
    with Engine.local(root=places.root) as engine, Asking(places, config) as asking:
        # Texts and secrets are asked for only where something differs.
        asking.take(catalog.commit or State.load(places).applied, engine.facts())
        text = dumps(catalog.to_json())
        return engine.plan(text, content=asking.content, secrets=asking.secrets)


def _say_policies(plan: Plan, policies: Mapping[str, str], out: Output) -> None:
    left = [one.id for one in plan.results if policies.get(one.id) == "warn"]
    if left:
        out.line(f"left as it is (drift: warn): {', '.join(left)}")
