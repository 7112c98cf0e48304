"""What an engine must do wherever it runs: the same tests on a CPU, and on a GPU if asked for.

On a GPU other kernels attend, and products round in another order; the log-probs are the same.
"""

from __future__ import annotations

import pytest
import torch
from helpers import tiny
from helpers.devices import DEVICES, HAS_GPU, HEAD_SIZES, wide
from helpers.engines import engine, logprobs, rows
from helpers.oracle import token_logprobs

from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.kernels import by_flex, by_run, by_varlen
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import Sharing, find_sharing
from drsow_plugin.records import TokenPair

# A warning of a kernel's would be taken for a refusal, and another kernel would be tested.
pytestmark = pytest.mark.filterwarnings("default")

DENSE = [arch for arch in HEAD_SIZES if arch != "gpt_oss_sinks"]
PROMISED = 5e-4  # nats, by which a response in float32 is off at most


def exact(model: torch.nn.Module, pairs: list[TokenPair]) -> list[float]:
    """Return the log-probs of rows, in float64 on the CPU; the model is used up."""
    oracle = model.cpu().double()
    return [sum(token_logprobs(oracle, pair.prompt_ids, pair.response_ids)) for pair in pairs]


def root_mean_square(values: list[float], others: list[float]) -> float:
    squares = [(a - b) ** 2 for a, b in zip(values, others, strict=True)]
    return float((sum(squares) / len(squares)) ** 0.5)


def totals(made: LocalEngine, pairs: list[TokenPair]) -> list[float]:
    return [logprob.total for logprob in logprobs(made, pairs)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("arch", HEAD_SIZES)
def test_float32_agrees_with_float64_shared_and_row_by_row(arch: str, device: str) -> None:
    network, pairs = Network(wide(arch).to(device)), rows(6)
    expected = pytest.approx(exact(wide(arch), pairs), abs=PROMISED)
    assert find_sharing(network) is not None
    assert totals(engine(network), pairs) == expected
    assert totals(LocalEngine(network, None), pairs) == expected


@pytest.mark.gpu
@HAS_GPU
@pytest.mark.parametrize("arch", tiny.CONFIGS)
def test_float32_on_a_gpu_agrees_with_float64_on_every_architecture(arch: str) -> None:
    pairs = rows(6)
    expected = exact(tiny.model(arch), pairs)
    scored = totals(engine(tiny.model(arch).cuda()), pairs)
    assert scored == pytest.approx(expected, abs=PROMISED)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "most"), [(torch.bfloat16, 0.2), (torch.float16, 0.03)])
@pytest.mark.parametrize("arch", DENSE)
@pytest.mark.slow
def test_half_precision_is_no_worse_shared_than_row_by_row(
    arch: str, dtype: torch.dtype, most: float, device: str
) -> None:
    network, pairs = Network(wide(arch).to(device, dtype)), rows(9, count=40)
    expected, sharing = exact(wide(arch).to(dtype), pairs), find_sharing(network)
    assert sharing is not None
    shared, alone = (
        root_mean_square(totals(LocalEngine(network, way), pairs), expected)
        for way in (sharing, None)
    )
    assert 0 < shared <= 1.3 * alone
    assert alone < most


@pytest.mark.gpu
@HAS_GPU
@pytest.mark.parametrize("arch", HEAD_SIZES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_gpu_attends_to_all_runs_at_once(arch: str, dtype: torch.dtype) -> None:
    """Flash attention knows no soft cap, and no numbers but those of half precision."""
    sharing = find_sharing(Network(wide(arch).to("cuda", dtype)))
    assert sharing is not None
    flashes = dtype != torch.float32 and arch != "gemma2_softcap"
    assert sharing.kernel is (by_varlen if flashes else by_flex)


@pytest.mark.gpu
@HAS_GPU
@pytest.mark.parametrize("arch", DENSE)
def test_kernels_on_a_gpu_differ_by_rounding_only(arch: str) -> None:
    network, pairs = Network(wide(arch).to("cuda", torch.bfloat16)), rows(8, count=40)
    found = find_sharing(network)
    assert found is not None
    expected = exact(wide(arch).bfloat16(), pairs)
    own, plain = (
        root_mean_square(totals(LocalEngine(network, Sharing(kernel, None)), pairs), expected)
        for kernel in (found.kernel, by_run)
    )
    assert own <= 1.3 * plain


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("arch", HEAD_SIZES)
def test_neither_order_nor_batches_change_anything(arch: str, device: str) -> None:
    network, pairs = Network(wide(arch).to(device)), rows(2)
    alone = totals(engine(network, batch_size=1), pairs)
    for options in ({}, {"batch_tokens": 37}, {"batch_tokens": 300}, {"batch_size": 3}):
        together = totals(engine(network, **options), pairs[::-1])
        assert together[::-1] == pytest.approx(alone, abs=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_call_gives_the_same_numbers_to_the_last_bit(
    device: str, dtype: torch.dtype
) -> None:
    made, pairs = engine(wide("llama").to(device, dtype), batch_tokens=300), rows(3, count=40)
    assert totals(made, pairs) == totals(made, pairs)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("arch", ["llama", "mistral_sliding", "gpt_oss_sinks"])
def test_a_nan_in_one_row_stays_there(arch: str, dtype: torch.dtype, device: str) -> None:
    model = wide(arch).to(device, dtype)
    pairs = [TokenPair((1, 2, 3), (400, 5, 6)), TokenPair((1, 2, 3), (401, 7, 8))]
    made = engine(model)
    expected = logprobs(made, pairs)[1].total
    with torch.no_grad():
        model.get_input_embeddings().weight[400] = torch.nan
    unsound, sound = logprobs(made, pairs)
    assert str(unsound.problem) == "not finite: the log-prob came out as nan"
    assert sound.total == pytest.approx(expected, abs=PROMISED if dtype == torch.float32 else 0.5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "unknown", [TokenPair((1, 99999), (1,)), TokenPair((1,), (99999, 1)), TokenPair((1,), (99999,))]
)
def test_an_unknown_token_is_an_error_after_which_the_engine_goes_on(
    unknown: TokenPair, device: str
) -> None:
    """Looked up on a GPU, it would leave the whole process without one."""
    made, known = engine(wide("llama").to(device)), rows(4)
    before = totals(made, known)
    with pytest.raises(IndexError):
        totals(made, [*known, unknown])
    assert totals(made, known) == before
