"""Which kernel a model gets, and what follows where it refuses."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from helpers import tiny
from helpers.attention import chunks, difference, torch_2_10, torch_2_12
from helpers.devices import HAS_GPU, wide
from helpers.engines import engine, logprobs, rows
from torch.nn.attention import varlen

from drsow_plugin.engines.local import kernels
from drsow_plugin.engines.local.attention import Kernel, KernelError, Options, Packing
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.kernels import by_flex, by_run, by_varlen, flex, kernels_for
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import Sharing, find_sharing
from drsow_plugin.engines.results import logprobs_of

Tensor = torch.Tensor
# Compilers for a GPU warn, which would be taken for a kernel's refusal.
WARNINGS = pytest.mark.filterwarnings("default")
PLAIN = Options(scale=None, window=None, softcap=None, sinks=None)


class Refusing:
    """The kernel by runs, until it has attended so many times."""

    def __init__(self, name: str, times: int, error: Exception | None = None) -> None:
        self.__name__, self.times = f"by_{name}", times
        self.error = error or KernelError("enough")

    def __call__(self, *given: object) -> Tensor:
        self.times -= 1
        if self.times < 0:
            raise self.error
        return by_run(*given)  # type: ignore[arg-type]


def doubled(*given: object) -> Tensor:
    return by_run(*given) * 2  # type: ignore[arg-type]


def let(monkeypatch: pytest.MonkeyPatch, *candidates: Kernel) -> None:
    monkeypatch.setattr(kernels, "kernels_for", lambda _: candidates)


def test_a_gpu_has_three_kernels_and_other_devices_one() -> None:
    assert kernels_for(torch.device("cuda", 1)) == (by_varlen, by_flex, by_run)
    assert kernels_for(torch.device("cpu")) == kernels_for(torch.device("mps")) == (by_run,)


@pytest.mark.parametrize(
    ("arch", "release", "triton", "told"),
    [
        ("llama", torch_2_12, True, "kernel: varlen."),
        ("gpt_oss_sinks", torch_2_12, True, "kernel: varlen."),
        ("llama", torch_2_10, True, "kernel: varlen."),
        (
            "mistral_sliding",
            torch_2_10,
            True,
            "kernel: flex (not varlen: this torch's varlen_attn has no window_size).",
        ),
        ("gemma2_softcap", torch_2_12, True, "kernel: flex (not varlen: it knows no soft cap)."),
        (
            "gemma2_softcap",
            torch_2_12,
            False,
            "kernel: run (not varlen: it knows no soft cap; not flex: Triton is not installed).",
        ),
        (
            "deepseek_latent",
            torch_2_12,
            True,
            "kernel: flex (not varlen: it fails (AssertionError",
        ),
    ],
)
def test_one_line_says_which_kernel_a_model_got_and_why_not_the_ones_before(
    arch: str,
    release: Callable[..., object],
    triton: bool,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    let(monkeypatch, by_varlen, by_flex, by_run)
    monkeypatch.setattr(varlen, "varlen_attn", release)
    monkeypatch.setattr(
        "torch.nn.attention.flex_attention._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True
    )
    monkeypatch.setattr(flex, "_MIN_LENGTH", 128)
    flex._attend.cache_clear()
    monkeypatch.setattr(flex, "find_spec", lambda _: None)
    if triton:
        monkeypatch.setattr(flex, "_attend", lambda: flex._attended)
    network = Network(tiny.model(arch))
    with caplog.at_level(logging.INFO, "drsow_plugin"):
        sharing = find_sharing(network)
    assert sharing is not None
    (line,) = [record.getMessage() for record in caplog.records if "probe" in record.name]
    assert f"rows share what they have in common; attention {told}" in line
    pairs = rows(8)
    expected = logprobs(LocalEngine(network, None), pairs)
    for a, b in zip(logprobs(LocalEngine(network, sharing), pairs), expected, strict=True):
        assert a.total == pytest.approx(b.total, abs=1e-5)


def test_the_probe_tells_how_near_it_was(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let(monkeypatch, doubled, by_run)
    with caplog.at_level(logging.DEBUG, "drsow_plugin"):
        find_sharing(Network(tiny.model()))
    lines = [line for line in caplog.messages if "influence each other" in line]
    ratios = [[*map(float, re.findall(r"up to (\S+)", line))] for line in lines]
    assert [[ratio > 4 for ratio in each] for each in ratios] == [[True, False], [False, False]]


def test_a_kernel_that_computes_something_else_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let(monkeypatch, doubled, by_run)
    with caplog.at_level(logging.INFO, "drsow_plugin"):
        sharing = find_sharing(Network(tiny.model()))
    assert sharing == Sharing(by_run, None, ())
    assert "kernel: run (not doubled: a row comes out differently" in caplog.text


def test_what_no_kernel_can_change_is_not_tried_with_each(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let(monkeypatch, by_run, by_flex)
    assert find_sharing(Network(tiny.model("bloom_alibi"))) is None
    (line,) = caplog.messages
    assert line.endswith(
        "one by one: only 0 of its 2 layers attend by way of transformers' attention interface."
    )


@pytest.mark.parametrize("error", [None, RuntimeError("no kernel image\nis available")])
def test_a_kernel_that_refuses_while_scoring_gives_way_to_the_next(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The probe of 29 tokens takes 6 chunks of two layers each."""
    first, second = Refusing("first", 30, error), Refusing("second", 30)
    let(monkeypatch, first, doubled, second, by_run)
    made, pairs = engine(tiny.model(), batch_tokens=37), rows(8, count=40)
    alone = logprobs(LocalEngine(Network(tiny.model()), None), pairs)
    answers = [*logprobs_of(made, pairs)]
    assert sorted(index for index, _ in answers) == [*range(len(pairs))]
    for index, logprob in answers:
        assert logprob.total == pytest.approx(alone[index].total, abs=1e-5)
    lines = [line.split("from here on ")[1] for line in caplog.messages]
    reason = "enough" if error is None else "it fails (RuntimeError: no kernel image)"
    assert lines == [
        f"the attention kernel is second: not first: {reason}; not doubled: a row comes out "
        "differently when it shares a prefix.",
        "the attention kernel is run: not second: enough.",
    ]
    caplog.clear()
    logprobs(made, pairs)
    assert not caplog.messages


