"""The loop over a tree's chunks: one is computed while another is read, whatever fails."""

from __future__ import annotations

import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from helpers.engines import logprobs, rows
from torch.utils._python_dispatch import TorchDispatchMode

from drsow_plugin import DrSoW
from drsow_plugin.engines.local import attention, packed, tree
from drsow_plugin.engines.local.attention import Packing
from drsow_plugin.engines.local.budget import Budget
from drsow_plugin.engines.local.engine import LocalEngine
from drsow_plugin.engines.local.kernels import by_run
from drsow_plugin.engines.local.masks import UnshareableError
from drsow_plugin.engines.local.network import Network
from drsow_plugin.engines.local.packed import score_packed
from drsow_plugin.engines.local.probe import Sharing, find_sharing
from drsow_plugin.engines.local.transfer import OnTheWay, moved
from drsow_plugin.engines.local.tree import TokenTree, shared_trees, tree_of
from drsow_plugin.records import TokenPair

TOKENS = 60
PAIRS = rows(8)


class Failing(Network):
    """A network that fails at some of its chunks, before or after it has computed them."""

    def __init__(self, *at: int, late: bool = False, error: Exception | None = None) -> None:
        super().__init__(tiny.model().double())
        self._at, self._late = at, late
        self._error = error or torch.OutOfMemoryError("out of memory")
        self.launched: list[int] = []

    def hidden_of_chunk(self, packing: Packing) -> torch.Tensor:
        number = len(self.launched)
        self.launched.append(len(packing.chunk.ids))
        hidden = None if number in self._at and not self._late else super().hidden_of_chunk(packing)
        if number in self._at:
            raise self._error
        assert hidden is not None
        return hidden


def scored(network: Network, pairs: Sequence[TokenPair] = PAIRS) -> list[tuple[int, Any]]:
    with torch.inference_mode():
        return [*score_packed(network, by_run, pairs, Budget(TOKENS))]


@pytest.mark.fault(
    "memory",
    "memory runs out at any chunk of a batch",
    "the chunk is halved and computed again; each row comes once, with the same log-probs",
)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.slow
def test_wherever_memory_runs_out_each_row_comes_once_and_as_it_is(late: bool) -> None:
    whole = Failing()
    expected = dict(scored(whole))
    order = [index for index, _ in scored(Failing())]
    assert sorted(order) == [*range(len(PAIRS))] and len(whole.launched) > 8
    for position in range(len(whole.launched)):
        network = Failing(position, late=late)
        found = scored(network)
        assert [index for index, _ in found] == order
        assert network.launched[position + 1] == network.launched[position] // 2
        for index, values in found:
            assert values == pytest.approx(expected[index], abs=1e-12)


@pytest.mark.fault(
    "memory",
    "memory runs out for one row however small the chunk",
    "that row has no log-probs; all others do",
)
def test_memory_that_runs_out_again_and_again_costs_the_row_in_question_alone() -> None:
    """The chunk before is read first: its rows are not lost, and not the one that is given up."""
    expected, order = dict(scored(Failing())), [index for index, _ in scored(Failing())]
    for position in (0, 3, 6):
        found = scored(Failing(*range(position, position + 3)))
        assert [index for index, _ in found] == order
        missing = [index for index, values in found if values is None]
        assert len(missing) == 1
        for index, values in found:
            assert values is None or values == pytest.approx(expected[index], abs=1e-12)


@pytest.mark.parametrize("position", [0, 1, 4])
def test_what_was_computed_before_a_refusal_is_handed_out(position: int) -> None:
    done = Failing()
    order = [index for index, _ in scored(done)]
    chunks, cursor = [], TokenTree(PAIRS).start
    while len(chunks) < position:
        chunks.append(TokenTree(PAIRS).chunk(cursor, TOKENS))
        cursor = chunks[-1].next
    finished = chunks[-1].finished if chunks else 0
    found = []
    network = Failing(position, error=UnshareableError("no"))
    with pytest.raises(UnshareableError), torch.inference_mode():
        for index, _ in score_packed(network, by_run, PAIRS, Budget(TOKENS)):
            found.append(index)
    assert found == order[:finished]
    assert len(network.launched) == position + 1


def test_a_chunk_is_read_after_the_next_one_was_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Watched(OnTheWay):
        def __init__(self, values: torch.Tensor) -> None:
            events.append("launch")
            # Only the values wait: not a view of something larger.
            assert values.untyped_storage().nbytes() == values.nbytes
            super().__init__(values)

        def read(self) -> Any:
            events.append("read")
            return super().read()

    monkeypatch.setattr(packed, "OnTheWay", Watched)
    network = Failing()
    with torch.inference_mode():
        for _ in score_packed(network, by_run, PAIRS, Budget(TOKENS)):
            events.append("row")
    steps = [event for event in events if event != "row"]
    count = len(network.launched)
    assert steps == ["launch", *["launch", "read"] * (count - 1), "read"]
    assert events[-1] == "row" and events.index("row") > events.index("read")


TRANSFORMERS = "masking_utils.py"  # looks at the positions, before the first layer


