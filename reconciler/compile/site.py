"""site.yml and roles: which hosts get what, read once for all hosts."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

from reconciler.compile import advice
from reconciler.compile.gather import Complaints
from reconciler.compile.items import Item, Reader
from reconciler.compile.lost import Lost
from reconciler.compile.types import Types
from reconciler.errors import ConfigError, Mark
from reconciler.tree import Tree
from reconciler.words import did_you_mean
from reconciler.yamldoc import Map, Seq, check_size, load

SITE = "site.yml"
PLAY_KEYS = (
    "name", "hosts", "vars", "roles", "resources", "handlers", "tags", "become", "become_user",
    "become_method", "become_flags", "gather_facts",
)  # fmt: skip
ROLE_KEYS = ("role", "name", "vars", "when", "tags", "become", "become_user")
NOT_OF_ROLES = ("delegate_to", "ignore_errors", "run_once", "environment", "serial")
#: What Ansible's role layout has and ours has elsewhere.
ELSEWHERE = {
    "tasks": "write the resources into main.yml of the role",
    "defaults": "write them into defaults.yml of the role",
    "handlers": "write them into handlers.yml of the role",
    "vars": "write them into defaults.yml of the role, or under `vars` where the role is listed",
    "meta": "list the roles that it needs before it, in site.yml",
    "library": "move the modules to modules/ of the state repo",
    "tasks.yml": "name it main.yml",
    "vars.yml": "write them into defaults.yml of the role, or under `vars` where the role is listed",
}


@dataclass(frozen=True)
class Role:
    """A role: its resources, defaults and handlers."""

    name: str
    items: tuple[Item, ...]
    handlers: tuple[Item, ...]
    defaults: Map | None


@dataclass(frozen=True)
class RoleUse:
    """A role where a play lists it."""

    role: Role
    mark: Mark
    vars: Map | None = None
    when: tuple[tuple[object, Mark], ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Play:
    """Which hosts get which roles and resources. pattern: of hosts."""

    name: str
    pattern: str
    mark: Mark
    vars: Map | None
    roles: tuple[RoleUse, ...]
    items: tuple[Item, ...]
    handlers: tuple[Item, ...]
    tags: tuple[str, ...]


@dataclass
class Site:
    """All plays. errors: everything that is wrong whatever the host. lost: what is not in them."""

    plays: list[Play] = field(default_factory=list)
    errors: Complaints = field(default_factory=Complaints)
    lost: Lost = field(default_factory=Lost)


@functools.lru_cache(maxsize=1024)
def _parsed(text: bytes, path: str) -> object:
    """A file's document: parsed once for equal content, whatever the revision. Not to be changed."""
    return load(text, path)