def test_rows_are_scored_one_by_one_where_no_kernel_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let(monkeypatch, Refusing("first", 30), Refusing("second", 30))
    made, pairs = engine(tiny.model(), batch_tokens=37), rows(8, count=40)
    alone = logprobs(LocalEngine(Network(tiny.model()), None), pairs)
    answers = [*logprobs_of(made, pairs)]
    assert sorted(index for index, _ in answers) == [*range(len(pairs))]
    for index, logprob in answers:
        assert logprob.total == pytest.approx(alone[index].total, abs=1e-5)
    assert caplog.messages[-1].endswith("rows are scored one by one: enough.")
    logprobs(made, pairs)
    assert caplog.text.count("one by one") == 1


def test_what_is_not_the_kernel_s_fault_ends_sharing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    let(monkeypatch, by_run, by_flex)
    network, pairs = Network(tiny.model()), rows(8)
    made = LocalEngine(network, find_sharing(network))

    def other_masks(_: Packing) -> Tensor:
        raise UnshareableError("it makes other masks than at first")

    monkeypatch.setattr(network, "hidden_of_chunk", other_masks)
    logprobs(made, pairs)
    (line,) = caplog.messages
    assert line.endswith("rows are scored one by one: it makes other masks than at first.")


@pytest.mark.fault(
    "memory",
    "memory runs out inside of a kernel or its compiler",
    "smaller chunks, and the same kernel; the same log-probs",
)
def test_memory_that_runs_out_in_a_kernel_is_not_taken_for_a_refusal(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def by_little(
        query: Tensor, key: Tensor, value: Tensor, packing: Packing, options: Options
    ) -> Tensor:
        calls.append(len(packing.chunk.ids))
        if calls[-1] > 30:
            try:
                raise torch.OutOfMemoryError("no memory")
            except torch.OutOfMemoryError as error:  # as compilers wrap it
                raise RuntimeError("compiling failed") from error
        return by_run(query, key, value, packing, options)

    let(monkeypatch, by_little, doubled)
    made, pairs = engine(tiny.model(), batch_tokens=100), rows(8)
    alone = logprobs(LocalEngine(Network(tiny.model()), None), pairs)
    for a, b in zip(logprobs(made, pairs), alone, strict=True):
        assert a.total == pytest.approx(b.total, abs=1e-5)
    assert max(calls) == 100 and not caplog.messages


@pytest.mark.gpu
@HAS_GPU
@WARNINGS
@pytest.mark.parametrize(("dtype", "kernel"), [(torch.float32, by_flex), (torch.float64, by_run)])
def test_a_gpu_in_full_precision_uses_the_best_kernel_that_can(
    dtype: torch.dtype, kernel: Kernel
) -> None:
    network, pairs = Network(wide("llama").to("cuda", dtype)), rows(8)
    sharing = find_sharing(network)
    assert sharing is not None and sharing.kernel is kernel
    plain = logprobs(LocalEngine(network, None), pairs)
    for a, b in zip(plain, logprobs(LocalEngine(network, sharing), pairs), strict=True):
        assert a.total == pytest.approx(b.total, abs=5e-4)


@pytest.mark.gpu
@HAS_GPU
@WARNINGS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("heads", [(8, 8), (8, 2)])
@pytest.mark.parametrize("asked", [PLAIN, replace(PLAIN, window=7), replace(PLAIN, softcap=0.5)])
def test_a_gpu_attends_run_by_run(
    asked: Options, heads: tuple[int, int], dtype: torch.dtype
) -> None:
    like = torch.empty(0, dtype=dtype, device="cuda")
    for chunk in chunks(rows(8, count=24), tokens=300):
        found = difference(by_run, chunk, asked, heads=heads, sizes=(64, 64), like=like)
        assert found < (6e-2 if dtype.itemsize == 2 else 1e-4)
