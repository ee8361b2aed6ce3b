"""What a template remembers is what a Python without it would find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BEFORE = """
import importlib, json, sys
from harness.warm import known
importlib.import_module("xdist.remote")
"""


OF_PYTEST = ("PYTEST_DEBUG", "TOX_ENV_DIR")
"""Variables that a configuration depends on; the tests themselves may run by tox."""


def run(program: str, *arguments: str, given: str = "", cwd: Path | None = None) -> str:
    return subprocess.run(
        [sys.executable, "-c", BEFORE + program, *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in OF_PYTEST},
        timeout=60,
    ).stdout


def test_distributions_are_read_once_and_new_ones_are_found(tmp_path: Path) -> None:
    output = run(
        """
from importlib import metadata
import pathlib
known.remember_metadata()
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
names = [point.name for one in metadata.distributions() for point in one.entry_points]
again = list(opened)
folder = pathlib.Path(sys.argv[1], "new-1.dist-info")
folder.mkdir()
(folder / "METADATA").write_text("Name: new")
(folder / "entry_points.txt").write_text("[group]\\nname = module")
sys.path.insert(0, sys.argv[1])
print(json.dumps([names, [name for name in again if "-info" in name], str(metadata.distribution("new").entry_points)]))
""",
        str(tmp_path),
    )
    names, opened, new = json.loads(output)
    assert "harness.plugin" in names
    assert opened == []
    assert "module" in new


def test_fixtures_are_found_where_a_plugin_has_them(tmp_path: Path) -> None:
    (tmp_path / "has.py").write_text("import pytest\n@pytest.fixture\ndef one():\n    return 1\n")
    (tmp_path / "none.py").write_text("two = 2\n")
    (tmp_path / "conftest.py").write_text("import pytest\n@pytest.fixture\ndef three():\n    return 3\n")
    (tmp_path / "test_it.py").write_text("def test_it(one, three, tmp_path):\n    assert one + three == 4\n")
    output = run(
        """
import pytest
from _pytest.fixtures import FixtureManager
looked = []
parse = FixtureManager.parsefactories
def parsefactories(self, *arguments, **more):
    looked.append(getattr(more.get("holder", arguments[0] if arguments else None), "__name__", ""))
    parse(self, *arguments, **more)
FixtureManager.parsefactories = parsefactories
known.remember_fixtures()
for _ in range(2):
    sys.modules.pop("conftest", None)
    looked.clear()
    status = pytest.main(["-q", "-p", "has", "-p", "none", "-p", "no:cacheprovider", "--rootdir=.", "test_it.py"])
    print(json.dumps([int(status), looked]))
""",
        cwd=tmp_path,
    )
    (first, looked), (second, looked_again) = (json.loads(line) for line in output.splitlines() if line.endswith("]]"))
    assert (first, second) == (0, 0)
    assert "none" in looked
    assert "none" not in looked_again
    assert "has" in looked_again


def test_execnet_meets_the_namespace_that_its_source_leaves() -> None:
    sent = """
import inspect
from execnet import gateway_base
source = inspect.getsource(gateway_base)
tail = (
    "import sys, json; names = sorted(name for name in globals() if name != 'compile' and not name.startswith('_'));"
    "print(json.dumps([__name__, names, sys.modules['__main__'].serve is serve]))"
)
"""
    prepared = run(
        sent
        + """
import io
known.remember_execnet()
sys.stdin = io.StringIO(repr(source + "\\n" + tail) + "\\n")
known.run("import sys;exec(eval(sys.stdin.readline()))")
"""
    )
    plain = run(sent + "print(repr(source + '\\n' + tail))")
    by_itself = subprocess.run(
        [sys.executable, "-c", "import sys;exec(eval(sys.stdin.readline()))"],
        input=plain,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert json.loads(prepared) == json.loads(by_itself)


def test_another_program_is_run_as_it_is() -> None:
    assert run("known.remember_execnet(); known.run('print(__name__, 6 * 7)')") == "__main__ 42\n"


CONFIGURED = """
import io, os, pytest
from contextlib import redirect_stdout
known.remember_configuration()
os.environ.update(json.loads(sys.argv[1]))
os.chdir(sys.argv[2])
sys.path.insert(0, "")
out = []
for _ in range(2):
    sys.modules.pop("conftest", None)
    with redirect_stdout(text := io.StringIO()):
        status = pytest.main([*sys.argv[3:], "test_it.py"])
    out.append([int(status), text.getvalue().partition(" in ")[0]])
