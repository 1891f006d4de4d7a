"""Packages on Debian and its relatives: what is there, by dpkg's own records and apt's lists."""

from __future__ import annotations

import fnmatch
import os
import re
import stat
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from reconciler.errors import NotYet, ResourceError, UnsafePath, Unsupported
from reconciler.host import Completed, Host
from reconciler.modules import _aptget, _apthold
from reconciler.modules._dpkg import Database, Entry, compare, database
from reconciler.resource import Diff, State, Value

if TYPE_CHECKING:
    from reconciler.modules.package import Package

NAME = re.compile(
    r"(?P<name>[A-Za-z0-9*?][A-Za-z0-9+._*?-]*)(?::(?P<architecture>[a-z0-9][a-z0-9-]*))?"
    r"(?:(?P<relation>>=|=)(?P<version>[A-Za-z0-9][A-Za-z0-9.+:~*?-]*)|/(?P<release>[A-Za-z0-9][A-Za-z0-9._/-]*))?"
)
SUBJECT = re.compile(r"[^=>]*")
INSTALLED = re.compile(r"^Inst (\S+)", re.MULTILINE)
REMOVED = re.compile(r"^(?:Remv|Purg) (\S+)", re.MULTILINE)
SHOWN = 5


class Wish(NamedTuple):
    """The name of a package resource, taken apart."""

    name: str
    architecture: str = ""
    relation: str = ""
    version: str = ""
    release: str = ""
    file: str = ""

    @property
    def pattern(self) -> bool:
        """Whether the name stands for several packages."""
        return "*" in self.name or "?" in self.name

    def holds(self, version: str) -> bool:
        """Whether an installed version is what the wish asks for."""
        if self.relation == ">=":
            return compare(version, self.version) >= 0
        return not self.version or fnmatch.fnmatchcase(version, self.version)


class Candidates(NamedTuple):
    """What apt could install: the version that it would take, and all it knows, with sources."""

    candidate: str
    versions: dict[str, list[str]]


def subject(name: str) -> str:
    """What a name is about, without the version or release that it asks for; never fails."""
    if name.startswith("/"):
        return name
    found = SUBJECT.match(name)
    return (found.group() if found else name).partition("/")[0]


def conditions(name: str) -> tuple[str, str]:
    """The version and the release that a name asks for, as a person writes them; never fails."""
    found = None if name.startswith("/") else NAME.fullmatch(name)
    if found is None:
        return "", ""
    version = found["version"] or ""
    return (f">= {version}" if found["relation"] == ">=" else version), found["release"] or ""


def wish(package: Package, host: Host) -> Wish:
    """The name taken apart. Raises ResourceError for what cannot be a package's name."""
    if package.deb is not None or package.name.startswith("/"):
        return _from_file(package.deb or package.name, package, host)
    found = NAME.fullmatch(package.name)
    if found is None or package.name.endswith(".deb"):
        hint = "letters, digits and + . - only, then perhaps :architecture, =version, >=version or /release"
        if package.name.endswith(".deb"):
            hint = "a package file is given by its absolute path on the host; fetch it with a resource of its own"
        raise ResourceError(f"{package.name!r} cannot be the name of a package", hint=hint)
    return Wish(
        *(
            found[group] or ""
            for group in ("name", "architecture", "relation", "version", "release")
        )
    )


# -- looking -----------------------------------------------------------------------------


def read_ahead(host: Host, packages: Sequence[Package]) -> None:
    """Read dpkg's records once, and ask apt once about all packages that follow a repository."""
    records = database(host)
    wanted = {subject(p.name) for p in packages if p.state != "absent"}
    _aptget.declare(host, wanted)
    coming: set[str] = host.memo("package", "coming", set)
    coming |= {name for name in wanted if not ((entry := records.get(name)) and entry.working)}
    names: dict[str | None, set[str]] = {}
    for package in packages:
        follows = package.state == "latest" or conditions(package.name)[1]
        if follows and NAME.fullmatch(package.name) and not Wish(subject(package.name)).pattern:
            names.setdefault(package.default_release, set()).add(subject(package.name))
    for release, wanted in names.items():
        _ask(host, release, sorted(wanted))


def look(host: Host, package: Package) -> State:
    """What the package looks like now, in the words of the wish. Raises ResourceError."""
    _aptget.require(host)
    _apthold.require_one(package)
    desired = package.desired()
    if package.name == "*":
        if package.state not in ("present", "latest", "fixed"):
            raise Unsupported(f"every package at once cannot be '{package.state}'")
        return _everything(host, package, desired or {})
    asked = wish(package, host)
    if package.state == "build-dep":
        return _build_dependencies(host, asked)
    records = database(host)
    if package.state == "absent":
        return _leftovers(package, asked, records)
    names = expand(host, asked, records) if asked.pattern else [asked.name]
    if not names:
        raise ResourceError(f"no package matches '{asked.name}'", hint="see `apt-cache pkgnames`")
    seen = [_one(host, package, asked._replace(name=name), records) for name in names]
    unfit = [Diff(one, desired) for one in seen if Diff(one, desired)]
    if not asked.pattern or not unfit:
        return seen[0]
    fit = f"{len(seen) - len(unfit)} of {len(seen)} as wished"
    if all(diff.changed == {"hold"} for diff in unfit):
        return {**(seen[0] or {}), "hold": fit}
    return {"installed": fit}


