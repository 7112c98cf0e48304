"""The fold of a part of the logits: its kernel in Triton's interpreter, and on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from drsow_plugin.engines.local import fold


def check_fold(device: str) -> None:
    """Compare the kernel with float64, and what it takes out with what is there."""
    torch.manual_seed(0)
    for columns in (1, 100, 2048, 5000, 8192):
        logits = torch.randn(8, columns, device=device) * 5
        logits[1] = -torch.inf
        logits[2], logits[2, columns // 2] = -torch.inf, 3.0
        logits[3] *= 1e30
        logits[4, -1] = torch.nan
        logits[5, 0] = torch.inf
        base = logits.amax(-1).clamp_min(torch.finfo(torch.float32).min)
        exact = (logits.double() - base.double().unsqueeze(1)).exp().sum(-1)
        maxima, sums = torch.empty(2, 8, device=device).unbind()
        offsets = torch.tensor([0, 0, 2, 3, 3, 3, 3, 6, 7], device=device)
        columns_of = torch.tensor([0, columns - 1, -1, 0, columns, columns // 2, 0], device=device)
        selected = torch.full((7,), -7.0, device=device)
        given = (offsets, columns_of + 1000, selected)
        fold.kernel().fold(logits, maxima, sums, given, torch.tensor([1000], device=device))
        kept = [0, 1, 2, 3, 6, 7]  # elsewhere the sum tells that it is not finite
        assert torch.equal(maxima[kept], logits.amax(-1)[kept])
        torch.testing.assert_close(sums.double()[kept], exact[kept], rtol=5e-7, atol=0)
        assert not sums[[4, 5]].isfinite().any()
        rows = torch.tensor([1, 1, 2, 6, 6, 6, 7], device=device)
        is_here = (columns_of >= 0) & (columns_of < columns)
        expected = torch.where(is_here, logits[rows, columns_of.clamp(0, columns - 1)], -7.0)
        assert torch.equal(selected, expected)


@pytest.mark.slow
def test_the_kernel_sums_as_float64_does_in_the_interpreter_of_triton() -> None:
    pytest.importorskip("triton", reason="Triton comes with torch for a GPU, and takes 700 MB")
    given = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", "from engines.test_fold import *; check_fold('cpu')"]
    subprocess.run(command, env=given, check=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_kernel_sums_as_float64_does_on_a_gpu() -> None:
    assert fold._has_kernel(torch.device("cuda", 0))
    check_fold("cuda")
