"""Compiled layers: when they are used, what they share, and what keeps them off."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers as tf
from helpers import tiny
from helpers.engines import logprobs, rows
from helpers.oracle import token_logprobs
from torch._dynamo.testing import CompileCounter

from drsow_plugin.engines.local import compiled, kernels
from drsow_plugin.engines.local.attention import Packing
from drsow_plugin.engines.local.compiled import CompiledLayers
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.probe import Sharing, find_sharing

ROWS = rows(1)
Module = torch.nn.Module


class Opened:
    """A model whose rows share prefixes, with its layers compiled or not."""

    def __init__(self, mode: str = "off", model: Module | None = None) -> None:
        self.network = Network(tiny.model() if model is None else model)
        self.sharing = find_sharing(self.network)
        self.network.compiled = CompiledLayers(self.network, mode)

    def score(self, tokens: int = 100) -> list[float]:
        engine = LocalEngine(self.network, self.sharing, batch_tokens=tokens)
        return [row.total for row in logprobs(engine, ROWS)]

    @property
    def is_compiled(self) -> bool:
        assert self.network.compiled is not None
        return self.network.compiled.is_compiled


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Let torch trace as for a compiler, run what it traced as it is, and count the graphs."""
    counter, compile_ = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda *a, **k: compile_(*a, **k, backend=counter))
    torch._dynamo.reset()
    yield counter
    torch._dynamo.reset()


