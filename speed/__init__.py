"""One script a claim; each prints JSON, with the machine and the date."""
