"""Run the command as ``python -m drsow_plugin.cli``."""

from drsow_plugin.cli import main

main(prog_name="drsow")
