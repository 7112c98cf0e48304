"""The hook contract: what a plugin may do wrong, and who is named for it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drsow_plugin import ConfigError, Domain, PluginError, Route, Router, RouterInput, hookimpl
from drsow_plugin.config.routing import parse_routing
from drsow_plugin.errors import NonFiniteError
from drsow_plugin.routing.hookspecs import RouterContext
from drsow_plugin.routing.plugins import Plugins
from drsow_plugin.routing.routing import Routing

TALK = Domain("talk", "All.")
LAW = Domain("law", "About law.", instruction="Be exact.")


def no_model(prompts: object, responses: object) -> list[float | None]:
    raise AssertionError("no model is asked here")


def plugin(
    domains: list[Domain] | None = None, route: Callable[..., Any] | None = None, name: str = "mine"
) -> Any:
    """Return an object with hooks."""
    made = types.ModuleType("made")
    if domains is not None:

        @hookimpl
        def drsow_domains() -> list[Domain]:
            return domains

        made.drsow_domains = drsow_domains
    if route is not None:

        @hookimpl
        def drsow_routers() -> list[Router]:
            return [Router(name, route)]

        made.drsow_routers = drsow_routers
    return made


def names(*modules: Any) -> list[str]:
    """Make objects importable, as ``plugin-0``, ``plugin-1``, …; return those names."""
    for number, module in enumerate(modules):
        sys.modules[f"plugin-{number}"] = module
    return [f"plugin-{number}" for number in range(len(modules))]


@pytest.fixture(autouse=True)
def imported() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.startswith("plugin-")]:
        del sys.modules[name]


def loaded(*modules: Any) -> Plugins:
    return Plugins(names(*modules))


def routing_by(router: str, *modules: Any) -> Routing:
    return Routing(parse_routing({"router": router, "plugin": names(*modules)}), no_model)


def routed(route: Callable[..., Any], texts: list[str]) -> list[Route]:
    routing = routing_by("mine", plugin([TALK, LAW], route))
    return routing.route([RouterInput([{"role": "user", "content": text}]) for text in texts])


def test_a_router_answers_with_names_none_or_routes() -> None:
    answers = ["law", None, Route("talk", 0.5, "a note")]
    assert routed(lambda prompts: answers, ["a", "b", "c"]) == [
        Route("law"),
        Route(None),
        Route("talk", 0.5, "a note"),
    ]


def test_a_router_is_asked_once_for_all_and_once_for_each_prompt() -> None:
    asked: list[list[str]] = []

    def route(prompts: list[RouterInput]) -> list[str]:
        asked.append([prompt.text for prompt in prompts])
        return ["law" if prompt.text == "a" else "talk" for prompt in prompts]

    answers = routed(route, ["a", "b", "a", "a"])
    assert [found.domain for found in answers] == ["law", "talk", "law", "law"]
    assert asked == [["a", "b"]]


def raising(prompts: object) -> list[str]:
    raise KeyError("lost")


def out_of_range(prompts: object) -> list[str]:
    raise NonFiniteError("a log-prob came out as nan", 0)


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (raising, "failed: KeyError: 'lost'"),
        (lambda prompts: ["law"], "gave 1 answers to 2 prompts"),
        (lambda prompts: ["law", "lw"], "Unknown domain 'lw'. Did you mean 'law'?"),
        (lambda prompts: ["law", 3], "answered with a int"),
        (lambda prompts: 5, "failed: TypeError"),
        (lambda prompts: [Route("law", 1.5)] * 2, "gave 1.5 as a confidence"),
        (lambda prompts: [Route("law", float("nan"))] * 2, "gave nan as a confidence"),
        (lambda prompts: [Route("law", "0.9")] * 2, "gave '0.9' as a confidence"),
        (lambda prompts: [Route("law", note=3)] * 2, "gave 3 as a note"),
        (out_of_range, "came out as nan"),
        (lambda prompts: "lw", "instead of a list"),
        (lambda prompts: sys.exit(3), "failed: SystemExit"),
    ],
)
def test_a_router_that_goes_wrong_is_named_with_its_plugin(
    route: Callable[..., Any], said: str
) -> None:
    with pytest.raises(PluginError) as caught:
        routed(route, ["a", "b"])
    assert "The router 'mine' of the plugin 'plugin-0'" in str(caught.value)
    assert said in str(caught.value)


def test_two_plugins_that_offer_one_domain_are_both_named() -> None:
    with pytest.raises(PluginError, match=r"domain 'law'.*'plugin-0'.*'plugin-1'"):
        loaded(plugin([LAW]), plugin([TALK, LAW]))


def test_one_plugin_that_offers_a_domain_twice_is_named() -> None:
    with pytest.raises(PluginError, match=r"'plugin-0'.*offers the domain 'law' twice"):
        loaded(plugin([LAW, LAW]))


def test_a_router_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(ConfigError, match="route is a function"):
        Router("mine", "law")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="name of a router"):
        Router("", raising)


def test_two_plugins_that_offer_one_router_are_both_named() -> None:
    plugins = loaded(plugin(route=raising), plugin(route=raising))
    with pytest.raises(PluginError, match=r"router 'mine'.*'plugin-0'.*'plugin-1'"):
        plugins.routers(RouterContext({}, no_model))


def test_the_order_of_plugins_changes_nothing() -> None:
    order = names(plugin([LAW]), plugin([TALK]))
    found = [list(Plugins(listed).domains.items()) for listed in (order, order[::-1])]
    assert found[0] == found[1]
    assert [n for n, _ in found[0] if n in ("law", "talk")] == ["law", "talk"]


@hookimpl
def drsow_domain() -> list[Domain]:
    """Be a hook whose name is misspelt."""
    return []


def drsow_domains() -> list[Domain]:
    """Be a hook without its mark."""
    return []


def drsow_rooters() -> list[Router]:
    """Be a hook that is misspelt and without its mark."""
    return []


@hookimpl
def drsow_routers(contxt: object) -> list[Router]:
    """Be a hook with a misspelt argument."""
    return []


@pytest.mark.parametrize(
    ("hook", "said"),
    [
        (drsow_domain, "Unknown hook 'drsow_domain'. Did you mean 'drsow_domains'?"),
        (drsow_domains, "mark drsow_domains with @hookimpl"),
        (drsow_rooters, "Unknown hook 'drsow_rooters'. Did you mean 'drsow_routers'?"),
        (drsow_routers, "contxt"),
        (None, "implements no hook"),
    ],
)
def test_a_misspelt_hook_is_an_error(hook: Any, said: str) -> None:
    module = types.ModuleType("made")
    if hook is not None:
        setattr(module, hook.__name__, hook)
    with pytest.raises(PluginError) as caught:
        loaded(module)
    assert said in str(caught.value) and "'plugin-0'" in str(caught.value)


@pytest.mark.parametrize("answer", [None, [1], Domain("x", "y"), "law"])
def test_a_hook_returns_a_list_of_what_it_offers(answer: object) -> None:
    class Answering:
        @hookimpl
        def drsow_domains(self) -> object:
            return answer

    with pytest.raises(PluginError, match=r"'plugin-0'.*drsow_domains returns a list of Domain"):
        loaded(Answering())


def test_a_hook_that_raises_is_named() -> None:
    class Failing:
        @hookimpl
        def drsow_domains(self) -> list[Domain]:
            return [Domain("two words", "x")]

    with pytest.raises(PluginError, match=r"'plugin-0'.*failed in drsow_domains: ConfigError"):
        loaded(Failing())


FILE = """
from drsow_plugin import Domain, Router, hookimpl

