"""Features to scores, and scores to rows."""
