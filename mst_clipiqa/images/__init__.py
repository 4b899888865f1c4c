"""Bytes to RGB: the one place where image files are decoded."""
