"""Options of servers."""

from __future__ import annotations

from typing import Any

import pytest
from lm_eval.utils import simple_parse_args_string

from drsow_plugin import ConfigError
from drsow_plugin.config.pair import as_options, parse_pair, parse_single

URL = "http://127.0.0.1:8000/v1"


def parse(**options: Any) -> Any:
    return parse_pair({"strong": "a/strong", "weak": "a/weak", **options})


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        (URL, (URL,)),
        ("http://127.0.0.1:8000", (URL,)),
        ("http://127.0.0.1:8000/v1/", (URL,)),
        ("https://Host/a/b+c", ("https://host/a/b+c",)),
        (f"{URL}+http://two:1/v1", (URL, "http://two:1/v1")),
        (f"{URL}|http://two:1/v1", (URL, "http://two:1/v1")),
        ([URL, "http://two:1"], (URL, "http://two:1/v1")),
    ],
)
def test_servers_are_urls(given: Any, urls: tuple[str, ...]) -> None:
    config = parse(strong_server=given)
    assert config.strong.server == urls and config.weak.server == ()
    assert parse_pair(as_options(config)) == config


def test_urls_survive_lm_evals_arguments() -> None:
    text = f"strong=a/strong,weak=a/weak,strong_server={URL}+http://two/v1,server_timeout=9"
    config = parse_pair(simple_parse_args_string(text))
    assert config.strong.server == (URL, "http://two/v1")
    assert config.strong.server_timeout == 9.0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "host:8000",
            "strong_server is the URL of a server, such as http://127.0.0.1:8000/v1, got",
        ),
        ("ftp://host/v1", "is the URL of a server"),
        ("http://", "is the URL of a server"),
        ("http://host:port", "is the URL of a server"),
        ([], "is the URL of a server"),
        (7, "is the URL of a server"),
        (f"{URL}?a=b", "a URL without"),
        (f"{URL}+{URL}/", "a URL is given twice"),
        ("http://me:sesame@host/v1", "a URL with a password in it would be written down"),
        ("http://me:sesame@host:port/v1", "is the URL of a server"),
    ],
)
def test_what_is_no_url_is_said_without_a_password(given: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse(strong_server=given)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strong_server": URL, "strong_dtype": "float32"}, "its own weights, so dtype has no"),
        ({"strong_server": URL, "dtype": "float32"}, "give it for the other model alone"),
        ({"strong_server": URL, "strong_device": "cpu"}, "so device has no effect"),
        ({"strong_server": URL, "strong_compile": "on"}, "so compile has no effect"),
        ({"strong_server": URL, "strong_adapter": "a/b"}, "so adapter has no effect"),
        ({"weak_server_model": "x"}, "weak_server_model has no effect without weak_server=…"),
        ({"server_key": "X"}, "server_key has no effect without server=…"),
        ({"strong_server": URL, "server_timeout": 0}, "server_timeout is a number of seconds, mo"),
        ({"strong_server": URL, "server_wait": "long"}, "server_wait is a number of seconds, more"),
    ],
)
def test_options_that_have_no_effect_or_no_sense(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(**options)


def test_a_device_for_both_is_for_the_side_that_has_weights_here() -> None:
    config = parse(strong_server=URL, device="cpu", weak_dtype="float64", server_timeout=5)
    assert (config.strong.device, config.weak.device) == (None, "cpu")
    assert config.weak.server_timeout == 300.0
    assert config.computes_here
    assert not parse(server=URL, weak_server_model="x").computes_here


def test_one_model_alone_and_a_routers_own_may_be_on_a_server() -> None:
    config, _, _ = parse_single("a/model", {"server": URL})
    assert config.server == (URL,)
    with pytest.raises(ConfigError, match="server_model has no effect without server="):
        parse_single("a/model", {"server_model": "x"})
    options = {"router": "model", "router_model": "a/other", "dtype": "bfloat16"}
    routed = parse(**options, router_server=URL).routing.router_model
    assert routed.server == (URL,) and routed.dtype is None
