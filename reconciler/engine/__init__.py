"""The engine: a catalog in, events and a report out. All that runs as root, all that travels."""
