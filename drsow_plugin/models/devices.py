"""What torch sees of the machine, for the parts of the package that import no torch."""

from __future__ import annotations

import atexit
from typing import Any

from drsow_plugin.errors import EngineError


def device_names() -> list[str]:
    """Return the accelerators that torch sees, such as ``cuda:0``; none where there is no torch."""
    try:
        import torch
    except ImportError:
        return []
    if not torch.accelerator.is_available():
        return []
    kind = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count()
    return [f"{kind.type}:{index}" for index in range(count)] if kind else []


def has_cuda() -> bool:
    """Tell whether torch sees a CUDA GPU."""
    import torch

    return torch.cuda.is_available()


def torch_device(name: str) -> Any:
    """Return a device by its name, as a ``torch.device``."""
    import torch

    return torch.device(name)


def check_not_forked() -> None:
    """Check that this process can use CUDA.

    Raises:
        EngineError: It was forked from one that uses CUDA.
    """
    import torch

    if torch.cuda._is_in_bad_fork():
        raise EngineError(
            "CUDA cannot be used in a forked process. Before ds.map(…, num_proc=…) call "
            'multiprocess.set_start_method("spawn"), under if __name__ == "__main__".'
        )


def process_group() -> Any:
    """Join the group of processes of a launch; return accelerate's ``PartialState`` of it.

    A group that was not there before is destroyed as this process ends: gloo's threads, which let
    go of the last tensors, would else reach for an interpreter that is gone.
    """
    from accelerate import PartialState
    from torch import distributed
    from torch.distributed.nn import functional  # noqa: F401  (later, its defaults keep the group)

    is_new = not distributed.is_initialized()
    state = PartialState(cpu=not has_cuda())
    if is_new:
        atexit.register(state.destroy_process_group)
    return state


def use_threads(count: int) -> None:
    """Let torch compute with so many threads in this process."""
    import torch

    torch.set_num_threads(count)


def torch_version() -> str | None:
    """Return the version of torch, which unlike its metadata names the build; ``None`` without."""
    try:
        import torch
    except ImportError:
        return None
    return torch.__version__
