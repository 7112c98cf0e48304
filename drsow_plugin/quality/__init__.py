"""What labelled rows are worth: calibration, length, agreement, runs compared, and a gate."""

READ_OPTIONS = (
    *("prefix", "prompt_column", "chosen_column", "rejected_column"),
    *("responses_column", "response_column", "ratings_column", "group_column"),
)
"""The options of labelling that say where things are in labelled rows."""

MAX_ROWS = 20_000
"""Rows that figures are taken of, where not another number is given."""
