"""Put a file of the state repo, or a text, on the host.

    - name: the logo
      copy: {src: logo.svg, dest: /srv/www/logo.svg}
    - name: who may log in
      copy:
        content: "{{ admins | join('\\n') }}\\n"
        dest: /etc/admins
        mode: "0600"

`src` is looked for in files/ of the role, then in files/ of the state repo. A directory is copied
with all that is in it: into `dest`, or with a slash at its end, as `dest`. A `dest` that ends
with a slash is a directory for the file. Compile makes a `file` of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from reconciler.resource import Lowered


@dataclass(frozen=True)
class Copy(Lowered):
    dest: str  #: Absolute path on the host.
    src: str | None = None  #: File or directory below files/.
    content: str | list[object] | dict[str, object] | None = (
        None  #: The content itself, instead of `src`; lists and mappings become JSON.
    )
    owner: str = "root"  #: User name or number.
    group: str = "root"  #: Group name or number.
    mode: str = "0644"  #: Octal digits in quotes, symbolic, or `preserve`: 0755 for what Git has as executable, else 0644.
    directory_mode: str = "0755"  #: Mode of the directories that are made when `src` is one.
    backup: bool = False  #: Keep the replaced content beside the file, with the time in its name.
    force: bool = False  #: Replace what is there even if it is of another kind.
    follow: bool = False  #: If dest is a link, manage what it points to.
    validate: str | None = None  #: Command that checks the new content; `%s` is its path.

    aliases: ClassVar[Mapping[str, str]] = {"path": "dest"}
    refused: ClassVar[Mapping[str, str]] = {
        "remote_src": "what is on the host already is no desired state: put the file into files/, or use `file: {state: hard}`",
        "decrypt": "leave secrets out of Git",
        "checksum": "Git knows the content; nothing needs to be checked",
        "local_follow": "links in the state repo are never followed",
    }
