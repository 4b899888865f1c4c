"""Many splits, heads and targets, compared with published results.

runs.py            plan, features ............... -> one BenchmarkRun per target, head and split
resuming.py        runs, one by one ............. -> a file, from which a stopped benchmark resumes
coverage.py        residuals on the test part ... -> how often 90 % intervals contain the rating
results.py         runs ......................... -> JSON, tables, comparisons
over_prompts.py    predictions of splits that share their test images -> intervals over prompts
compare_results.py two results .................. -> is B better than A?
assess.py          scores, ratings .............. -> their agreement, for a model or a table (match.py)
assess_pairs.py    scores, preferences .......... -> how often they agree
published.csv      published results, each with its protocol and source
"""
