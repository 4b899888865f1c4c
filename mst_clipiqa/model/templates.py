"""The five quality levels and their templates (section 3.3); tables and pages use them without loading torch."""

from __future__ import annotations

QUALITY_LEVELS = ("bad", "poor", "fair", "good", "perfect")
"""Worst first."""

TEMPLATES = tuple(f"a photo with {level} quality" for level in QUALITY_LEVELS)
"""The texts that the template head compares an image with, worst first."""
