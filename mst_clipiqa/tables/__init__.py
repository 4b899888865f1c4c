"""Tables in and out: CSV, JSON Lines and Parquet; and images that are stored inside tables and tars.

reading.py         a file -> rows, whatever its format and whoever wrote it
lines.py           CSV and JSON Lines, one row at a time, each with its problem; sniff.py finds delimiter and encoding
parquet.py         Parquet, both ways
columns.py         a table in memory, column by column
table.py           rows -> a file
journal.py         unfinished rows on disk, which survive a kill
cells.py           what a cell may hold, and how it is written
names.py           what the columns of files and prompts are called, and how the names of images end
spelling.py        a file's name as the disk spells it
stamps.py          the state of a file, by which a change is noticed
atomic.py          files that appear whole or not at all
stored.py          images inside another file: those of tars.py and of parquet_images.py
"""
