"""Agentless runs: the engine packed for hosts that have nothing of ours."""
