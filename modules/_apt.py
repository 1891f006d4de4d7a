"""The package provider of Debian and its relatives: one transaction for all that differs.

apt refuses a whole transaction for one bad name, and dpkg stops at the first package that
cannot be configured. So what cannot be installed is found by simulation and taken out before
the act, and what an act left undone is tried again without the one that failed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from reconciler.errors import CommandFailed, ResourceError
from reconciler.host import Completed, Host
from reconciler.modules import _aptget, _apthold
from reconciler.modules._aptlook import (
    REMOVED,
    Wish,
    apt_cache,
    conditions,
    expand,
    look,
    policy,
    read_ahead,
    subject,
    wish,
)
from reconciler.modules._aptwords import advice, is_unknown, reason
from reconciler.modules._dpkg import ABSENT, Entry, compare, database
from reconciler.resource import Diff
from reconciler.words import did_you_mean

if TYPE_CHECKING:
    from reconciler.modules.package import Package

__all__ = ["conditions", "converge", "look", "read_ahead", "subject"]

NEAR = 3
Failures = dict[int, ResourceError]


class Job(NamedTuple):
    """One package resource of the batch. number: its place in the batch."""

    number: int
    package: Package
    asked: Wish

    @property
    def removes(self) -> bool:
        return self.package.state == "absent"

    @property
    def full_name(self) -> str:
        """The name as apt takes it, with the architecture where one was asked for."""
        return (
            f"{self.asked.name}:{self.asked.architecture}"
            if self.asked.architecture
            else self.asked.name
        )


def converge(host: Host, packages: Sequence[Package]) -> list[ResourceError | None]:
    """Bring all packages to what is wished, as far as each of them can be."""
    work = _Work(host, packages)
    work.carry_out()
    return [work.failures.get(number) for number in range(len(packages))]


class _Work:
    """One batch on its way; `failures` says what went wrong for which of its members."""

    def __init__(self, host: Host, packages: Sequence[Package]) -> None:
        self.host = host
        self.failures: Failures = {}
        self.patience = float(max(package.lock_timeout for package in packages))
        self.packages = packages
        self.jobs: list[Job] = []
        self.refreshed = False
        self.stale: ResourceError | None = None
        for number, package in enumerate(packages):
            try:
                _aptget.require(host)
                asked = Wish("*") if package.name == "*" else wish(package, host)
                self.jobs.append(Job(number, package, asked))
            except ResourceError as error:
                self.failures[number] = error

    def carry_out(self) -> None:
        """Repair, hold, refresh, remove and install, upgrade: in this order, each for all."""
        self._repair()
        resting = [job for job in self.jobs if self._lacks_only_hold(job)]
        self._select(resting)
        self._refresh_if_outdated([job for job in self.jobs if job not in resting])
        groups: dict[tuple[object, ...], list[Job]] = {}
        for job in self._open(self.jobs):
            groups.setdefault(_options(job.package), []).append(job)
        for members in groups.values():
            single = [
                job
                for job in members
                if job.package.name == "*" or job.package.state == "build-dep"
            ]
            together = [job for job in members if job not in single]
            try:
                with _aptget.service_policy(self.host, members[0].package.policy_rc_d):
                    if together:
                        with self._free(together):
                            self._transaction(together)
                    for job in single:
                        self._alone(job)
            except ResourceError as error:
                for job in self._open(members):
                    self.failures[job.number] = error

    # -- before --------------------------------------------------------------------------

    def _repair(self) -> None:
        """An interrupted dpkg refuses everything else until it has finished."""
        records = database(self.host)
        broken = records.broken()
        if not broken and not records.interrupted:
            return
        _aptget.repair(self.host, self.patience, self.packages[0].dpkg_options)
        _aptget.changed(self.host)
        names = f": {', '.join(broken[:NEAR])}" if broken else ""
        self.host.warnings.append(f"dpkg had been interrupted and was made to finish{names}")

    def _refresh_if_outdated(self, jobs: Sequence[Job]) -> None:
        ages = [job.package.lists_age for job in jobs if job.package.lists_age is not None]
        ages += [
            job.package.cache_valid_time
            for job in jobs
            if job.package.update_cache or job.package.cache_valid_time
        ]
        installs = any(not job.removes and job.asked.name != "*" for job in jobs)
        asked = any(job.package.lists_age is not None or job.package.upgrades for job in jobs)
        if (installs or asked) and _aptget.lists_outdated(self.host, min(ages) if ages else None):
            self._refresh()

    def _refresh(self) -> None:
        self.refreshed = True
        self.stale = _aptget.update(self.host, self.patience)
        if self.stale is not None:
            self.host.warnings.append(self.stale.message)
        _aptget.changed(self.host)

    # -- holds ---------------------------------------------------------------------------

    def _lacks_only_hold(self, job: Job) -> bool:
        if job.package.hold is None:
            return False
        try:
            return Diff(look(self.host, job.package), job.package.desired()).changed == {"hold"}
        except ResourceError:  # newer lists may bring what it takes
            return False

    @contextmanager
    def _free(self, jobs: Sequence[Job]) -> Iterator[None]:
        """Within this, no declared hold keeps its own package from changing."""
        self._select(jobs, hold=False)
        try:
            yield
        finally:
            self._select(jobs)

    def _select(self, jobs: Sequence[Job], *, hold: bool | None = None) -> None:
        """Have dpkg hold, or not, what declares it. hold: this rather than what is declared."""
        records = database(self.host)
        wishes: list[tuple[Entry, bool]] = []
        declaring = [job for job in jobs if job.package.hold is not None]
        for job in declaring:
            asked = job.asked
            names = records.matching(asked.name) if asked.pattern else [asked.name]
            entries = filter(None, [records.get(name, asked.architecture) for name in names])
            wish = bool(job.package.hold if hold is None else hold)
            wishes += [(entry, wish) for entry in entries]
        try:
            _apthold.select(self.host, wishes, self.patience)
        except ResourceError as error:
            for job in declaring:
                self.failures.setdefault(job.number, error)

    # -- one transaction -----------------------------------------------------------------

    def _transaction(self, jobs: list[Job]) -> None:
        jobs = self._possible(jobs)
        purged = [job for job in jobs if job.removes and job.package.purge]
        names = [word.rstrip("-") for word in self._words(purged)] + [
            job.full_name for job in purged
        ]
        said = ""
        words = self._words(jobs)
        if words:
            try:
                self._run(jobs, ["install", "--", *words])
            except CommandFailed as error:
                said = error.output
        left = self._open(jobs)
        if said and left:
            self._settle([job for job in left if job not in purged], said)
        # Purged by themselves: --purge above would hold for packages that are removed along, too.
        records = database(self.host)
        names = [name for name in sorted(set(names)) if _left_behind(records.get(*name.split(":")))]
        if names:
            self._run(purged, ["purge", "--", *names])

    def _settle(self, left: list[Job], said: str) -> None:
        """One failure stays one failure: the others get a transaction of their own."""
        if "Failed to fetch" in said and not self.refreshed:
            self._refresh()
        _aptget.repair(self.host, self.patience, left[0].package.dpkg_options)
        _aptget.changed(self.host)
        for job in self._open(left):
            try:
                self._run([job], ["install", "--", *self._words([job])])
                output = said
            except CommandFailed as error:
                output = error.output
            if self._open([job]):
                self.failures[job.number] = ResourceError(
                    reason(output, job.asked.name), hint=advice(output)
                )

    def _run(self, jobs: Sequence[Job], words: Sequence[str]) -> None:
        package = jobs[0].package
        try:
            _aptget.run(
                self.host,
                [*_flags(self.host, jobs), *words],
                self.patience,
                dpkg_options=package.dpkg_options,
            )
        finally:
            _aptget.changed(self.host)

    def _alone(self, job: Job) -> None:
        """What concerns everything installed, or build dependencies."""
        package = job.package
        try:
            if package.state == "build-dep":
                self._run([job], ["build-dep", "--", job.full_name])
            if package.state == "fixed":
                self._run([job], ["-f", "install"])
            if package.upgrades:
                self._run([job], [*_aptget.UPGRADES[package.upgrade]])
            if package.name == "*" and package.autoremove:
                self._run([job], ["autoremove"])
        except CommandFailed as error:
            self.failures[job.number] = ResourceError(
                reason(error.output, job.asked.name), hint=advice(error.output)
            )

    def _open(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that differ in more than a hold. What cannot even be looked at fails here."""
        found: list[Job] = []
        for job in jobs:
            if job.number in self.failures:
                continue
            try:
                if Diff(look(self.host, job.package), job.package.desired()).changed - {"hold"}:
                    found.append(job)
            except ResourceError as error:
                self.failures[job.number] = error
        return found

    # -- what cannot be done -------------------------------------------------------------

    def _possible(self, jobs: list[Job]) -> list[Job]:
        """Take out what apt would refuse, until it refuses nothing; each gets its own error."""
        while jobs:
            jobs = self._above_minimum(jobs)
            done = self._simulated(jobs)
            output = f"{done.out}\n{done.err}"
            if not self.refreshed and any(is_unknown(job.asked, output) for job in jobs):
                self._refresh()
                continue
            refused = self._unwanted(jobs, output) if done.ok else self._blamed(jobs, output)
            if not refused:
                return jobs
            self.failures.update(refused)
            jobs = [job for job in jobs if job.number not in refused]
        return jobs

    def _above_minimum(self, jobs: list[Job]) -> list[Job]:
        """Without those whose `>=` nothing that apt knows can fulfil: it cannot be told of them."""
        fit: list[Job] = []
        for job in jobs:
            if job.asked.relation == ">=" and not job.asked.file:
                known = policy(self.host, job.package.default_release, [job.full_name]).get(
                    job.full_name
                )
                newest = known.candidate if known is not None else ""
                if newest and compare(newest, job.asked.version) < 0:
                    self.failures[job.number] = ResourceError(
                        f"the newest {job.asked.name} is {newest}, the wish is >= {job.asked.version}"
                    )
                    continue
            fit.append(job)
        return fit

    def _blamed(self, jobs: list[Job], output: str) -> Failures:
        """Who is to blame for a refusal: whom apt names; else who fails alone; else who comes late."""
        named = {
            job.number: self._refusal(job, output) for job in jobs if is_unknown(job.asked, output)
        }
        if named:
            return named
        alone: Failures = {}
        for job in jobs:
            said = self._trial([job])
            if said:
                alone[job.number] = self._refusal(job, said)
        if alone:
            return alone
        kept: list[Job] = []
        for job in jobs:
            said = self._trial([*kept, job])
            if said:
                return {
                    job.number: ResourceError(
                        f"{reason(said, job.asked.name)}; it does not go together with the packages declared before it"
                    )
                }
            kept.append(job)
        return {}

    def _trial(self, jobs: list[Job]) -> str:
        done = self._simulated(jobs)
        return "" if done.ok else f"{done.out}\n{done.err}"

    def _simulated(self, jobs: list[Job]) -> Completed:
        return _aptget.simulate(
            self.host, [*_flags(self.host, jobs), "install", "--", *self._words(jobs)]
        )

    def _unwanted(self, jobs: list[Job], output: str) -> Failures:
        """Removals that nobody declared: a warning, unless something must not go."""
        extra = self._undeclared_removals(output)
        if not extra:
            return {}
        wanted = _aptget.declared(self.host)
        records = database(self.host)
        refused: Failures = {}
        for job in jobs:
            own = extra if len(jobs) == 1 else self._removals_of(job)
            essential = [
                name for name in own if (entry := records.get(name)) is not None and entry.essential
            ]
            needed = sorted(name for name in own if name in wanted)
            act = "removing" if job.removes else "installing"
            if essential or needed:
                why = "essential" if essential else "declared to be installed"
                refused[job.number] = ResourceError(
                    f"{act} {job.asked.name} would remove {', '.join(essential or needed)}, which is {why}"
                )
            elif own and job.package.fail_on_autoremove:
                refused[job.number] = ResourceError(
                    f"{act} {job.asked.name} would remove {', '.join(own)}",
                    hint="declare them absent too, or drop fail_on_autoremove",
                )
        if not refused and not all(job.package.autoremove for job in jobs):
            self.host.warnings.append(f"not declared absent, but removed along: {', '.join(extra)}")
        return refused

    def _removals_of(self, job: Job) -> list[str]:
        return self._undeclared_removals(self._simulated([job]).out)

    def _undeclared_removals(self, output: str) -> list[str]:
        """What would go that no resource of the batch wants away, in this group or another."""
        declared = {
            word.rstrip("-").partition(":")[0]
            for job in self.jobs
            if job.removes
            for word in self._words([job])
        }
        return [name for name in REMOVED.findall(output) if name.partition(":")[0] not in declared]

    def _refusal(self, job: Job, output: str) -> ResourceError:
        """The precise error for one job, with the nearest name or the versions that there are."""
        name, package = job.asked.name, job.package
        if not is_unknown(job.asked, output):
            return ResourceError(reason(output, job.asked.name), hint=advice(output))
        stale = f"; {self.stale.message}" if self.stale is not None else ""
        known = policy(self.host, package.default_release, [job.full_name]).get(job.full_name)
        if known is not None and known.versions and (job.asked.version or job.asked.release):
            asked = job.asked.version or f"release {job.asked.release}"
            return ResourceError(
                f"{name} has no {asked}{stale}",
                hint=f"there is: {', '.join(list(known.versions)[:NEAR])}",
            )
        names = apt_cache(self.host, ["pkgnames", name[:2]]).out.split()
        hint = did_you_mean(name, names, most=len(names)) or "is its repository declared?"
        return ResourceError(f"there is no package '{job.full_name}'{stale}", hint=hint)

    # -- words ---------------------------------------------------------------------------

    def _words(self, jobs: Sequence[Job]) -> list[str]:
        """What stands behind `install --`: names to install, and with a final `-` to remove."""
        words: list[str] = []
        records = database(self.host)
        for job in jobs:
            asked = job.asked
            if job.removes:
                names = records.matching(asked.name) if asked.pattern else [job.full_name]
                there = [name for name in names if _present(records.get(*name.split(":")))]
                words += [f"{name}-" for name in there]
            elif asked.file:
                words.append(asked.file)
            elif asked.pattern:
                words += expand(self.host, asked, records)
            elif asked.relation == "=":
                words.append(f"{job.full_name}={asked.version}")
            elif asked.release:
                words.append(f"{job.full_name}/{asked.release}")
            else:
                words.append(job.full_name)
        return words


