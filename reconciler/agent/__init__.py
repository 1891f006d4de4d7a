"""The agent: pulls the state repo, refuses what it cannot trust, converges, heals, tells.

Two privileges. `provider` runs as the user `reconciler`, in a short-lived process: it fetches,
verifies and compiles. What runs as root takes catalogs, contents and secrets from it, over a
pipe or a socket, and is the standard library only: `worker`, one process for each run, and
`supervisor`, which is all that is in memory between runs.
"""
