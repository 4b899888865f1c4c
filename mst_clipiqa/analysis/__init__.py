"""What people do with scores, as functions of rows: rank, filter, move, compare, watch.

    reading.py    a table, from a file or from stdin, to rows
    scores.py     what a row holds: numbers, text, its image; the failed rows apart
    order.py      rank and pick: best first, overall or prompt by prompt
    keep.py       filter: which rows pass, and where their images would go
    transfer.py   files copied or moved so that nothing is ever overwritten or lost
    compare.py    two images: which, by how much, how sure
    drift.py      two tables paired by prompt: has anything changed?
    means.py      a mean and its bootstrap interval

A row is a dict with the columns of the table of scores; no function here changes a row that it is given.
"""