print(json.dumps(out))
"""


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        ({}, []),
        ({}, ["-p", "has"]),
        ({}, ["-p", "no:doctest"]),
        ({"TOX_ENV_DIR": "tox"}, []),
        ({"PYTEST_ADDOPTS": "-v"}, ["--rootdir=.", "-k", "not other"]),
    ],
)
def test_the_first_session_is_as_the_next(tmp_path: Path, environment: dict[str, str], arguments: list[str]) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -rs\n")
    (tmp_path / "has.py").write_text("import pytest\n@pytest.fixture\ndef one():\n    return 1\n")
    (tmp_path / "conftest.py").write_text(
        "def pytest_report_header(config):\n    return str(config.invocation_params)\n"
    )
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_it(cache, request):\n"
        "    pytest.skip(f'{cache._cachedir} {sorted(request.config.option.__dict__.items())}')\n"
        "def test_other():\n    pass\n"
    )
    (first, second) = json.loads(run(CONFIGURED, json.dumps(environment), str(tmp_path), *arguments))
    assert first == second
    assert first[0] == 0


def test_a_worker_s_session_registers_none_of_pytest_s_own_plugins(tmp_path: Path) -> None:
    """It begins as xdist/remote.py does."""
    output = run(
        """
from _pytest import config
registered = []
register = config.PytestPluginManager.register
def noted(self, plugin, name=None):
    registered.append(str(name))
    return register(self, plugin, name)
config.PytestPluginManager.register = noted
known.remember_configuration()
in_advance = list(registered)
registered.clear()
config._prepareconfig(["-q", "--rootdir=.", "-k", "one"], None)
print(json.dumps([in_advance, registered]))
""",
        cwd=tmp_path,
    )
    in_advance, registered = json.loads(output)
    assert {"terminal", "fixtures", "python"} <= set(in_advance)
    assert "harness.plugin" in registered
    assert not set(in_advance) & (set(registered) - {"None"})


def test_options_of_plugins_are_those_of_this_session() -> None:
    """A configuration that was begun in advance is used once, for a session without plugins of its own choice."""
    output = run(
        """
import pytest
from _pytest import config
known.remember_configuration()
configurations = [config.get_config(["-p", "no:terminal"]), config.get_config(["-q"]), config.get_config(["-q"])]
for one in configurations:
    terminal = one.pluginmanager.has_plugin("terminal")
    print(json.dumps([id(one.pluginmanager), terminal, list(one.invocation_params.args)]))
"""
    )
    managers, terminals, arguments = zip(*map(json.loads, output.splitlines()), strict=True)
    assert len(set(managers)) == 3
    assert terminals == (False, True, True)
    assert arguments == (["-p", "no:terminal"], ["-q"], ["-q"])


@pytest.mark.parametrize(("arguments", "first"), [([], "test_a"), (["--nf"], "test_b")])
def test_new_tests_are_known_where_they_come_first(tmp_path: Path, arguments: list[str], first: str) -> None:
    (tmp_path / "test_a.py").write_text("def test_a():\n    pass\n")
    assert "passed" in run("import pytest; pytest.main(['--rootdir=.'])", cwd=tmp_path)
    (tmp_path / "test_b.py").write_text("def test_b():\n    pass\n")
    output = run(
        "import pytest; known.forget_known_tests(); pytest.main(['-v', '--rootdir=.', *sys.argv[1:]])",
        *arguments,
        cwd=tmp_path,
    )
    assert "2 passed" in output
    assert first in next(line for line in output.splitlines() if "PASSED" in line)
