"""Ways to a host: this machine's own engine process; SSH."""
