"""The command line: one thin file per verb, and the only room that prints."""