def _one(host: Host, package: Package, asked: Wish, records: Database) -> State:
    desired = package.desired() or {}
    entry = records.get(asked.name, asked.architecture)
    if entry is None or not entry.working:
        if package.only_upgrade:
            return desired
        if entry is not None and entry.state not in ("not-installed", "config-files"):
            return {"installed": entry.state, "version": entry.version}
        stands_in = package.state == "present" and not asked.version and not asked.release
        providers = records.providers(asked.name) if stands_in else []
        if providers:
            _apthold.refuse_virtual(package, asked.name, providers)
        return {"installed": True} if providers else None
    seen: State = {"installed": "must be reinstalled" if entry.reinstall else True}
    if asked.version:
        seen["version"] = desired["version"] if asked.holds(entry.version) else entry.version
        if not asked.holds(entry.version):
            _guard(host, package, asked, entry)
    elif package.state == "latest":
        newest = newer(host, package, entry, asked)
        seen["version"] = f"{entry.version} ({newest} is available)" if newest else "latest"
    else:
        seen["version"] = entry.version
    if asked.release:
        sources = _candidates(host, package.default_release, asked).versions.get(entry.version, [])
        of_it = any(_of_release(host, source, asked.release) for source in sources)
        seen["release"] = asked.release if of_it else "another release"
    seen["hold"] = entry.held
    if package.lists_age is not None:
        seen["lists"] = _lists(host, package.lists_age)
    return seen


def newer(host: Host, package: Package, entry: Entry, asked: Wish) -> str:
    """The version that `latest` would bring; "" if the installed one is it. Raises ResourceError."""
    candidate = _candidates(host, package.default_release, asked).candidate
    order = compare(candidate, entry.version) if candidate else 0
    if order == 0 or (order < 0 and not package.allow_downgrade):
        return ""
    _apthold.refuse(package, entry, candidate)
    return candidate


def _guard(host: Host, package: Package, asked: Wish, entry: Entry) -> None:
    """A plan must fail where apt would refuse: packages on hold, versions that would go down."""
    _apthold.refuse(package, entry, asked.version)
    if package.allow_downgrade or asked.relation == ">=":
        return
    known = [
        one
        for one in _candidates(host, package.default_release, asked).versions
        if asked.holds(one)
    ]
    if known and all(compare(one, entry.version) < 0 for one in known):
        raise ResourceError(
            f"{asked.name} is installed at {entry.version}, and {asked.version} is older",
            hint="declare allow_downgrade: true, or wish a version that is not older",
        )


def _leftovers(package: Package, asked: Wish, records: Database) -> State:
    names = records.matching(asked.name) if asked.pattern else [asked.name]
    entries = [records.get(name, asked.architecture) for name in names]
    there = [
        one
        for one in entries
        if one is not None and one.state not in ("not-installed", "config-files")
    ]
    for entry in there:
        if entry.essential:
            raise Unsupported(
                f"{entry.name} is essential: without it the system does not work",
                hint="it is never removed",
            )
        _apthold.refuse(package, entry, "to remove it")
    if there:
        return {"installed": True, "version": ", ".join(entry.version for entry in there[:SHOWN])}
    left = any(one is not None and one.state == "config-files" for one in entries)
    return {"installed": False, "configuration": "left behind"} if package.purge and left else None


def expand(host: Host, asked: Wish, records: Database) -> list[str]:
    """All packages that are there or could be installed, by a shell pattern."""
    prefix = re.split(r"[*?]", asked.name)[0]
    words = ["pkgnames", prefix] if prefix else ["pkgnames"]
    known = host.memo("package", ("names", prefix), lambda: apt_cache(host, words)).out.split()
    matching = fnmatch.filter(known, asked.name)
    real = host.memo("package", ("real", asked.name), lambda: policy(host, None, sorted(matching)))
    return sorted(
        {name for name in matching if real.get(name) and real[name].candidate}
        | set(records.matching(asked.name))
    )


def _everything(host: Host, package: Package, desired: Mapping[str, Value]) -> State:
    seen: State = {}
    if package.lists_age is not None:
        seen["lists"] = _lists(host, package.lists_age)
    if "unfinished" in desired:
        seen["unfinished"] = _listed(database(host).broken())
    if "upgradable" in desired:
        out = simulate(
            host, [*_aptget.release(package.default_release), *_aptget.UPGRADES[package.upgrade]]
        )
        seen["upgradable"] = _listed(INSTALLED.findall(out))
    if "unneeded" in desired:
        seen["unneeded"] = _listed(REMOVED.findall(simulate(host, ["autoremove"])))
    return seen


