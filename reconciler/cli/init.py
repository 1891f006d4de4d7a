"""`reconciler init`: a new state repo that compiles, explains itself and can be applied at once."""

from __future__ import annotations

import argparse
import os

from reconciler.cli.console import Output, Span
from reconciler.errors import UsageError

SITE = """\
# Which hosts get what. Plays are read from top to bottom.
# A resource is written as in Ansible: a module's name, and its parameters.
#   all types:          reconciler modules list
#   one type:           reconciler modules doc file
#   what would change:  reconciler plan --local

- hosts: all
  roles: [motd]

# A play for one group of the inventory, with resources of its own:
#
# - hosts: web
#   vars: {workers: 4}
#   resources:
#     - name: nginx is installed
#       package: {name: nginx, state: present}
#     - name: the site is configured
#       template: {src: site.conf.j2, dest: /etc/nginx/conf.d/site.conf, mode: "0644"}
#       notify: reload nginx
#     - service: {name: nginx, state: started, enabled: true}
#   handlers:
#     - name: reload nginx
#       service: {name: nginx, state: reloaded}
"""
ROLE = """\
# A role is a reusable group of resources: roles/NAME/main.yml, with defaults.yml for its
# variables, handlers.yml, files/ and templates/ beside it.

- name: who looks after this machine
  template: {src: motd.j2, dest: /etc/motd, mode: "0644"}
"""
DEFAULTS = """\
# The weakest values of this role's variables; an inventory or a play overrides them.
motd_owner: the operators
"""
MOTD = """\
{{ facts.hostname }} is declared in Git and kept by reconciler.
Changes made by hand are undone. It is looked after by {{ motd_owner }}.
"""
HOSTS = """\
# The inventory, in Ansible's format. Use it with: -i inventories/example
# Hosts that are reached over SSH need `ansible_host`, `ansible_user` and the like.
all:
  hosts:
    localhost:
      ansible_connection: local
  children:
    web:
      hosts: {}
"""
GROUP_VARS = """\
# Variables of every host of this inventory.
motd_owner: the operators of the example
"""
IGNORE = """\
# What editors and Python leave behind; secrets in plain text never belong into Git.
*.swp
*~
__pycache__/
*.pyc
.env
*.key
"""
FILES = {
    "site.yml": SITE,
    "roles/motd/main.yml": ROLE,
    "roles/motd/defaults.yml": DEFAULTS,
    "roles/motd/templates/motd.j2": MOTD,
    "inventories/example/hosts.yml": HOSTS,
    "inventories/example/group_vars/all.yml": GROUP_VARS,
    ".gitignore": IGNORE,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of this verb."""
    parser.add_argument(
        "directory", metavar="DIRECTORY", help="the directory to make; it must be new or empty"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Write the files. Raises UsageError for a place that cannot take them."""
    directory: str = args.directory
    _claim(directory)
    for path, text in FILES.items():
        place = os.path.join(directory, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "x", encoding="utf-8") as file:
            file.write(text)
    from reconciler.source.git import init

    init(directory)
    if out.as_json:
        out.document(
            {
                "schema": ["reconciler/init", 1],
                "directory": os.path.abspath(directory),
                "files": sorted(FILES),
            }
        )
        return 0
    out.line("made a state repo in ", Span(directory, "bold"))
    for path in FILES:
        out.line("  ", path)
    out.line()
    out.line(f"next: cd {directory} && reconciler plan --local")
    return 0


def _claim(directory: str) -> None:
    try:
        os.makedirs(directory, exist_ok=True)
        inside = os.listdir(directory)
    except OSError as error:
        raise UsageError(
            f"cannot make {directory}: {error.strerror}",
            hint="name a directory that does not exist yet",
        ) from error
    if inside:
        raise UsageError(
            f"{directory} is not empty: it has {min(inside)}{' and more' if len(inside) > 1 else ''}",
            hint="name a new directory; nothing was changed",
        )
