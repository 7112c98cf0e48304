"""An option is declared once, and everything that takes options follows from that."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner

from drsow_plugin import Annotator, ConfigError, ModelConfig, PairConfig, Scoring
from drsow_plugin.annotate.options import LABEL_OPTIONS, LabelConfig, parse_labelling
from drsow_plugin.cli import main
from drsow_plugin.config.keywords import AnnotatorOptions
from drsow_plugin.config.options import given_options, options_of, parse_options
from drsow_plugin.config.pair import OPTIONS
from drsow_plugin.config.routing import RoutingConfig
from drsow_plugin.option import documented, option

ROOT = Path(__file__).parents[2]
DECLARED = [
    option
    for config in (ModelConfig, PairConfig, Scoring, RoutingConfig, LabelConfig)
    for option in options_of(config).values()
]


@documented
@dataclasses.dataclass(frozen=True)
class Made:
    """Of a test."""

    shade: Literal["light", "dark"] = option("light", "`light` or `dark`.", "Of all of it.")
    loud: bool = option(False, "Whether it is heard.")
    number: int | None = option(None, "How many.", unset="all")
    weight: float = option(0.5, "In nats.")
    name: str | None = option(None, "What it is called.")
    names: tuple[str, ...] = option((), "What they are called.")
    inner: int = 0


def test_the_type_of_a_field_says_what_it_takes() -> None:
    texts = {
        "shade": "dark",
        "loud": "1",
        "number": "3",
        "weight": "2",
        "name": "x",
        "names": "a+b",
    }
    values: dict[str, Any] = {
        **{"shade": "dark", "loud": True, "number": 3, "weight": 2.0},
        **{"name": "x", "names": ("a", "b")},
    }
    assert parse_options(Made, texts) == parse_options(Made, values) == values
    assert given_options(Made(**values), "my_") == {f"my_{n}": v for n, v in values.items()}
    assert given_options(Made(inner=3)) == {}
    assert parse_options(Made, {"number": None, "name": None, "inner": 5, "other": 1}) == {}
    for wrong, said in (
        ({"shade": "drak"}, "Unknown value of my_shade 'drak'. Did you mean 'dark'"),
        ({"shade": None}, "Unknown value of my_shade 'None'"),
        ({"loud": "yes"}, "my_loud is true or false, got 'yes'"),
        ({"number": 0}, "my_number is a whole number of at least 1, got 0"),
        ({"weight": "-1"}, "my_weight is a number of nats, at least 0, got '-1'"),
        ({"name": ""}, "my_name is a text, got ''"),
        ({"name": 7}, "my_name is a text, got 7"),
        ({"names": "a+"}, "my_names: a name is missing"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_options(Made, wrong, "my_")
        assert said in str(caught.value)


def test_what_an_option_is_without_is_said() -> None:
    unset = {name: option.unset for name, option in options_of(Made).items()}
    expected = {"shade": "light", "loud": "false", "number": "all", "weight": "0.5"}
    assert unset == {**expected, "name": "", "names": ""}


def test_the_docstring_has_what_the_options_do() -> None:
    assert (Made.__doc__ or "").startswith(
        "Of a test.\n\n    Attributes:\n        shade: `light` or"
    )
    assert "        shade: `light` or `dark`. Of all of it.\n" in (Made.__doc__ or "")
    assert "        source: A Hub id" in (ModelConfig.__doc__ or "")


def test_every_field_is_an_option_or_known_to_be_none() -> None:
    inner = {ModelConfig: {"source", "given"}, PairConfig: {"scoring", "routing"}}
    for config in (ModelConfig, PairConfig, Scoring, RoutingConfig, LabelConfig):
        names = {entry.name for entry in dataclasses.fields(config)}
        assert names - set(options_of(config)) == inner.get(config, set())


def test_an_annotator_of_parsed_options_is_that_of_the_options(strong: str, weak: str) -> None:
    options: dict[str, Any] = {"strong": strong, "weak": weak, "weak_dtype": "float64", "seed": "3"}
    parsed = Annotator.from_config(*parse_labelling(options))
    assert repr(parsed) == repr(Annotator(**options))
    assert parsed.options() == {**options, "seed": 3}
    with pytest.raises(ConfigError, match="Did you mean 'select'"):
        parse_labelling({**options, "selct": 1})


def test_texts_name_every_word_that_an_option_takes() -> None:
    for declared in DECLARED:
        if declared.values.python.startswith("Literal"):
            assert all(word in declared.help for word in declared.values.words.split(", "))


def test_the_command_line_says_what_the_declaration_says() -> None:
    result = CliRunner().invoke(main, ["annotate", "--help"], terminal_width=200)
    said = " ".join(result.stdout.replace("-\n", "-").split())
    for declared in DECLARED:
        unset = f" [{declared.unset}]" if declared.unset else ""
        text = f"{declared.help.replace('`', '')}{unset}"
        assert " ".join(text.split()).replace("- ", "-") in said.replace("- ", "-")


def test_keywords_and_the_reference_page_are_what_the_declarations_give() -> None:
    """Run scripts/write_options.py where this fails."""
    spec = importlib.util.spec_from_file_location("writing", ROOT / "scripts/write_options.py")
    assert spec and spec.loader
    writing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writing)
    for file, text in (
        ("docs/options.md", writing.page()),
        ("drsow_plugin/config/keywords.py", writing.keywords()),
    ):
        assert (ROOT / file).read_text(encoding="utf-8") == text
    keywords = AnnotatorOptions.__optional_keys__
    assert keywords == {*OPTIONS, *LABEL_OPTIONS} - {"strong", "weak"}
