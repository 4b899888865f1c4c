"""Many splits, heads and targets, beside what others have published.

runs.py          plan, features ............... -> a BenchmarkRun a target, head and split
results.py       runs ......................... -> JSON, tables, comparisons
published.csv    what others report, each figure with its protocol and source
"""
