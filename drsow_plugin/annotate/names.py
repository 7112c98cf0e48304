"""The names of the files that stand beside labelled rows."""

REPORT, OPTIONS = "report.json", "drsow.yaml"
PICTURES = ("margins.png", "lengths.png")
