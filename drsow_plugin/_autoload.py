"""Makes lm-eval know the model ``drsow`` and its tasks, without changing lm-eval.

Released lm-eval (0.4.13) discovers no models and no tasks of other packages. Importing this
module installs a finder that waits for three of lm-eval's modules; when one is imported, the
model is registered, the folder of our tasks joins the default ones, and results of a pair get
a folder that names it. Nothing else happens, and nothing is imported but ``sys``: the file
that ``drsow enable`` writes imports this module at every start of the interpreter.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing has it, without importing typing at every start
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any


def _register_model(module: ModuleType) -> None:
    from lm_eval.api.registry import model_registry

    if "drsow" not in model_registry:
        model_registry.register("drsow", target="drsow_plugin.harness.model:DrSoWLM")


def _add_tasks(module: ModuleType) -> None:
    from pathlib import Path

    from drsow_plugin.taskfiles import tasks_path

    defaults = Path(str(module.__file__)).parent

    class TaskIndex(module.TaskIndex):  # type: ignore[misc, name-defined]
        """lm-eval's index, with our tasks behind its own and before the user's."""

        def build(self, paths: Any, *args: Any, **kwargs: Any) -> Any:
            paths = list(paths)
            if defaults in paths:
                paths.insert(paths.index(defaults) + 1, Path(tasks_path()))
            return super().build(paths, *args, **kwargs)

    vars(module)["TaskIndex"] = TaskIndex


def _name_results(module: ModuleType) -> None:
    tracker = module.GeneralConfigTracker
    original = tracker._get_model_name

    def name(model_args: Any) -> str | None:
        from drsow_plugin.harness.naming import pair_name

        return pair_name(model_args) or original(model_args)

    tracker._get_model_name = staticmethod(name)


def _show_errors_plainly(module: ModuleType) -> None:
    from drsow_plugin.harness.naming import install_excepthook

    install_excepthook()


_WAITING = {
    "lm_eval.models": _register_model,
    "lm_eval.tasks.manager": _add_tasks,
    "lm_eval.loggers.evaluation_tracker": _name_results,
    "lm_eval._cli.run": _show_errors_plainly,
}


class _Loader:
    """Runs a module's own loader, then what was waiting for the module."""

    def __init__(self, loader: Any, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then(module)


class _Finder:
    """Finds nothing by itself; wraps the loader of a module that is waited for."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        then = _WAITING.pop(name, None)
        if then is None:
            return None
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, then)  # type: ignore[assignment]
        return spec


def install() -> None:
    """Install the finder, once; act at once on modules that are imported already."""
    if any(finder is _Finder for finder in sys.meta_path):
        return
    for name in [name for name in _WAITING if name in sys.modules]:
        _WAITING.pop(name)(sys.modules[name])
    sys.meta_path.insert(0, _Finder)


install()
