"""Tables in and out: CSV, JSON Lines and Parquet."""
