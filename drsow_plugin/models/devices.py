"""What torch sees of the machine, for the parts of the package that import no torch."""

from __future__ import annotations

from typing import Any

from drsow_plugin.errors import EngineError


def device_names() -> list[str]:
    """Return the accelerators that torch sees, such as ``cuda:0``."""
    import torch

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
