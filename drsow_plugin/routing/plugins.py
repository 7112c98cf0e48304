"""Finds plugins, checks them and collects what they offer."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from drsow_plugin.errors import PluginError, unknown_name
from drsow_plugin.routing.domains import Domain
from drsow_plugin.routing.hookspecs import HOOKS, PROJECT, Router, RouterContext, Specs

Named = TypeVar("Named", Domain, Router)

_FILE = "drsow_file_"


@dataclass(frozen=True)
class Plugin:
    """A loaded plugin.

    Attributes:
        name: Its entry point, module or file.
        origin: The distribution it came with, such as ``drsow-plugin``; empty for a file or a
            module that was named.
        version: Of the distribution; empty likewise.
        module: The module, or the object, that holds its hooks.
        sha256: Hash of the Python files that it consists of: of its package, where it is in one.
    """

    name: str
    origin: str
    version: str
    module: Any
    sha256: str

    @property
    def source(self) -> str:
        """Where it came from, for people."""
        return f"{self.origin} {self.version}" if self.origin else self.name

    def __str__(self) -> str:
        return f"{self.name!r} ({self.source})"

    def describe(self) -> dict[str, str]:
        """Return what identifies the plugin, as plain values."""
        return {
            "name": self.name,
            "origin": self.origin,
            "version": self.version,
            "sha256": self.sha256,
        }


_hashes: dict[str, str] = {}
"""Of modules that stay imported: what was loaded counts, not what the file became since."""


def _sha256(module: Any) -> str:
    """Return a hash of the Python files of a plugin, as they were when it was first loaded."""
    module = inspect.getmodule(module)
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return ""
    if module.__name__ not in _hashes:
        if module.__name__.startswith(_FILE):
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()  # read anew each time
        digest = hashlib.sha256()
        folder = Path(file).parent
        for path in sorted(folder.rglob("*.py")) if module.__package__ else [Path(file)]:
            name = str(path.relative_to(folder))
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
        _hashes[module.__name__] = digest.hexdigest()
    return _hashes[module.__name__]


@dataclass(frozen=True)
class Offer:
    """A domain or a router, and the plugin that offers it."""

    value: Any
    plugin: Plugin


class Plugins:
    """The plugins of one pair of models; made anew for each.

    Attributes:
        loaded: The plugins by name.
        domains: The domains that they offer, by name.
    """

    def __init__(self, named: Sequence[str] = ()) -> None:
        """Load the plugins that the entry point group ``drsow`` names, and others.

        Args:
            named: Module paths and Python files of the others.

        Raises:
            PluginError: One cannot be loaded, is loaded twice, or implements a hook that does
                not exist.
        """
        self.loaded: dict[str, Plugin] = {}
        self._hooks: dict[str, pluggy.HookRelay] = {}
        points = metadata.entry_points(group=PROJECT)
        for point in sorted(points, key=lambda point: (point.name, point.value)):
            self._add(_installed(point))
        for name in named:
            module = _import(name)
            self._add(Plugin(name, "", "", module, _sha256(module)))
        self.domains: dict[str, Offer] = self._collect("drsow_domains", Domain)

    def routers(self, context: RouterContext) -> dict[str, Offer]:
        """Return the routers by name.

        Args:
            context: What routers may use.

        Raises:
            PluginError: A hook failed, or two plugins offer one name.
        """
        return self._collect("drsow_routers", Router, context=context)

    def _add(self, plugin: Plugin) -> None:
        if plugin.name in self.loaded:
            raise PluginError(
                f"Two plugins are called {plugin.name!r}: of {self.loaded[plugin.name].source} "
                f"and of {plugin.source}. Name or install one of them once."
            )
        twin = next((p for p in self.loaded.values() if p.module is plugin.module), None)
        if twin is not None:
            raise PluginError(
                f"The plugin {plugin.name!r} is loaded already, as {twin.name!r} of "
                f"{twin.source}. Leave plugin={plugin.name} out."
            )
        _check_hooks(plugin)
        manager = pluggy.PluginManager(PROJECT)  # one each, to ask each by itself
        manager.add_hookspecs(Specs)
        try:
            manager.register(plugin.module, plugin.name)
        except pluggy.PluginValidationError as error:
            raise PluginError(f"The plugin {plugin}: {error}") from error
        self.loaded[plugin.name], self._hooks[plugin.name] = plugin, manager.hook

    def _collect(self, hook: str, kind: type[Named], **arguments: object) -> dict[str, Offer]:
        """Return what all plugins offer by name; in the order of the plugins' names."""
        offers: dict[str, Offer] = {}
        for name, plugin in sorted(self.loaded.items()):
            for value in _offered(plugin, getattr(self._hooks[name], hook), kind, arguments):
                other = offers.get(value.name)
                what = f"{kind.__name__.lower()} {value.name!r}"
                if other is not None and other.plugin is plugin:
                    raise PluginError(f"The plugin {plugin} offers the {what} twice.")
                if other is not None:
                    raise PluginError(
                        f"The {what} is offered by two plugins: {other.plugin} and "
                        f"{plugin}. Rename one, or uninstall or leave out one plugin."
                    )
                offers[value.name] = Offer(value, plugin)
        return offers


