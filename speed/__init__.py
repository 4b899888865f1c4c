"""One script per section of docs/performance.md; each prints JSON with the machine and the date.

claims.py has the claims in words, report.py runs the scripts and writes the page, plots.py draws its charts.
"""