class Waits(TorchDispatchMode):
    """Notes what would make the host wait for a GPU: numbers and shapes that depend on values."""

    ON_VALUES = ("item", "is_nonzero", "_local_scalar_dense", "nonzero", "masked_select", "equal")
    MARK = (1, 1, 1, 1)  # what stands for a mask, on the host

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name = func.overloadpacket.__name__
        indices = args[1] if name == "index" else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        waits = by_mask or (name in self.ON_VALUES and args[0].shape != self.MARK)
        if waits and TRANSFORMERS not in {Path(f.filename).name for f in traceback.extract_stack()}:
            self.found.append(name)
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("arch", ["llama", "mistral_sliding", "gemma2_softcap", "gpt_neox"])
def test_nothing_between_two_reads_waits_for_what_is_computed(
    arch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[str] = []
    for name in ("cpu", "numpy"):
        own = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda t, n=name, f=own: copies.append(n) or f(t))
    inward: list[list[str]] = []
    monkeypatch.setattr(
        attention, "moved", lambda arrays, device: inward.append([*arrays]) or moved(arrays, device)
    )
    network, chunks = Network(tiny.model(arch)), []
    own_hidden = network.hidden_of_chunk
    network.hidden_of_chunk = lambda p: chunks.append(p) or own_hidden(p)  # type: ignore[method-assign]
    assert network.masks is not None  # read once for all
    copies.clear()
    inward.clear()
    with torch.inference_mode(), Waits() as waits:
        for _ in score_packed(network, by_run, PAIRS, Budget(TOKENS)):
            pass
    assert waits.found == []
    assert len(chunks) > 8
    assert inward == [["ids", "positions", "predicting_positions", "next_cache"]] * len(chunks)
    assert copies.count("cpu") == copies.count("numpy") == len(chunks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_is_never_waited_for_but_to_read_values(dtype: torch.dtype) -> None:
    network = Network(tiny.model().cuda().to(dtype))
    sharing = find_sharing(network)
    assert sharing is not None
    with torch.inference_mode():
        expected = dict(score_packed(network, sharing.kernel, PAIRS, Budget(TOKENS)))
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = dict(score_packed(network, sharing.kernel, PAIRS, Budget(TOKENS)))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert {Path(each.filename).name for each in caught} <= {TRANSFORMERS}
    assert found == expected


def test_the_attention_is_set_once_for_all_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Failing()
    model, walks, names = network._model, [], set()
    own_modules, own_hidden = model.modules, network.hidden_of_chunk
    monkeypatch.setattr(model, "modules", lambda: walks.append(1) or own_modules())
    network.hidden_of_chunk = lambda packing: (  # type: ignore[method-assign]
        names.add(model.config._attn_implementation) or own_hidden(packing)
    )
    assert network.masks is not None
    walks.clear()
    own = model.config._attn_implementation
    assert len(scored(network)) == len(PAIRS) and len(network.launched) > 8
    assert len(walks) == 1
    assert names == {"drsow_tree"}
    assert model.config._attn_implementation == own != "drsow_tree"


@torch.inference_mode()
@pytest.mark.parametrize("ending", ["close", "error"])
def test_a_model_attends_as_before_however_scoring_ends(ending: str) -> None:
    network = Failing(*(() if ending == "close" else (2,)), error=ValueError("no"))
    own = network._model.config._attn_implementation
    answers = score_packed(network, by_run, PAIRS, Budget(TOKENS))
    if ending == "close":
        next(answers)
        answers.close()
    else:
        with pytest.raises(ValueError, match="no"):
            list(answers)
    assert network._model.config._attn_implementation == own


def test_a_call_with_other_rows_in_between_changes_nothing() -> None:
    network = Network(tiny.model())
    engine = LocalEngine(network, Sharing(by_run, None), batch_tokens=TOKENS)
    alone = logprobs(engine, PAIRS)
    first = engine.logprobs(PAIRS)
    found = dict([next(first)])
    other = logprobs(engine, rows(9))
    found |= dict(first)
    assert [found[i] for i in range(len(PAIRS))] == [[*each.token_logprobs] for each in alone]
    assert other == logprobs(engine, rows(9))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of rows of each tree that is laid out."""
    made: list[int] = []
    own = TokenTree.__init__

    def count(self: TokenTree, pairs: Sequence[TokenPair]) -> None:
        made.append(len(pairs))
        own(self, pairs)

    monkeypatch.setattr(TokenTree, "__init__", count)
    return made


def test_models_that_tokenize_alike_share_the_tree(
    strong: str, weak: str, built: list[int]
) -> None:
    prompts, responses = ["Say it."] * 3, ["a fox", "a dog", "no"]
    for options, trees in (({}, [3]), ({"weak_template": "none"}, [3, 3])):
        drsow = DrSoW(strong, weak, **options)
        drsow.score(prompts, responses)  # probes the models
        built.clear()
        drsow.score(prompts, responses)
        assert built == trees


def test_a_tree_is_kept_for_one_call_and_one_thread(built: list[int]) -> None:
    first, same, other = rows(1), rows(1), rows(2)
    with shared_trees():
        assert tree_of(first) is tree_of(same)
        elsewhere: list[TokenTree] = []
        thread = threading.Thread(target=lambda: elsewhere.append(tree_of(first)))
        thread.start()
        thread.join()
        assert elsewhere[0] is not tree_of(first)
        assert tree_of(other) is tree_of(other)  # in the place of the first
        assert len(built) == 3
        tree_of(first)
        assert len(built) == 4
    assert tree._held.get(None) is None
    assert tree_of(first) is not tree_of(first)
