"""SECURITY.md is true: each of its lines names a test that is there, and these are some of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import datasets
import pytest
from helpers import tiny
from helpers.commands import drsow, write
from helpers.rendering import Renderer

from drsow_plugin import ConfigError, DrSoW

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_each_line_of_the_page_names_tests_that_are_there() -> None:
    lines = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ")][2:]
    assert len(lines) > 10
    for claim, held in lines:
        found = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", held)
        assert found, claim
        for file, test in found:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), test


def test_each_link_and_command_of_the_page_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in re.findall(r"`make (\w+)`", PAGE):
        assert f"\n{name}: " in makefile


CODE = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM

Path({file!r}).touch()

class OddConfig(LlamaConfig):
    model_type = "odd"

class OddModel(LlamaForCausalLM):
    config_class = OddConfig
"""


def test_code_of_a_model_does_not_run_unless_asked(
    tmp_path: Path, strong: str, weak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, ran = Path(shutil.copytree(strong, tmp_path / "odd")), tmp_path / "ran"
    (odd / "odd.py").write_text(CODE.format(file=str(ran)))
    config = json.loads((odd / "config.json").read_text())
    config["model_type"] = "odd"
    config["auto_map"] = {"AutoConfig": "odd.OddConfig", "AutoModelForCausalLM": "odd.OddModel"}
    (odd / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "m"))
    with pytest.raises(ConfigError, match=r"strong='.*odd' could not be loaded.*"):
        DrSoW(str(odd), weak)
    assert not ran.exists()
    DrSoW(str(odd), weak, strong_trust_remote_code=True)
    assert ran.exists()


@pytest.mark.parametrize(
    "escape",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% set x = messages.append(1) %}",
        "{{ '%s' | format(messages.__class__.__base__) }}",
        "{{ '{0.__class__.__base__}'.format(messages) }}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_a_template_does_not_get_out_of_its_sandbox(escape: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot (be compiled|render)"):
        Renderer(tiny.tokenizer("bytes"), escape + tiny.CHATML)


HOSTILE = [
    "{{ 7 * 7 }}{% include '/etc/passwd' %}",
    "$(touch ran) `touch ran` ; touch ran | touch ran",
    "../../../ran\x00/ran",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "%s {0.__class__} \\N{BULLET} ${HOME}",
    "=cmd|' /C touch ran'!A0",
]


def test_data_is_text_wherever_it_goes(
    tmp_path: Path, models: list[str], cache: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is run or becomes a name: what is written is what would be of other rows."""
    monkeypatch.chdir(tmp_path)
    plain = [{"prompt": f"q{n}", "response": f"a{n}"} for n in range(len(HOSTILE))]
    columns = dict.fromkeys((text.replace("\0", "") for text in HOSTILE), "x")
    rows = [{"prompt": text, "response": text, **columns} for text in HOSTILE]
    written = {}
    for name, data in (("plain", plain), ("hostile", rows)):
        file = write(tmp_path / f"{name}.jsonl", data)
        result = drsow("annotate", file, tmp_path / name, *models)
        assert result.exit_code == 0, result.output
        written[name] = {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")}
    assert written["plain"] == written["hostile"]
    assert {path.name for path in tmp_path.iterdir()} == {
        *("plain", "hostile", "plain.jsonl", "hostile.jsonl", "cache")
    }
    labelled = datasets.load_dataset("parquet", data_dir=str(tmp_path / "hostile" / "data"))
    assert list(labelled["train"]["response"]) == HOSTILE