def _present(entry: Entry | None) -> bool:
    return entry is not None and entry.state not in ABSENT


def _left_behind(entry: Entry | None) -> bool:
    return entry is not None and entry.state == "config-files"


def _options(package: Package) -> tuple[object, ...]:
    """Packages with the same options can share a transaction."""
    shared = (
        package.autoremove,
        package.dpkg_options,
        package.policy_rc_d,
        package.allow_change_held_packages,
    )
    if package.state == "absent":
        return (None, None, False, False, False, *shared)
    return (
        package.install_recommends,
        package.default_release,
        package.allow_downgrade,
        package.allow_unauthenticated,
        package.only_upgrade,
        *shared,
    )


def _flags(host: Host, jobs: Sequence[Job]) -> list[str]:
    """The options of a group, as apt-get takes them."""
    if not jobs:
        return []
    package = next((job.package for job in jobs if not job.removes), jobs[0].package)
    flags = list(_aptget.release(package.default_release))
    if package.install_recommends is not None:
        flags += [
            "-o",
            f"APT::Install-Recommends={'true' if package.install_recommends else 'false'}",
        ]
    wished = {
        "--allow-downgrades": package.allow_downgrade,
        "--allow-change-held-packages": package.allow_change_held_packages,
        "--allow-unauthenticated": package.allow_unauthenticated,
        "--only-upgrade": package.only_upgrade,
        "--auto-remove": package.autoremove,
        "--reinstall": any(_reinstalls(host, job) for job in jobs),
    }
    return flags + [flag for flag, on in wished.items() if on]


def _reinstalls(host: Host, job: Job) -> bool:
    """Whether apt must be told to install again what it may have for installed already."""
    if job.package.state == "fixed" or job.asked.file:
        return True
    if job.removes:
        return False
    entry = database(host).get(*job.full_name.split(":"))
    return entry is not None and entry.state == "half-installed"  # dpkg was killed over it