class SiteReader:
    """Reads a tree's site.yml with the roles that it lists."""

    def __init__(self, tree: Tree, types: Types) -> None:
        self._tree = tree
        self._site = Site()
        self._wrong = self._site.errors
        self._wrong += types.errors
        self._reader = Reader(types, self._wrong)
        self._keywords = self._reader.keywords
        self._roles: dict[str, Role | None] = {}

    def read(self) -> Site:
        """The site, with its errors."""
        document = self._load(SITE)
        if document is None:
            if not self._site.errors:
                self._wrong.add("there are no plays", Mark(SITE), "start with: - hosts: all")
        elif not isinstance(document, Seq):
            self._wrong.add(
                f"{SITE} is a list of plays", Mark(SITE, 1, 1), "start with: - hosts: all"
            )
        else:
            for index, one in enumerate(document):
                if isinstance(one, Map):
                    self._site.plays += self._play(one)
                else:
                    self._wrong.add(
                        "expected a play: a mapping", document.place(index), "write - hosts: all"
                    )
        self._site.lost = self._reader.lost
        if len(self._wrong) > self._reader.told:
            self._site.lost.add_anything()
        return self._site

    def _load(self, path: str) -> object:
        if self._tree.entry(path) is None:
            if path == SITE:
                self._wrong.add(
                    f"there is no {SITE}",
                    Mark(SITE),
                    "`reconciler init` makes one; -C names the state repo",
                )
            return None
        try:
            entry = self._tree.entry(path)
            # A file that is too large is not even read.
            check_size(entry.size if entry is not None else 0, path)
            return _parsed(self._tree.read(path), path)
        except ConfigError as error:
            error.mark = error.mark or Mark(path)
            self._wrong.append(error)
            return None

    def _play(self, node: Map) -> Iterator[Play]:
        for key in node:
            if key not in PLAY_KEYS:
                self._unknown(str(key), node.key_place(key), PLAY_KEYS, "a play")
        hosts = node.get("hosts")
        if isinstance(hosts, Seq) and all(isinstance(one, str) for one in hosts):
            hosts = ",".join(hosts)
        if not isinstance(hosts, str) or not hosts.strip():
            self._wrong.add(
                "a play needs `hosts`",
                node.key_place("hosts"),
                "write hosts: all, or a group or pattern",
            )
            return
        if "{{" in hosts:
            self._wrong.add(
                "`hosts` cannot be a template",
                node.place("hosts"),
                "name groups; --limit chooses among them",
            )
            return
        reader, keywords = self._reader, self._keywords
        resources, handlers = node.get("resources"), node.get("handlers")
        yield Play(
            name=str(node.get("name") or ""),
            pattern=hosts,
            mark=node.place("hosts"),
            vars=keywords.vars(node),
            roles=tuple(self._uses(node)),
            items=tuple(reader.items(resources, node.place("resources"))),
            handlers=tuple(reader.items(handlers, node.place("handlers"), handlers=True)),
            tags=keywords.tags(node),
        )

    def _unknown(self, key: str, mark: Mark, known: tuple[str, ...], what: str) -> None:
        if key in advice.KEYWORDS:
            self._wrong.add(f"'{key}' is not supported", mark, advice.KEYWORDS[key])
        else:
            self._wrong.add(
                f"{what} has no '{key}'",
                mark,
                did_you_mean(key, known) or f"it has {', '.join(known)}",
            )

    # -- roles ---------------------------------------------------------------------------

    def _uses(self, node: Map) -> Iterator[RoleUse]:
        listed = node.get("roles")
        if listed is None:
            return
        if not isinstance(listed, Seq):
            self._wrong.add("`roles` is a list", node.place("roles"), "write roles: [base, nginx]")
            return
        for index, one in enumerate(listed):
            mark = listed.place(index)
            if isinstance(one, str):
                role = self._role(one, mark)
                if role is not None:
                    yield RoleUse(role, mark)
            elif isinstance(one, Map):
                yield from self._use(one, mark)
            else:
                self._wrong.add(
                    "expected the name of a role",
                    mark,
                    "write - name, or - {role: name, vars: {...}}",
                )

    def _use(self, node: Map, mark: Mark) -> Iterator[RoleUse]:
        for key in node:
            if key not in ROLE_KEYS:
                hint = f"parameters of a role stand under vars: {{{key}: ...}}"
                if key in NOT_OF_ROLES:
                    hint = advice.KEYWORDS[str(key)]
                self._wrong.add(f"a role has no '{key}'", node.key_place(key), hint)
        name = node.get("role", node.get("name"))
        if not isinstance(name, str):
            self._wrong.add("which role?", mark, "write - {role: name}")
            return
        role = self._role(name, node.place("role" if "role" in node else "name"))
        keywords = self._keywords
        variables, tags = keywords.vars(node), keywords.tags(node)
        when = tuple(keywords.when(node))
        if role is not None:
            yield RoleUse(role, mark, variables, when, tags)

    def _role(self, name: str, mark: Mark) -> Role | None:
        if name not in self._roles:
            self._roles[name] = self._read_role(name, mark)
        return self._roles[name]

    def _read_role(self, name: str, mark: Mark) -> Role | None:
        known = [
            entry.path.rpartition("/")[2]
            for entry in self._tree.listdir("roles")
            if entry.kind == "directory"
        ]
        if name not in known:
            self._wrong.add(
                f"there is no role '{name}'",
                mark,
                did_you_mean(name, known) or f"make roles/{name}/main.yml",
            )
            return None
        top = f"roles/{name}"
        for entry in self._tree.listdir(top):
            base = entry.path.rpartition("/")[2]
            if base in ELSEWHERE:
                self._wrong.add(
                    f"{base} is not part of a role here", Mark(entry.path), ELSEWHERE[base]
                )
        defaults = self._load(f"{top}/defaults.yml")
        if defaults is not None and not isinstance(defaults, Map):
            self._wrong.add(
                "defaults are a mapping", Mark(f"{top}/defaults.yml", 1, 1), "write name: value"
            )
            defaults = None
        if defaults is not None:
            self._keywords.check_names(defaults)
        return Role(
            name=name,
            items=tuple(self._file(f"{top}/main.yml", handlers=False)),
            handlers=tuple(self._file(f"{top}/handlers.yml", handlers=True)),
            defaults=defaults,
        )

    def _file(self, path: str, *, handlers: bool) -> Iterator[Item]:
        yield from self._reader.items(self._load(path), Mark(path, 1, 1), handlers=handlers)
