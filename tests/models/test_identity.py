"""The weights that score are those of the fingerprint, or nothing is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from helpers import tiny, tiny_gguf
from safetensors.torch import load_file, save_file

from drsow_plugin import Annotator, DrSoW
from drsow_plugin.errors import EngineError
from drsow_plugin.hashing import file_sha256

PROMPTS, RESPONSES = ["What is the capital of France?"] * 2, ["It is Paris.", "A dog."]
ROWS = [{"prompt": PROMPTS[0], "response": text} for text in RESPONSES]


@pytest.fixture
def model(tmp_path: Path, strong: str) -> Path:
    """Return a copy of the strong model."""
    return Path(shutil.copytree(strong, tmp_path / "model"))


@pytest.fixture
def other(weak: str) -> Path:
    return Path(weak)


def swapped(model: Path, other: Path) -> None:
    """Put another model's folder in a model's place."""
    model.rename(model.with_name("former"))
    shutil.copytree(other, model)


def overwritten(model: Path, other: Path) -> None:
    """Write another model's weights into the file that is there."""
    with (model / "model.safetensors").open("r+b") as file:
        file.write((other / "model.safetensors").read_bytes())


def replaced_with_its_times(model: Path, other: Path) -> None:
    """Put another model's weights into the place of a file of the same size, age and name."""
    file, status = model / "model.safetensors", (model / "model.safetensors").stat()
    file.unlink()
    shutil.copy(other / "model.safetensors", file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def added(model: Path, other: Path) -> None:
    (model / "added.safetensors").write_bytes(b"")


def removed(model: Path, other: Path) -> None:
    (model / "config.json").unlink()


CHANGES = [swapped, overwritten, replaced_with_its_times, added, removed]


@pytest.mark.fault(
    "model",
    "a file of a model is changed, replaced, added or removed before the weights are loaded",
    "one line that names the file; nothing is scored",
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_model_changed_before_it_is_loaded_scores_nothing(
    model: Path, other: Path, weak: str, change: Callable[[Path, Path], None]
) -> None:
    drsow = DrSoW(str(model), weak)
    _ = drsow.fingerprint
    change(model, other)
    with pytest.raises(EngineError if change is not removed else Exception):
        drsow.score(PROMPTS, RESPONSES)


@pytest.mark.fault(
    "model",
    "a file of a model is changed, replaced, added or removed while it scores",
    "one line that names the file; none of the rewards of that call are given",
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_model_changed_while_it_scores_gives_no_reward(
    model: Path, other: Path, weak: str, change: Callable[[Path, Path], None]
) -> None:
    drsow = DrSoW(str(model), weak)
    _ = drsow.fingerprint
    expected = drsow.score(PROMPTS, RESPONSES)
    assert drsow.score(PROMPTS, RESPONSES) == expected
    change(model, other)
    with pytest.raises(EngineError, match=r"strong='.*model': \S+ was (changed|added|removed)"):
        drsow.score(PROMPTS, RESPONSES)


def test_other_attributes_of_a_file_are_no_change(model: Path, weak: str) -> None:
    drsow = DrSoW(str(model), weak)
    _ = drsow.fingerprint
    expected = drsow.score(PROMPTS, RESPONSES)
    (model / "model.safetensors").chmod(0o600)
    (model / "README.md").write_text("A model.")
    os.link(model / "model.safetensors", model.parent / "link")
    assert drsow.score(PROMPTS, RESPONSES) == expected


@pytest.mark.fault(
    "model", "a file of a model changes while it is hashed", "one line that names the file"
)
def test_a_file_changed_while_it_is_hashed_has_no_fingerprint(
    model: Path, other: Path, weak: str
) -> None:
    drsow = DrSoW(str(model), weak)
    overwritten(model, other)
    with pytest.raises(EngineError, match=r"model\.safetensors was changed"):
        _ = drsow.fingerprint


def test_a_hash_is_not_remembered_while_the_time_of_a_file_may_hide_a_change(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a")
    status, before = file.stat(), file_sha256(file)
    file.write_bytes(b"b")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file_sha256(file) != before


@pytest.mark.fault(
    "model",
    "an adapter changes before it is loaded",
    "one line that names the file; nothing is scored",
)
def test_an_adapter_changed_before_it_is_loaded_scores_nothing(tmp_path: Path, weak: str) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny.model(), peft.LoraConfig(init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    drsow = DrSoW(weak, weak, strong_adapter=str(tmp_path / "adapter"))
    _ = drsow.fingerprint
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: 2 * x for name, x in load_file(file).items()}, file)
    with pytest.raises(EngineError, match=r"strong_adapter='.*adapter': adapter_model"):
        drsow.score(PROMPTS, RESPONSES)


def in_a_subfolder(model: Path) -> Path:
    """Move a model's weights into a sub-folder that its index names; return the file there."""
    (model / "parts").mkdir()
    weights = (model / "model.safetensors").rename(model / "parts" / "one.safetensors")
    names = dict.fromkeys(load_file(weights), "parts/one.safetensors")
    (model / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": names})
    )
    return weights


def test_weights_in_a_subfolder_are_in_the_fingerprint(model: Path, other: Path, weak: str) -> None:
    whole = DrSoW(str(model), weak).score(PROMPTS, RESPONSES)
    weights = in_a_subfolder(model)
    drsow = DrSoW(str(model), weak)
    assert drsow.score(PROMPTS, RESPONSES) == whole
    assert "parts/one.safetensors" in drsow.describe()["strong"]["sha256"]
    shutil.copy(other / "model.safetensors", weights)
    assert DrSoW(str(model), weak).fingerprint != drsow.fingerprint
    with pytest.raises(EngineError, match=r"parts/one\.safetensors was changed"):
        drsow.score(PROMPTS, RESPONSES)


def kept(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*.parquet") if path.is_file()]


@pytest.mark.fault(
    "model",
    "the folder of a model is replaced between hashing and loading",
    "one line; nothing is kept in the cache",
)
def test_a_folder_replaced_between_hashing_and_loading_leaves_nothing_in_the_cache(
    tmp_path: Path, model: Path, other: Path, weak: str
) -> None:
    annotate = Annotator(str(model), weak)
    _ = annotate.scorer.work_key
    swapped(model, other)
    with pytest.raises(EngineError, match=r"was (changed|added|removed) while"):
        annotate.run(datasets.Dataset.from_list(ROWS), cache_dir=str(tmp_path / "cache"))
    assert not kept(tmp_path / "cache")


@pytest.mark.fault(
    "model",
    "a worker finds another model in the folder than the run began with",
    "one line; nothing is kept in the cache",
)
def test_another_process_that_opens_another_model_keeps_nothing(
    tmp_path: Path, model: Path, other: Path, weak: str
) -> None:
    make, state = Annotator(str(model), weak).__reduce__()
    swapped(model, other)
    annotate = make(*state)  # as another process does
    with pytest.raises(EngineError, match="not the one that the work was begun with"):
        annotate.run(datasets.Dataset.from_list(ROWS), cache_dir=str(tmp_path / "cache"))
    assert not kept(tmp_path / "cache")


@pytest.mark.fault(
    "model",
    "a worker reads another template than the run began with",
    "one line; nothing is kept in the cache",
)
def test_another_process_that_reads_another_template_keeps_nothing(
    tmp_path: Path, strong: str, weak: str
) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(tiny.TEMPLATES["chatml"])
    make, state = Annotator(strong, weak, template=str(template)).__reduce__()
    template.write_text(tiny.TEMPLATES["llama3"])
    with pytest.raises(EngineError, match="not the one that the work was begun with"):
        make(*state).run(datasets.Dataset.from_list(ROWS), cache_dir=str(tmp_path / "cache"))
    assert not kept(tmp_path / "cache")


@pytest.mark.fault(
    "model",
    "a GGUF file is replaced before it is loaded",
    "one line that names the file; nothing is scored",
)
def test_a_gguf_file_that_is_replaced_before_it_is_loaded_scores_nothing(
    tmp_path: Path, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRSOW_CACHE", str(tmp_path / "cache"))
    file = tiny_gguf.save(tmp_path / "model.gguf", seed=1)
    drsow = DrSoW(str(file), weak, strong_template="none")
    _ = drsow.fingerprint
    tiny_gguf.save(file, seed=2)
    with pytest.raises(EngineError, match=r"strong='.*': model\.gguf was changed"):
        drsow.score(PROMPTS, RESPONSES)


@pytest.mark.fault(
    "model",
    "a file of a model is overwritten in the middle of a run",
    "one line; the rows before it are kept, under the model that scored them",
)
def test_a_file_overwritten_in_the_middle_of_a_run_keeps_the_rows_before_it(
    tmp_path: Path, model: Path, other: Path, weak: str
) -> None:
    annotate = Annotator(str(model), weak)
    rows = [{"prompt": PROMPTS[0], "response": f"Answer {number}."} for number in range(6)]
    cache = tmp_path / "cache"
    own, calls = annotate.scorer.rewards, []

    def changing(*arguments: Any, **options: Any) -> Any:
        calls.append(0)
        if len(calls) == 2:
            overwritten(model, other)
        return own(*arguments, **options)

    annotate.scorer.rewards = changing  # type: ignore[method-assign]
    with pytest.raises(EngineError, match=r"model\.safetensors was changed"):
        annotate.run(datasets.Dataset.from_list(rows), shard_rows=2, cache_dir=str(cache))
    assert len(kept(cache)) == 1


@pytest.fixture
def branch(
    tmp_path: Path, strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], object]:
    """Keep two commits of ``some/model`` in a Hub cache; return what moves its branch."""
    repository = tmp_path / "hub" / "models--some--model"
    for commit, folder in {"a" * 40: strong, "b" * 40: weak}.items():
        shutil.copytree(folder, repository / "snapshots" / commit)
    main = repository / "refs" / "main"
    main.parent.mkdir()
    main.write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return main.write_text


def test_the_commit_of_a_hub_model_is_in_the_fingerprint(
    branch: Callable[[str], object], weak: str
) -> None:
    first = DrSoW("some/model", weak)
    branch("b" * 40)
    second = DrSoW("some/model", weak)
    assert first.describe()["strong"]["revision"] == "a" * 40
    assert second.describe()["strong"]["revision"] == "b" * 40
    assert first.fingerprint != second.fingerprint
    assert first.pinned_config.strong.revision == "a" * 40


@pytest.mark.fault(
    "model",
    "a branch on the Hub moves between reading and loading",
    "the commit that was read is the one that is loaded",
)
def test_a_branch_that_moves_between_reading_and_loading_is_not_followed(
    branch: Callable[[str], object], strong: str, weak: str
) -> None:
    drsow = DrSoW("some/model", weak)
    branch("b" * 40)
    expected = DrSoW(strong, weak).score(PROMPTS, RESPONSES)
    assert drsow.score(PROMPTS, RESPONSES) == expected
