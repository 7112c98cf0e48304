"""Products in full precision while a model scores, and torch left as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from helpers import tiny
from helpers.engines import engine, rows

from drsow_plugin.engines.local.exactness import full_precision
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import find_sharing
from drsow_plugin.records import TokenPair

backends = torch.backends
_OPERATORS = {
    "all": backends,
    "cuda": backends.cudnn,
    "cuda products": backends.cuda.matmul,
    "cuda convolutions": backends.cudnn.conv,
    "cuda recurrences": backends.cudnn.rnn,
    "cpu products": backends.mkldnn.matmul,
    "cpu convolutions": backends.mkldnn.conv,
    "cpu recurrences": backends.mkldnn.rnn,
}
_SUMS = ("allow_bf16_reduced_precision_reduction", "allow_fp16_reduced_precision_reduction")


def in_force() -> dict[str, object]:
    """Return all switches as they are read, an error in place of what contradicts others."""
    found: dict[str, object] = {n: each.fp32_precision for n, each in _OPERATORS.items()}
    for name in (*_SUMS, "allow_fp16_accumulation"):
        found[name] = getattr(backends.cuda.matmul, name)
    found["attention"] = backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    for name, read in {
        "older, products": torch.get_float32_matmul_precision,
        "older, cuda": lambda: backends.cuda.matmul.allow_tf32,
        "older, cudnn": lambda: backends.cudnn.allow_tf32,
    }.items():
        try:
            found[name] = read()
        except RuntimeError:
            found[name] = "contradicts"
    return found


def follow(name: str) -> list[str]:
    """Return what all switches are once that of all backends is set: which of them follow it."""
    before = backends.fp32_precision
    backends.fp32_precision = name
    try:
        return [each.fp32_precision for each in _OPERATORS.values()]
    finally:
        backends.fp32_precision = before


def is_exact() -> bool:
    found = in_force()
    return all(found[name] == "ieee" for name in _OPERATORS) and not any(
        found[name] for name in (*_SUMS, "allow_fp16_accumulation", "attention", "older, cuda")
    )


def nothing() -> None:
    """Leave torch as it comes."""


def high() -> None:
    torch.set_float32_matmul_precision("high")


def medium_and_half() -> None:
    torch.set_float32_matmul_precision("medium")
    backends.cuda.matmul.allow_fp16_accumulation = True
    backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)


def all_backends() -> None:
    backends.fp32_precision = "tf32"


def one_operator() -> None:
    backends.cuda.matmul.fp32_precision = "tf32"
    backends.mkldnn.conv.fp32_precision = "bf16"


def both_ways() -> None:
    high()
    backends.cuda.matmul.fp32_precision = "ieee"


def exact_already() -> None:
    for name in _SUMS:
        setattr(backends.cuda.matmul, name, (False, False))
    backends.cudnn.allow_tf32 = False


WAYS = (nothing, high, medium_and_half, all_backends, one_operator, both_ways, exact_already)


@pytest.fixture
def switches(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set torch up in a way, and back."""
    products = backends.cuda.matmul
    request.param()
    yield
    torch.set_float32_matmul_precision("highest")
    for operator in _OPERATORS.values():
        operator.fp32_precision = "none"
    backends.cudnn.allow_tf32 = True
    for name in _SUMS:
        setattr(products, name, True)
    products.allow_fp16_accumulation = False
    backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)


@pytest.mark.parametrize("switches", WAYS, indirect=True)
def test_switches_are_set_and_set_back_however_they_were(switches: None) -> None:
    before, following = in_force(), follow("tf32")
    with full_precision():
        assert is_exact()
        with full_precision():
            assert is_exact()
        assert is_exact()
    assert (in_force(), follow("tf32")) == (before, following)
    with pytest.raises(ZeroDivisionError), full_precision():
        raise ZeroDivisionError
    assert (in_force(), follow("tf32")) == (before, following)


@pytest.mark.parametrize("switches", [high], indirect=True)
def test_the_last_of_all_threads_sets_the_switches_back(switches: None) -> None:
    before, entered, leave = in_force(), threading.Event(), threading.Event()

    def score() -> None:
        with full_precision():
            entered.set()
            leave.wait(60)

    other = threading.Thread(target=score)
    with full_precision():
        other.start()
        assert entered.wait(60)
    assert is_exact()
    leave.set()
    other.join(60)
    assert in_force() == before


def watched(model: torch.nn.Module) -> list[bool]:
    """Return a list that fills with whether products were exact, each time that the model runs."""
    seen: list[bool] = []
    model.get_input_embeddings().register_forward_hook(lambda *_: seen.append(is_exact()))
    return seen


@pytest.mark.parametrize("arch", ["llama", "bloom_alibi"])
@pytest.mark.parametrize("switches", [high], indirect=True)
def test_a_model_is_scored_in_full_precision_and_torch_left_as_it_was(
    arch: str, switches: None
) -> None:
    before, model = in_force(), tiny.model(arch)
    seen = watched(model)
    made = engine(model)
    assert in_force() == before
    list(made.logprobs(rows(1)))
    assert in_force() == before
    answers = made.logprobs(rows(1))
    next(answers)
    answers.close()
    assert in_force() == before
    with pytest.raises(IndexError):
        list(made.logprobs([TokenPair((1,), (512,))]))
    model.lm_head.weight = None
    with pytest.raises((TypeError, AttributeError)):
        list(made.logprobs(rows(1)))
    assert in_force() == before
    assert len(seen) > 6 and all(seen)


@pytest.mark.parametrize("switches", [high], indirect=True)
def test_a_model_is_tried_in_full_precision(switches: None) -> None:
    before, model = in_force(), tiny.model()
    seen = watched(model)
    network = Network(model)
    network.check_long_sequences()
    find_sharing(network)
    assert len(seen) > 3 and all(seen)
    assert in_force() == before
