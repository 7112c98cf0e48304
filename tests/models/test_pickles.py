"""Weights come as safetensors or GGUF; pickles, which may hold code, are read only if allowed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file

from drsow_plugin import ConfigError, DrSoW

ROWS = (["Say it."] * 2, ["The quick brown fox.", "a lazy dog"])


class Hostile:
    """What a pickle of a stranger may hold: it makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self._file),)


@pytest.fixture
def pickled(tmp_path: Path, strong: str) -> Path:
    """Return a model as ``strong``, with its weights in a pickle."""
    folder = Path(shutil.copytree(strong, tmp_path / "pickled"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def rewards(strong: object, weak: str, **options: Any) -> list[float | None]:
    return [reward.reward for reward in DrSoW(str(strong), weak, **options).score(*ROWS)]


@pytest.mark.fault(
    "model", "weights are in a pickle, which may hold code", "one line before anything is loaded"
)
def test_weights_in_a_pickle_are_refused_when_the_pair_is_opened(pickled: Path, weak: str) -> None:
    said = r"strong='.*pickled' has no weights as safetensors but pytorch_model\.bin\. Pickles.*"
    with pytest.raises(ConfigError, match=said + "set strong_allow_pickle=true"):
        DrSoW(str(pickled), weak)


def test_where_they_are_allowed_the_rewards_are_the_same(
    pickled: Path, strong: str, weak: str
) -> None:
    assert rewards(pickled, weak, strong_allow_pickle=True) == rewards(strong, weak)
    described = [DrSoW(strong, weak, allow_pickle=value) for value in (True, False)]
    assert described[0].describe() == described[1].describe()
    assert described[0].fingerprint == described[1].fingerprint


def test_code_in_a_pickle_does_not_run_even_where_they_are_allowed(
    pickled: Path, tmp_path: Path, weak: str
) -> None:
    torch.save({"lm_head.weight": Hostile(tmp_path / "ran")}, pickled / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="strong_allow_pickle"):
        rewards(pickled, weak)
    with pytest.raises(ConfigError, match=r"strong='.*pickled' could not be loaded"):
        rewards(pickled, weak, allow_pickle=True)
    assert not (tmp_path / "ran").exists()
    torch.load(pickled / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_an_index_of_safetensors_that_names_a_pickle_is_refused(pickled: Path, weak: str) -> None:
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "pytorch_model.bin"}}
    (pickled / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"safetensors but pytorch_model\.bin"):
        rewards(pickled, weak)


@pytest.mark.fault(
    "model",
    "a folder holds a model and an adapter, so that either could be loaded",
    "one line before anything is loaded",
)
def test_a_model_that_is_an_adapter_as_well_is_refused(tmp_path: Path, strong: str) -> None:
    both = Path(shutil.copytree(strong, tmp_path / "both"))
    (both / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "x/y"}))
    with pytest.raises(ConfigError, match="this as weak_adapter="):
        DrSoW(strong, str(both))


def test_an_adapter_in_a_pickle_is_refused_unless_allowed(tmp_path: Path, weak: str) -> None:
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny.model(), peft.LoraConfig(init_lora_weights=False))
    adapted.save_pretrained(tmp_path)
    expected = rewards(weak, weak, strong_adapter=str(tmp_path))
    weights = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(weights), tmp_path / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(ConfigError, match=r"strong_adapter='.*' has .* but adapter_model\.bin"):
        DrSoW(weak, weak, strong_adapter=str(tmp_path))
    options = {"strong_adapter": str(tmp_path), "strong_allow_pickle": True}
    assert rewards(weak, weak, **options) == expected


@pytest.mark.parametrize("is_reached", [True, False])
def test_pickles_on_the_hub_are_refused(
    *, pickled: Path, tmp_path: Path, weak: str, is_reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "hub" / "models--some--model"
    shutil.copytree(pickled, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    drsow = DrSoW("some/model", weak)
    if is_reached:
        (repository / "snapshots" / ("a" * 40) / "pytorch_model.bin").unlink()

        def download(_repository: str, name: str, **_options: Any) -> str:
            file = repository / "snapshots" / ("a" * 40) / name
            if not file.is_file():
                raise EntryNotFoundError(f"404: {name}")
            return str(file)

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(ConfigError, match="strong='some/model' has no weights as safetensors"):
        drsow.score(*ROWS)