@hookimpl
def drsow_domains():
    return [Domain("law", "About law.", instruction="Be exact.")]

@hookimpl
def drsow_routers():
    return [Router("law", lambda prompts: ["law" if "law" in p.text else None for p in prompts])]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_router.py"
    path.write_text(FILE)
    return path


def test_plugins_load_from_a_file_and_from_a_module_path(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "law" in Plugins([str(file)]).domains
    monkeypatch.syspath_prepend(str(file.parent))
    plugins = Plugins(["my_router"])
    assert plugins.domains["law"].plugin.name == "my_router"
    assert {"safety", "reasoning", "chat", "law"} == set(plugins.domains)
    del sys.modules["my_router"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.py", "no such file"),
        ("no_such_module", "No module named 'no_such_module'"),
        ("no_such.module", "Give a Python file or a module"),
        ("{folder}/broken.py", "SyntaxError"),
        ("{folder}/raises.py", "ZeroDivisionError: division by zero"),
        ("{folder}/empty.py", "implements no hook"),
        ("drsow_plugin.hooks.keyword", "is loaded already, as 'keyword' of drsow-plugin"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "broken.py").write_text("def x(:\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("")
    name = name.format(folder=tmp_path)
    with pytest.raises(PluginError) as caught:
        Plugins([name])
    assert name in str(caught.value) and said in str(caught.value)


def test_what_identifies_a_plugin_changes_with_its_file(file: Path) -> None:
    first = Plugins([str(file)])
    assert first.domains["law"].plugin.describe()["name"] == str(file)
    before = first.domains["law"].plugin.sha256
    assert Plugins([str(file)]).domains["law"].plugin.sha256 == before
    file.write_text(FILE + "# changed\n")
    assert Plugins([str(file)]).domains["law"].plugin.sha256 != before


def test_a_plugin_in_a_package_is_identified_by_the_whole_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes = []
    for number, rules in enumerate(("A = 1\n", "A = 2\n")):
        package = tmp_path / str(number) / f"routing_rules_{number}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "router.py").write_text(f"from routing_rules_{number}.rules import A\n" + FILE)
        (package / "rules.py").write_text(rules)
        monkeypatch.syspath_prepend(str(package.parent))
        name = f"routing_rules_{number}.router"
        hashes.append(Plugins([name]).loaded[name].sha256)
        (package / "rules.py").write_text("A = 3\n")  # which is not what runs
        assert Plugins([name]).loaded[name].sha256 == hashes[-1]
    assert hashes[0] != hashes[1]


def test_only_a_router_that_says_so_is_told_what_the_data_names() -> None:
    for uses in (False, True):

        class Telling:
            @hookimpl
            def drsow_routers(self, uses: bool = uses) -> list[Router]:
                return [Router("tells", lambda ps: [p.known for p in ps], uses_known=uses)]

        routing = routing_by("tells", plugin([TALK, LAW]), Telling())
        inputs = [RouterInput([{"role": "user", "content": "a"}], n) for n in ("law", "talk")]
        expected = ["law", "talk"] if uses else [None, None]
        assert [found.domain for found in routing.route(inputs)] == expected


def test_built_in_plugins_come_through_the_entry_points_of_this_distribution() -> None:
    plugins = Plugins()
    assert {plugin.origin for plugin in plugins.loaded.values()} == {"drsow-plugin"}
    routers = plugins.routers(RouterContext({}, no_model))
    assert set(routers) == {"column", "keyword", "model"}
    assert all(offer.plugin.sha256 for offer in routers.values())


def test_an_installed_plugin_that_cannot_be_loaded_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "broken_thing-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-thing\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[drsow]\nthing = no_such_thing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(PluginError, match=r"'thing' \(no_such_thing\) of broken-thing 3.1"):
        Plugins()
