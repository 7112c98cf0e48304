"""Options: names, values, and what is refused before any weights are loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny

from drsow_plugin import ConfigError, DrSoW
from drsow_plugin.config.model import SIDE_OPTIONS
from drsow_plugin.config.pair import OPTIONS, parse_pair


def parse(**options: Any) -> Any:
    return parse_pair({"strong": "a/strong", "weak": "a/weak", **options})


def test_options_of_a_side_and_of_both() -> None:
    config = parse(
        dtype="bfloat16", weak_dtype=torch.float32, strong_revision="v2", template="none"
    )
    assert (config.strong.dtype, config.weak.dtype) == ("bfloat16", "float32")
    assert (config.strong.revision, config.weak.revision) == ("v2", None)
    assert config.strong.template == config.weak.template == "none"


def test_none_names_no_template_also_where_lm_eval_has_parsed_it() -> None:
    assert parse(weak_template=None).weak.template == "none"
    assert parse(weak_template=None).strong.template == "tokenizer"


def test_a_device_map_of_one_side_replaces_the_device_of_both() -> None:
    config = parse(device="cpu", weak_device_map="auto")
    assert (config.strong.device, config.strong.device_map) == ("cpu", None)
    assert (config.weak.device, config.weak.device_map) == (None, "auto")
    with pytest.raises(ConfigError, match="not both"):
        parse(weak_device="cpu", weak_device_map="auto")


@pytest.mark.parametrize("as_file", [False, True])
def test_a_quantization_config_is_json_or_a_json_file(tmp_path: Path, as_file: bool) -> None:
    given = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    text = json.dumps(given)
    if as_file:
        (tmp_path / "q.json").write_text(text)
        text = str(tmp_path / "q.json")
    assert json.loads(parse(weak_quantization=text).weak.quantization) == given


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weak_tempalte": "none"}, "Unknown option 'weak_tempalte'. Did you mean 'weak_template'"),
        ({"zzz": 1}, r"Unknown option .zzz.. The nearest of \d+ valid ones: \w+, \w+, \w+, \w+,"),
        ({"reduction": "avg"}, "Unknown value of reduction 'avg'.*Valid: mean, sum"),
        ({"overflow": "truncate"}, "Valid: error, skip, truncate_prompt"),
        ({"max_length": "0"}, "max_length is a whole number of at least 1, got '0'"),
        ({"batch_tokens": "many"}, "batch_tokens is a whole number"),
        ({"end_of_turn": "yes"}, "end_of_turn is true or false, got 'yes'"),
        ({"dtype": "fp17"}, "Unknown value of strong_dtype 'fp17'"),
        ({"weak_quantization": "4bit"}, "no such file: '4bit'"),
        ({"weak_quantization": "{]"}, "not valid JSON"),
        ({"weak_quantization": "{}"}, "a JSON object with a quant_method"),
        ({"weak_quantization": 4}, "quantization config, such as .* got 4"),
        ({"weak_device_map": "{foo"}, "weak_device_map is not valid JSON"),
        ({"weak_revision": 3}, "weak_revision is a text, got 3"),
        ({"weak_adapter_revision": "v1"}, "no effect without weak_adapter"),
        ({"weak": object()}, "got a object. Save it and give its folder"),
        ({"weak": ""}, "No weak model was given"),
        ({"weak": "a/strong"}, "the same model in every option"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace("{", r"\{")):
        parse(**options)


def test_every_option_of_a_side_has_its_three_spellings() -> None:
    for name in SIDE_OPTIONS:
        assert {name, f"strong_{name}", f"weak_{name}"} <= OPTIONS


def test_one_model_with_one_option_apart_is_a_pair() -> None:
    for apart in ({"weak_template": "none"}, {"weak_revision": "v1"}, {"strong_adapter": "a/lora"}):
        assert parse(weak="a/strong", **apart)


@pytest.mark.parametrize("name", ["model.gguf", "models/q4.GGUF", "a/b/c", "x/", "-/y", "a--b/c"])
@pytest.mark.parametrize("option", ["weak", "weak_adapter", "weak_tokenizer"])
def test_what_can_only_be_a_path_is_not_looked_for_on_the_hub(
    strong: str, weak: str, option: str, name: str
) -> None:
    with pytest.raises(ConfigError, match=f"{option}='{name}': no such file or folder, and not"):
        DrSoW(**{"strong": strong, "weak": weak, option: name})


@pytest.mark.parametrize("option", ["weak_adapter", "weak_tokenizer"])
def test_a_file_in_the_place_of_a_folder_is_refused(
    strong: str, weak: str, option: str, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"is a file\. Give the folder that holds it"):
        DrSoW(**{"strong": strong, "weak": weak, option: str(tmp_path / "tokenizer.json")})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("./nowhere", "no such file or folder, and not a Hub id"),
        ("/nowhere/at/all", "no such file or folder"),
        ("{tmp}", "a folder without a config.json"),
        ("{tmp}/model.bin", "is a file, and not a .gguf file"),
    ],
)
def test_paths_that_hold_no_model(tmp_path: Path, strong: str, path: str, message: str) -> None:
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=message):
        DrSoW(strong, path.format(tmp=tmp_path))


def test_a_folder_without_a_tokenizer(tmp_path: Path, strong: str) -> None:
    tiny.model().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"weak=.*holds no tokenizer.*weak_tokenizer="):
        DrSoW(strong, str(tmp_path))
    assert DrSoW(strong, str(tmp_path), weak_tokenizer=strong).score(["Q?"], ["A."])[0].reward


def test_no_chat_template_where_one_is_needed(tmp_path: Path, strong: str) -> None:
    base = tiny.save(tmp_path / "base", template=None)
    with pytest.raises(ConfigError, match=r"weak=.*no chat template.*weak_template=none"):
        DrSoW(strong, base)
    assert DrSoW(strong, base, weak_template="none").score(["Q?"], ["A."])[0].reward


def test_a_template_file(tmp_path: Path, strong: str, weak: str) -> None:
    file = tmp_path / "template.jinja"
    file.write_text(tiny.CHATML.replace("\n' ", " \n' "), encoding="utf-8")
    usual = DrSoW(strong, weak).score(["Q?"], ["A."])[0]
    other = DrSoW(strong, weak, weak_template=str(file)).score(["Q?"], ["A."])[0]
    assert other.strong_logprob == usual.strong_logprob
    assert other.weak_logprob != usual.weak_logprob
    with pytest.raises(ConfigError, match=r"no such file.*path of a Jinja file"):
        DrSoW(strong, weak, weak_template=str(tmp_path / "missing.jinja"))


def test_a_max_length_beyond_the_model_is_refused(strong: str, weak: str) -> None:
    with pytest.raises(ConfigError, match=r"max_length=513 .*\(512 tokens\)"):
        DrSoW(strong, weak, max_length=513)


def test_a_device_that_is_not_there(strong: str, weak: str) -> None:
    device = f"cuda:{torch.cuda.device_count()}" if torch.cuda.is_available() else "cuda:0"
    with pytest.raises(ConfigError, match=f"device='{device}' cannot be used here"):
        DrSoW(strong, weak, weak_device=device).score(["Q?"], ["A."])


def test_a_revision_of_a_local_folder_is_refused(strong: str, weak: str) -> None:
    with pytest.raises(ConfigError, match="weak_revision='v2' has no effect"):
        DrSoW(strong, weak, weak_revision="v2")


def test_a_template_that_is_not_text(tmp_path: Path, strong: str, weak: str) -> None:
    (tmp_path / "t.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="weak_template="):
        DrSoW(strong, weak, weak_template=str(tmp_path / "t.jinja"))


def test_a_checkpoint_without_all_weights_is_refused(tmp_path: Path, strong: str) -> None:
    """A trained reward model has no language model head: transformers would make one up."""
    import transformers as tf

    tiny.save(tmp_path)
    classifier = tf.LlamaForSequenceClassification(tiny.CONFIGS["llama"]())
    classifier.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks 1 weights.*lm_head.*reward model"):
        DrSoW(strong, str(tmp_path)).score(["Q?"], ["A."])


def test_a_config_that_does_not_fit(tmp_path: Path, strong: str) -> None:
    tiny.save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": "wide"}))
    with pytest.raises(ConfigError, match=r"weak=.*could not be loaded"):
        DrSoW(strong, str(tmp_path))


def test_a_broken_checkpoint(tmp_path: Path, strong: str) -> None:
    tiny.save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ConfigError, match=r"weak=.*could not be loaded"):
        DrSoW(strong, str(tmp_path)).score(["Q?"], ["A."])


REFUSALS = {
    "RepoNotFound": (404, "no such folder here and no such repository on the Hub"),
    "RevisionNotFound": (404, "the repository has no revision 'v9'"),
    "GatedRepo": (403, "the repository is gated"),
}


class Hub(BaseHTTPRequestHandler):
    """Refuses every request the way the Hub does; the name asked for says how."""

    def do_HEAD(self) -> None:
        # The client asks about itself too.
        code = next((name for name in REFUSALS if name in self.path), "RepoNotFound")
        self.send_response(REFUSALS[code][0])
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


OPEN = """
import sys, time
time.sleep = lambda seconds: None  # the client waits between tries
from drsow_plugin import DrSoW, DrSoWError
for name in sys.argv[1:]:
    try:
        DrSoW(name, "some/weak", strong_revision="v9")
    except DrSoWError as error:
        print(type(error).__name__, error)
print("torch weights" if "transformers.modeling_utils" in sys.modules else "no weights")
"""


def open_against(endpoint: str, tmp_path: Path, *names: str) -> list[str]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
    environment["HF_HUB_OFFLINE"] = "0"
    result = subprocess.run(
        [sys.executable, "-c", OPEN, *names],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *said, weights = result.stdout.splitlines()
    assert weights == "no weights" and len(said) == len(names)
    return said


@pytest.mark.slow
def test_what_the_hub_refuses_is_said_plainly(hub: str, tmp_path: Path) -> None:
    names = [f"some/{code}" for code in REFUSALS]
    refused = open_against(hub, tmp_path, *names)
    for name, said, (_, message) in zip(names, refused, REFUSALS.values(), strict=True):
        assert said.startswith(f"HubError strong='{name}'") and message in said


@pytest.mark.slow
def test_a_hub_that_cannot_be_reached_is_said_plainly(tmp_path: Path) -> None:
    (said,) = open_against("http://127.0.0.1:9", tmp_path, "some/strong")
    assert said.startswith("HubError strong='some/strong': not a folder here")
    assert "could not be reached" in said
