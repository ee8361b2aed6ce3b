"""What a template remembers is what a Python without it would find."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

BEFORE = """
import importlib, json, sys
from harness.warm import known
importlib.import_module("xdist.remote")
"""


def run(program: str, *arguments: str, given: str = "", cwd: Path | None = None) -> str:
    return subprocess.run(
        [sys.executable, "-c", BEFORE + program, *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
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
