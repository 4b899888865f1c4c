"""Mutation testing: small faults are put into the package one at a time, to see whether the tests notice."""
