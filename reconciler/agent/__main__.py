"""`python -m reconciler.agent`: the supervisor."""

import sys

from reconciler.agent.digests import small

with small():
    from reconciler.transport.arrival import late, lighten

    lighten()
    # Only runs need it, and they are forks: what they import goes with them.
    with late("sqlite3"):
        from reconciler.agent.supervisor import main

sys.exit(main(*sys.argv[1:2]))
