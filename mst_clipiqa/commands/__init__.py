"""One file a verb of the command line; each defines a click command named `command`."""
