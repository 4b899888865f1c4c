"""One script per claim; each prints JSON with the machine and the date."""
