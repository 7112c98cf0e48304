"""The names of the files that stand beside labelled rows, and of what is in them."""

REPORT, OPTIONS = "report.json", "drsow.yaml"
PICTURES = ("margins.png", "lengths.png")
FILES = (".parquet", ".jsonl")
"""How the name of an output ends that is a file; others are folders."""
ROWS = "rows"
"""What the rows of such a file are called in the report."""
MANIFEST = "output"
"""Where the report says which files belong to it."""
