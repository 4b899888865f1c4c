"""Seeded mutation of all outside input: ``python -m fuzz SURFACE --count N``, or ``make fuzz N=...``."""
