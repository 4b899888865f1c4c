"""What people do with scores, as functions of rows: rank, filter, move, compare, watch.

    read.py       a table, from a file or from stdin, to rows
    rows.py       what a row holds: numbers, text, its image; the failed rows apart
    images.py     the image of a row: a file, or one inside a tar or Parquet file
    frames.py     rows of single frames -> one row per animated image
    unfamiliar.py images unlike the training images: how many, and the words of caution
    rank.py       rank and pick: best first, overall or prompt by prompt
    filter.py     filter: which rows pass, and where their images would go
    transfer.py   files copied or moved so that nothing is ever overwritten or lost
    compare.py    two images: which, by how much, how sure
    settings.py   compare-settings: what a generation setting changed
    pairing.py    two tables -> the values to compare: by prompt, by file name, or not paired
    both_tables.py two tables paired in that way, and what each score has to compare
    verdict.py    an interval of a difference -> better, worse or neither, in words
    change.py     how one score changed, in figures and in words
    drift.py      two tables: has anything changed?
    gate.py       conditions on a table: failures, scored rows, not worse than an older one
    thresholds.py conditions on its scores: means, quantiles, shares

A row is a dict with the columns of the table of scores; no function here changes a row that it is given. A list of rows
will do wherever a table does; a large table is lighter as a ``Table``, which ``read.py`` returns.
"""
