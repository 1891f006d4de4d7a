"""Render a Jinja2 template of the state repo and put the result on the host.

    - name: the site is configured
      template:
        src: site.conf.j2
        dest: /etc/nginx/conf.d/site.conf
        validate: nginx -t
      notify: reload nginx

`src` is looked for in templates/ of the role, then in templates/ of the state repo. An unknown
variable is an error. A `dest` that ends with a slash is a directory for the file, which loses
its ending `.j2`. Compile renders it and makes a `file` of the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from reconciler.resource import Lowered


@dataclass(frozen=True)
class Template(Lowered):
    src: str  #: File below templates/.
    dest: str  #: Absolute path on the host.
    owner: str = "root"  #: User name or number.
    group: str = "root"  #: Group name or number.
    mode: str = "0644"  #: Octal digits in quotes, symbolic, or `preserve`: 0755 for what Git has as executable, else 0644.
    backup: bool = False  #: Keep the replaced content beside the file, with the time in its name.
    force: bool = False  #: Replace what is there even if it is of another kind.
    follow: bool = False  #: If dest is a link, manage what it points to.
    validate: str | None = None  #: Command that checks the new content; `%s` is its path.
    trim_blocks: bool = True  #: The line break behind a block is not part of the result.
    lstrip_blocks: bool = False  #: Nor are the blanks before a block.
    newline_sequence: Literal["\n", "\r\n", "\r"] = "\n"  #: Ends of lines in the result.
    variable_start_string: str = "{{"  #: Where an expression starts.
    variable_end_string: str = "}}"  #: Where an expression ends.
    block_start_string: str = "{%"  #: Where a block starts.
    block_end_string: str = "%}"  #: Where a block ends.

    aliases: ClassVar[Mapping[str, str]] = {"path": "dest"}
    refused: ClassVar[Mapping[str, str]] = {
        "output_encoding": "everything is UTF-8",
        "decrypt": "leave secrets out of Git",
        "checksum": "Git knows the content; nothing needs to be checked",
    }
