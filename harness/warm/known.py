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
    """Have pytest look for fixtures no more than once in plugins that have none, most of which are its own.

    It looks at each name in each plugin: a module, or an object whose class may have fixtures.
    Source: _pytest/fixtures.py, FixtureManager.pytest_plugin_registered().
    """
    from _pytest.fixtures import FixtureManager

    if not hasattr(FixtureManager, "_register_fixture"):  # before pytest 8.1
        return
    look, register = FixtureManager.pytest_plugin_registered, FixtureManager._register_fixture
    without: set[object] = set()
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
        found.clear()
        look(self, plugin, plugin_name)
        # What is in a conftest.py is found later, where it holds.
        if not found and not plugin_name.endswith("conftest.py"):
            without.add(holder)

    FixtureManager._register_fixture = counted  # type: ignore[method-assign]
    FixtureManager.pytest_plugin_registered = pytest_plugin_registered  # type: ignore[method-assign]


_BOOTSTRAP = "import sys;exec(eval(sys.stdin.readline()))"
"""What execnet has a Python run that it has started; it then sends its own source and a few lines."""

_sent: dict[str, ModuleType] = {}
"""The module ``__main__`` as the source leaves it, by that source."""


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
    _sent[source] = main


def run(program: str) -> None:
    """Run ``program``, given by ``-c``, as the module ``__main__``."""
    main = ModuleType("__main__")
    if program == _BOOTSTRAP and not any(name.startswith("EXECNET") for name in os.environ):  # it is read when run
        text = sys.stdin.readline()
        program = ast.literal_eval(text)
        for source in _sent:
            if program.startswith(source):
                main, program = _sent[source], program.removeprefix(source)
    sys.modules["__main__"] = main
    exec(compile(program, "<string>", "exec"), vars(main))
