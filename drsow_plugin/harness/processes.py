"""The processes of a data-parallel launch, of which this is one, or the only one."""

from __future__ import annotations

import os
from typing import Any

from drsow_plugin.errors import ConfigError
from drsow_plugin.models.devices import has_cuda


def launched_state() -> Any:
    """Return accelerate's state in a data-parallel launch, else ``None``.

    Raises:
        ConfigError: The processes do not find each other.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes < 2:
        return None
    from accelerate import PartialState

    state = PartialState(cpu=not has_cuda())
    if state.num_processes != processes:
        raise ConfigError(
            f"This is one of {processes} processes (WORLD_SIZE), of which accelerate sees "
            f"{state.num_processes}. Start them with 'accelerate launch' or torchrun."
        )
    return state
