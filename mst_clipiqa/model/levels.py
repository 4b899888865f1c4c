"""The names of the five quality levels; a file of its own, as tables and pages read them without torch."""

from __future__ import annotations

QUALITY_LEVELS = ("bad", "poor", "fair", "good", "perfect")
"""Worst first, as the templates of section 3.3 name them."""
