"""What other people's tools expect, each a thin layer over one ``Scorer``: metrics, rewards, nodes.

One file per tool. A file imports what its tool needs, and nothing of it is imported before it is used.
"""
