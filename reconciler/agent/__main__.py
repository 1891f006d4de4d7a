"""`python -m reconciler.agent`: the supervisor."""

import sys

from reconciler.agent.supervisor import main

sys.exit(main(*sys.argv[1:2]))
