"""Seeded mutation of everything that comes from outside: `python -m fuzz SURFACE --count N`, or `make fuzz N=...`."""