def _offered(
    plugin: Plugin, hook: pluggy.HookCaller, kind: type[Named], arguments: Mapping[str, object]
) -> list[Named]:
    try:
        answers = hook(**arguments)
    except (Exception, SystemExit) as error:
        raise PluginError(f"The plugin {plugin} failed in {hook.name}: {_said(error)}.") from error
    if hook.get_hookimpls() and not answers:
        answers = [None]  # which pluggy leaves out
    values: list[Named] = []
    for answer in answers:
        if not isinstance(answer, (list, tuple)) or not all(isinstance(v, kind) for v in answer):
            raise PluginError(
                f"The plugin {plugin}: {hook.name} returns a list of {kind.__name__} objects, got "
                f"{answer!r:.80}."
            )
        values.extend(answer)
    return values


def _installed(point: metadata.EntryPoint) -> Plugin:
    origin = point.dist.name if point.dist else "?"
    version = point.dist.version if point.dist else "?"
    try:
        module = point.load()
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"The plugin {point.name!r} ({point.value}) of {origin} {version} cannot be "
            f"loaded: {_said(error)}. Fix or uninstall {origin}."
        ) from error
    return Plugin(point.name, origin, version, module, _sha256(module))


def _check_hooks(plugin: Plugin) -> None:
    """Check that what looks like a hook is one, and is marked.

    Raises:
        PluginError: There is no such hook, the mark is missing, or there is no hook at all.
    """
    implements_any = False
    for name in dir(plugin.module):
        function = getattr(plugin.module, name, None)
        mark = getattr(function, f"{PROJECT}_impl", None)
        is_marked = isinstance(mark, Mapping)
        if not is_marked and not (name.startswith(f"{PROJECT}_") and callable(function)):
            continue
        hook = mark.get("specname") or name if isinstance(mark, Mapping) else name
        if hook not in HOOKS:
            raise PluginError(f"The plugin {plugin}: {unknown_name('hook', hook, HOOKS)}")
        if not is_marked:
            raise PluginError(
                f"The plugin {plugin}: mark {name} with @hookimpl, or it is not called."
            )
        implements_any = True
    if not implements_any:
        raise PluginError(
            f"The plugin {plugin} implements no hook. Mark a function called "
            f"{' or '.join(HOOKS)} with @hookimpl."
        )


def _import(name: str) -> ModuleType:
    """Import a plugin by module path or from a file.

    Raises:
        PluginError: There is none, or it fails.
    """
    path = Path(name).expanduser()
    is_file = path.suffix == ".py" or path.is_file()
    if is_file and not path.is_file():
        raise PluginError(f"plugin={name}: no such file. Give a Python file or a module path.")
    try:
        return _import_file(path) if is_file else importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and name.startswith(str(error.name))
        hint = "Give a Python file or a module that can be imported" if missing else "Fix it"
        raise PluginError(f"plugin={name} cannot be loaded: {_said(error)}. {hint}.") from error


def _import_file(path: Path) -> ModuleType:
    path = path.resolve()
    name = f"{_FILE}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path.name} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as an import does: dataclasses and pickle look there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split()).rstrip('.')}"