def _build_dependencies(host: Host, asked: Wish) -> State:
    missing = INSTALLED.findall(simulate(host, ["build-dep", "--", asked.name]))
    return {"build_dependencies": f"missing: {_listed(missing)}" if missing else "installed"}


def _lists(host: Host, age: int) -> str:
    made = _aptget.lists_time(host)
    if made is None:
        return "none"
    old = int(time.time() - made)
    return f"at most {age} s old" if old <= age else f"{old} s old"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"


# -- asking apt --------------------------------------------------------------------------


def apt_cache(host: Host, words: Sequence[str]) -> Completed:
    """Ask apt without leaving a trace: as root it would rewrite its cache files."""
    if host.root == "/" and os.geteuid() == 0 and host.account("nobody") is not None:
        done = host.probe(["apt-cache", *words], check=False, user="nobody")
        if done.ok:
            return done
    return host.probe(["apt-cache", *_aptget.TRACELESS, *words])


def simulate(host: Host, words: Sequence[str]) -> str:
    """What apt-get would do, without locks and without a trace. Raises CommandFailed."""
    argv = ["apt-get", "-s", "-o", "Debug::NoLocking=true", *_aptget.TRACELESS, *words]
    return host.memo("package", tuple(argv), lambda: host.probe(argv, env=_aptget.ENVIRONMENT).out)


def policy(host: Host, release: str | None, names: Sequence[str]) -> dict[str, Candidates]:
    """What apt could install of each name. Names that it does not know are left out."""
    if not names:
        return {}
    return parse_policy(apt_cache(host, [*_aptget.release(release), "policy", "--", *names]).out)


def parse_policy(text: str) -> dict[str, Candidates]:
    """Read the output of `apt-cache policy NAME...`."""
    found: dict[str, Candidates] = {}
    name = version = ""
    for line in text.splitlines():
        if line and not line.startswith(" "):
            name = line.rstrip(":")
            found[name] = Candidates("", {})
        elif line.startswith("  Candidate: "):
            candidate = line.split(": ", 1)[1]
            found[name] = found[name]._replace(candidate="" if candidate == "(none)" else candidate)
        elif line.startswith(("     ", " *** ")) and line[5:6] not in ("", " "):
            version = line[5:].split()[0]
            found[name].versions[version] = []
        elif line.startswith("        ") and version:
            found[name].versions[version].append(line.strip())
    return found


def _ask(host: Host, release: str | None, names: Sequence[str]) -> None:
    known: dict[str, Candidates] = host.memo("package", ("policy", release), dict)
    missing = [name for name in names if name not in known]
    if missing:
        answers = policy(host, release, missing)
        known.update({name: answers.get(name, Candidates("", {})) for name in missing})


def _candidates(host: Host, release: str | None, asked: Wish) -> Candidates:
    name = f"{asked.name}:{asked.architecture}" if asked.architecture else asked.name
    _ask(host, release, [name])
    known: dict[str, Candidates] = host.memo("package", ("policy", release), dict)
    return known[name]


def _of_release(host: Host, source: str, release: str) -> bool:
    """Whether a source (`500 http://... bookworm/main amd64 Packages`) belongs to a release."""
    words = source.split()
    if len(words) < 3:
        return False
    if words[2].rpartition("/")[0] == release:
        return True
    listing = host.memo("package", "releases", lambda: apt_cache(host, ["policy"]).out)
    lines = [line.strip() for line in listing.splitlines()]
    at = lines.index(source) if source in lines else -1
    facts = lines[at + 1].split(" ", 1)[-1].split(",") if 0 <= at < len(lines) - 1 else []
    return f"a={release}" in facts or f"n={release}" in facts


def _from_file(path: str, package: Package, host: Host) -> Wish:
    """The package in a .deb file that nobody but root can have written."""
    found = host.lstat(path)
    if found is None:
        raise NotYet(f"{path} does not exist", hint="fetch it with a resource of its own first")
    with host.files.parent(path) as place:
        trusted = place.trusted
    if (
        not trusted
        or found.st_uid not in (0, os.geteuid())
        or stat.S_IMODE(found.st_mode) & 0o022
        or not stat.S_ISREG(found.st_mode)
    ):
        raise UnsafePath(
            f"{path} could have been written by somebody other than root",
            hint="keep package files owned by root, mode 0644, in a directory of root's",
        )
    key = ("deb", path, found.st_ino, found.st_mtime_ns, found.st_size)
    out = host.memo(
        "package",
        key,
        lambda: host.probe(["dpkg-deb", "-f", path, "Package", "Version", "Architecture"]).out,
    )
    fields = dict(line.split(": ", 1) for line in out.splitlines() if ": " in line)
    architecture = fields.get("Architecture", "")
    return Wish(
        fields.get("Package", ""),
        "" if architecture == "all" else architecture,
        "=" if package.allow_downgrade else ">=",
        fields.get("Version", ""),
        file=path,
    )
