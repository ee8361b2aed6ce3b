"""What a template remembers of files that do not change without making it out of date.

A restored guest reads these through the host's file system, parses and compiles them, each time the same.
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any


def remember_metadata() -> None:
    """Have :mod:`importlib.metadata` read the files of the distributions that are installed now no more than once.

    pytest looks at all of them three times, for plugins. That none has come or gone is seen by the folders they are in.
    """
    found = [one for one in metadata.distributions() if isinstance(one, metadata.PathDistribution)]
    plugins = [one for one in found if any(point.group == "pytest11" for point in one.entry_points)]
    _remember("entry_points", found)
    _remember("files", plugins)


def _remember(name: str, distributions: Iterable[metadata.PathDistribution]) -> None:
    """Have the property ``name`` of each of ``distributions``, by its folder, be what it is now."""
    values = {str(one._path): getattr(one, name) for one in distributions}
    look = getattr(metadata.Distribution, name).fget

    def value(self: metadata.PathDistribution) -> Any:
        path = str(self._path)
        return values[path] if path in values else look(self)

    setattr(metadata.PathDistribution, name, property(value))


def remember_fixtures() -> None:
    """Have pytest look for fixtures no more than once in each plugin; most of its own have none.

    It looks at each name in each plugin: a module, or an object whose class may have fixtures. The second time, a
    module is represented by one that has nothing but its fixtures.
    Source: _pytest/fixtures.py, FixtureManager.pytest_plugin_registered().
    """
    from _pytest import fixtures
    from _pytest.fixtures import FixtureManager

    definition = getattr(fixtures, "FixtureFunctionDefinition", None)  # from pytest 8.4 on
    if not hasattr(FixtureManager, "_register_fixture"):  # before pytest 8.1
        return
    look, register = FixtureManager.pytest_plugin_registered, FixtureManager._register_fixture
    without: set[object] = set()
    only: dict[object, ModuleType] = {}
    found: list[object] = []

    @functools.wraps(register)
    def counted(self: FixtureManager, *arguments: Any, **more: Any) -> None:
        found.append(None)
        register(self, *arguments, **more)

    @functools.wraps(look)
    def pytest_plugin_registered(self: FixtureManager, plugin: object, plugin_name: str) -> None:
        holder = plugin if isinstance(plugin, ModuleType | type) else type(plugin)
        if holder in without:
            return
        if isinstance(plugin, ModuleType) and plugin in only:
            look(self, only[plugin], plugin_name)
            return
        found.clear()
        look(self, plugin, plugin_name)
        if plugin_name.endswith("conftest.py"):  # what is in there is found later, where it holds
            return
        if not found:
            without.add(holder)
        elif isinstance(plugin, ModuleType) and definition:
            only[plugin] = ModuleType(plugin.__name__)
            vars(only[plugin]).update((name, one) for name, one in vars(plugin).items() if type(one) is definition)

    FixtureManager._register_fixture = counted  # type: ignore[method-assign]
    FixtureManager.pytest_plugin_registered = pytest_plugin_registered  # type: ignore[method-assign]


def remember_configuration() -> None:
    """Have pytest begin its next session with a configuration in which its own plugins are registered already.

    Source: _pytest/config/__init__.py, get_config(). The variables that are read there, or by an option's default, and
    ``-p no:NAME`` for a plugin of pytest's own have an effect on it.
    """
    from _pytest import config as pytest_config

    begin = pytest_config.get_config
    begun = [begin()]

    @functools.wraps(begin)
    def get_config(args: Any = None, plugins: Any = None, **more: Any) -> pytest_config.Config:
        special = any(more.values()) or any(str(one).startswith("-p") for one in args or ())
        if not begun or special or not os.environ.keys().isdisjoint(("PYTEST_DEBUG", "TOX_ENV_DIR")):
            return begin(args, plugins, **more)
        config = begun.pop()
        parameters = config.InvocationParams(args=args or (), plugins=plugins, dir=Path.cwd())
        config.invocation_params = parameters
        return config

    pytest_config.get_config = get_config


def forget_known_tests() -> None:
    """Have pytest read which tests it knows only for ``--nf``: it writes that down, too, but in no worker.

    Source: _pytest/cacheprovider.py, NFPlugin.
    """
    from _pytest import cacheprovider

    make = cacheprovider.NFPlugin

    def only_where_asked(config: Any) -> object:
        return make(config) if config.option.newfirst else object()

    cacheprovider.NFPlugin = only_where_asked  # type: ignore[assignment, misc]


_BOOTSTRAP = "import sys;exec(eval(sys.stdin.readline()))"
"""What execnet has a Python run that it has started; it then sends its own source and a few lines."""

_sent: dict[str, ModuleType] = {}
"""The module ``__main__`` as the source leaves it, by how a literal begins of a program that begins with the source."""


def remember_execnet() -> None:
    """Run the source that execnet sends, and compile what pytest-xdist then has it run.

    Source: execnet/gateway_bootstrap.py, bootstrap_exec(); execnet/gateway_base.py, executetask().
    """
    from execnet import gateway_base
    from xdist import remote

    source = inspect.getsource(gateway_base)
    main = ModuleType("__main__")
    exec(source, vars(main))
    compiled = functools.cache(compile)
    compiled(inspect.getsource(remote) + "\n", inspect.getsourcefile(remote), "exec")
    vars(main)["compile"] = compiled
    _sent[repr(source)[:-1]] = main


def run(program: str) -> None:
    """Run ``program``, given by ``-c``, as the module ``__main__``."""
    main = ModuleType("__main__")
    if program == _BOOTSTRAP and not any(name.startswith("EXECNET") for name in os.environ):  # it is read when run
        text = sys.stdin.readline()
        for literal in _sent:
            if text.startswith(literal):
                main, text = _sent[literal], text[0] + text.removeprefix(literal)
        program = ast.literal_eval(text)
    sys.modules["__main__"] = main
    exec(compile(program, "<string>", "exec"), vars(main))
