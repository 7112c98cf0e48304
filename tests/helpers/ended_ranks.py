"""One process of a data-parallel launch of drsow's command, which tells its threads as it ends.

torchrun … -m helpers.ended_ranks ARGUMENTS    # two lines on stderr: at work, and at the very end
"""

from __future__ import annotations

import atexit
import sys
from pathlib import Path


def tell(when: str) -> None:
    """Say which threads of gloo there are, in one write."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    sys.stderr.write(f"{when}: {sorted({name for name in names if 'gloo' in name})}\n")


if __name__ == "__main__":
    atexit.register(tell, "at the end")  # before anything else is, so that it comes last
    from accelerate import PartialState

    from drsow_plugin.cli import main

    wait = PartialState.wait_for_everyone

    def waited(state: PartialState) -> None:
        wait(state)
        tell("at work")

    PartialState.wait_for_everyone = waited
    main(prog_name="drsow")
