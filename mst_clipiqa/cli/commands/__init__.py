"""One file a command of the command line; each defines a click command named `command`."""
