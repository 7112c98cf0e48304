"""Makes lm-eval know the models ``drsow`` and ``reward`` and our tasks, without changing lm-eval.

Released lm-eval (0.4.13) discovers no models and no tasks of other packages. Importing this
module installs a finder that waits for four of lm-eval's modules; when one is imported, the
models are registered, the folder of our tasks joins the default ones, results of a pair get a
folder that names it, and lm-eval's command shows our errors in one line. Nothing else happens,
and nothing is imported but ``sys``: the file that ``drsow enable`` writes imports this module at
every start of the interpreter.

Whatever goes wrong here is told once and leaves lm-eval as it is: everybody in the environment
imports it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing has it, without importing typing at every start
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


_MODELS = {
    "drsow": "drsow_plugin.harness.model:DrSoWLM",
    "reward": "drsow_plugin.harness.reward_model:RewardModelLM",
}


def _register_models(_module: ModuleType) -> None:
    from lm_eval.api.registry import model_registry

    for name, target in _MODELS.items():
        if name not in model_registry:
            model_registry.register(name, target=target)


def _add_tasks(module: ModuleType) -> None:
    """Put our tasks behind lm-eval's own, and before the user's, as --include_path would."""
    from functools import wraps
    from inspect import signature

    from drsow_plugin.harness import tasks_path

    manager = module.TaskManager
    original = manager.__init__
    parameters = signature(original)
    _ = parameters.parameters["include_path"], parameters.parameters["include_defaults"]

    @wraps(original)
    def init(*args: Any, **kwargs: Any) -> None:
        call = parameters.bind(*args, **kwargs)
        call.apply_defaults()
        if call.arguments["include_defaults"]:
            paths = call.arguments["include_path"] or []
            paths = paths if isinstance(paths, list | tuple) else [paths]
            call.arguments["include_path"] = [tasks_path(), *paths]
        original(*call.args, **call.kwargs)

    manager.__init__ = init


def _name_results(module: ModuleType) -> None:
    """Name the folder of results after the pair; lm-eval looks for names of single models."""
    from lm_eval.utils import sanitize_model_name

    tracker = module.GeneralConfigTracker
    original = tracker.log_experiment_args

    def log(self: Any, model_source: str, model_args: Any, *args: Any, **kwargs: Any) -> None:
        from drsow_plugin.harness.command import pair_name

        original(self, model_source, model_args, *args, **kwargs)
        if name := pair_name(model_args):
            self.model_name, self.model_name_sanitized = name, sanitize_model_name(name)

    tracker.log_experiment_args = log


def _show_errors_plainly(module: ModuleType) -> None:
    """Wrap what runs a command; an exception hook would be the whole process's."""
    from drsow_plugin.harness.command import in_plain_words

    original = module.HarnessCLI.execute

    def execute(self: Any, arguments: Any) -> None:
        in_plain_words(lambda parsed: original(self, parsed))(arguments)

    module.HarnessCLI.execute = execute


# Methods that lm-eval calls itself, none of them private; it offers no other way to any of the
# four. Its releases after 0.4.13 will find the models by the entry points in pyproject.toml.
_PATCHES = {
    "lm_eval.models": _register_models,
    "lm_eval.tasks.manager": _add_tasks,
    "lm_eval.loggers.evaluation_tracker": _name_results,
    "lm_eval._cli.harness": _show_errors_plainly,
}


_told: list[str] = []


def _apply(name: str, module: ModuleType) -> None:
    """Extend one module of lm-eval; where it is not as expected, say so and leave it alone."""
    try:
        _PATCHES[name](module)
    except Exception as error:
        _told.append(name)
        if len(_told) > 1:
            return  # one cause mostly makes several failures
        import logging

        what = " ".join(f"{type(error).__name__}: {error}".split())
        logging.getLogger("drsow_plugin").warning(
            "drsow-plugin does not fit this lm-eval (%s: %s), which goes on without it. Update "
            "drsow-plugin, or run 'drsow disable'.",
            name,
            what,
        )


class _Loader:
    """Runs a module's own loader, then extends the module."""

    def __init__(self, loader: Any, name: str) -> None:
        self._loader = loader
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _apply(self._name, module)


_searching: set[str] = set()


class _Finder:
    """Finds nothing by itself; wraps the loader of a module that is waited for."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _PATCHES or name in _searching:
            return None
        _searching.add(name)  # another finder may ask all finders too, and so ask this one again
        try:
            for finder in sys.meta_path:
                find = getattr(finder, "find_spec", None)
                spec = find and find(name, path, target)
                if spec is not None:
                    if hasattr(spec.loader, "exec_module"):
                        spec.loader = _Loader(spec.loader, name)
                    return spec
        finally:
            _searching.discard(name)
        return None


def install() -> None:
    """Install the finder, once; act at once on modules that are imported already."""
    if any(finder is _Finder for finder in sys.meta_path):
        return
    for name in [name for name in _PATCHES if name in sys.modules]:
        _apply(name, sys.modules[name])
    sys.meta_path.insert(0, _Finder)


install()