@pytest.fixture
def replaced(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Let a function stand for what a compiler makes; it is given a layer's own ``forward`` too."""

    def replace(forward: Callable[..., Any]) -> None:
        def compile_(own: Any, **_: Any) -> Any:
            return lambda *args, **kwargs: forward(own, *args, **kwargs)

        monkeypatch.setattr(torch, "compile", compile_)

    return replace


def as_it_is(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return own(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with g++ on a CPU")
def test_what_torch_compiles_for_this_processor_gives_the_same_log_probs() -> None:
    model = tiny.weighty(tiny.model())
    opened = Opened("on", model)
    found = opened.score()
    assert opened.is_compiled
    model.double()
    exact = [sum(token_logprobs(model, pair.prompt_ids, pair.response_ids)) for pair in ROWS]
    assert found == pytest.approx(exact, abs=1e-3)


@pytest.mark.slow
def test_all_layers_and_chunks_of_all_lengths_share_their_graphs(graphs: CompileCounter) -> None:
    config = tf.LlamaConfig(**{**tiny._SIZES, "num_hidden_layers": 4})
    opened = Opened("on", tiny.from_config(config))
    found = opened.score()
    assert opened.is_compiled
    first = graphs.frame_count
    assert 1 < first <= 4  # what is before attention, and what is behind it
    for tokens in (16, 41, 64, 150):
        opened.score(tokens)
    assert found == pytest.approx(Opened("off", tiny.from_config(config)).score(), abs=1e-4)
    Opened("on", tiny.from_config(config, seed=1)).score()  # such as one that is loaded again
    assert graphs.frame_count == first


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["gemma2_softcap", "gpt2", "mixtral", "mistral_sliding"])
def test_other_architectures_come_out_the_same(arch: str, graphs: CompileCounter) -> None:
    opened = Opened("on", tiny.model(arch))
    found = opened.score()
    assert opened.is_compiled
    assert graphs.frame_count
    assert found == pytest.approx(Opened("off", tiny.model(arch)).score(), abs=1e-4)


@pytest.mark.slow
def test_more_architectures_than_torch_compiles_for_are_no_silent_loss(
    graphs: CompileCounter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compiled, "_MAX_COMPILED", 1)
    first, second = Opened("on", tiny.model("llama")), Opened("on", tiny.model("qwen2"))
    first.score()
    assert first.is_compiled
    assert second.score() == Opened("off", tiny.model("qwen2")).score()
    assert not second.is_compiled
    [line] = [line for line in caplog.messages if "compiling" in line]
    assert "FailOnRecompileLimitHit" in line


@pytest.mark.slow
def test_what_a_kernel_compiles_for_itself_is_compiled_in_compiled_layers_too(
    graphs: CompileCounter,
) -> None:
    @torch.compile
    def double(values: torch.Tensor) -> torch.Tensor:
        return values * (2 if torch.compiler.is_dynamo_compiling() else torch.nan)

    def doubled(*arguments: Any) -> torch.Tensor:
        return double(kernels.by_run(*arguments))

    on, off = Opened("on"), Opened("off")
    on.sharing = off.sharing = Sharing(doubled, None)
    assert on.score() == pytest.approx(off.score(), abs=1e-4)
    assert on.is_compiled


def test_compiled_layers_take_the_others_place_for_a_chunk_at_a_time(
    monkeypatch: pytest.MonkeyPatch, replaced: Callable[[Any], None]
) -> None:
    model, during = tiny.model(), []
    opened = Opened("on", model)
    by_layers, last = opened.network.hidden_by_layers, model.model.layers[-1]

    def watched(packing: Packing) -> torch.Tensor:
        during.append("forward" in vars(last))
        return by_layers(packing)

    monkeypatch.setattr(opened.network, "hidden_by_layers", watched)
    replaced(as_it_is)
    for _ in LocalEngine(opened.network, opened.sharing, batch_tokens=100).logprobs(ROWS):
        assert "forward" not in vars(last)
    assert during[:2] == [False, False]  # as it is, and with other roundings
    assert all(during[2:])
    assert len(during) > 4
    assert opened.network.hidden(torch.tensor([[1, 2]])) is not None
    assert "forward" not in vars(last)


def test_auto_compiles_nothing_on_a_cpu(graphs: CompileCounter) -> None:
    opened = Opened("auto")
    assert opened.score() == Opened("off").score()
    assert not graphs.frame_count


def test_auto_compiles_on_a_gpu_once_enough_was_read(
    replaced: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced(as_it_is)
    layers, size, float32 = 2, 32, 4
    nodes = len({ids[:end] for pair in ROWS for ids in [pair.prompt_ids + pair.response_ids]
                 for end in range(1, len(ids))})  # fmt: skip
    monkeypatch.setattr(compiled, "_REPAYS", 2.5 * nodes * layers * size * float32)
    opened = Opened()
    with monkeypatch.context() as patch:
        patch.setattr(Network, "device", torch.device("cuda"))
        opened.network.compiled = CompiledLayers(opened.network, "auto")
    states = []
    for _ in range(4):
        opened.score()
        states.append(opened.is_compiled)
    assert states == [False, False, True, True]


def with_hook(model: Any) -> Any:
    model.model.layers[1].mlp.register_forward_hook(lambda *_: None)
    return model


def with_integers(model: Any) -> Any:
    down = model.model.layers[1].mlp.down_proj
    down.register_buffer("packed_weight", torch.zeros(2, 2, dtype=torch.uint8))
    return model


def with_adapter(model: Any) -> Any:
    import peft  # not where only torch and transformers are

    return peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).eval()


def with_other_forward(model: Any) -> Any:
    layer = model.model.layers[0]
    layer.forward = layer.forward  # such as accelerate's, which brings weights to a device
    return model


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_hook, "there are hooks in them"),
        (with_other_forward, "there are hooks in them"),
        (with_integers, "they are quantized"),
        (with_adapter, "an adapter is on them"),
    ],
)
def test_layers_that_are_not_plain_are_never_compiled(
    change: Callable[[Any], Any],
    reason: str,
    graphs: CompileCounter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    opened = Opened("on", change(tiny.model()))
    found = opened.score()
    opened.score()
    assert not graphs.frame_count
    assert found == Opened("off", change(tiny.model())).score()
    assert [line for line in caplog.messages if "compiling" in line] == [
        f"{opened.network.name}: its layers run without compiling: {reason}."
    ]


def test_a_hook_that_comes_later_is_heeded(replaced: Callable[[Any], None]) -> None:
    replaced(as_it_is)
    model, calls = tiny.model(), []
    opened = Opened("on", model)
    opened.score()
    assert opened.is_compiled
    model.model.layers[1].mlp.register_forward_hook(lambda *_: calls.append(1))
    opened.score()
    assert calls
    assert not opened.is_compiled


def test_without_a_compiler_rows_are_scored_as_without_the_option(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no g++ here\nand much more")

    monkeypatch.setattr(torch, "compile", missing)
    opened = Opened("on")
    assert opened.score() == Opened("off").score()
    [line] = [line for line in caplog.messages if "compiling" in line]
    assert line.endswith("run without compiling: RuntimeError: no g++ here.")


def test_an_error_of_compiled_layers_while_scoring_costs_no_row(
    replaced: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def failing(own: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 8:  # the fourth chunk, behind its first layer
            raise ValueError("a graph of no use")
        return own(*args, **kwargs)

    replaced(failing)
    opened = Opened("on")
    assert opened.score() == Opened("off").score()
    assert len(calls) == 8
    [line] = [line for line in caplog.messages if "compiling" in line]
    assert line.endswith("ValueError: a graph of no use.")


def test_memory_that_runs_out_in_compiled_layers_is_no_reason_to_turn_them_off(
    replaced: Callable[[Any], None],
) -> None:
    lengths = []

    def small(own: Callable[..., Any], hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if hidden.shape[1] > 60:
            raise torch.OutOfMemoryError("injected")
        lengths.append(hidden.shape[1])
        return own(hidden, *args, **kwargs)

    replaced(small)
    opened = Opened("on")
    assert opened.score() == Opened("off").score(50)
    assert opened.is_compiled
    assert max(lengths) == 50


def test_compiled_layers_that_compute_something_else_are_not_used(
    replaced: Callable[[Any], None], caplog: pytest.LogCaptureFixture
) -> None:
    replaced(lambda own, *args, **kwargs: own(*args, **kwargs) * 1.01)
    opened = Opened("on")
    assert opened.score() == Opened("off").score()
    assert not opened.is_compiled
    assert "log-probs come out otherwise, by" in caplog.text


def test_auto_says_at_the_level_of_information_that_it_cannot(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_REPAYS", 0.0)
    opened = Opened("off", with_hook(tiny.model()))
    with monkeypatch.context() as patch:
        patch.setattr(Network, "device", torch.device("cuda"))
        opened.network.compiled = CompiledLayers(opened.network, "auto")
    with caplog.at_level(logging.INFO):
        opened.score()
    assert [each.levelname for each in caplog.records if "compiling" in each.message] == ["INFO"]
