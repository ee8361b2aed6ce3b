"""The action's step as the user of a CI runner: no root, sudo without a password, a kernel with probes.

The runner is a microVM whose changes to files are its own, so that it may have a user and a sudoers file of its own.
There scenarios meet the runner's kernel with functions, as ``kernels: host`` asks for. It takes a minute or two, so
only ``./run soak`` does it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ruamel.yaml import YAML

from harness.vm import images

if TYPE_CHECKING:
    from tests.conftest import Soak

ROOT = Path(__file__).parent.parent
RUNNER = """
set -e
useradd --create-home --shell /bin/bash runner
echo 'runner ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/runner
for folder in {parents}; do chmod o+rx $folder; done
cp -r {project} /home/runner/repository
mkdir /home/runner/temp
ln -s {environment} /home/runner/temp/nft-harness
chown -R runner: /home/runner
su - runner -c {step} && status=0 || status=$?
echo "status $status"
echo "reports:" $(ls /home/runner/repository/nft-reports)
echo "not the user's:" $(find /home/runner -not -user runner)
"""


@pytest.mark.soak
def test_the_actions_step_uses_the_runners_kernel_by_sudo(soak: Soak, project: Path) -> None:
    if not soak.seconds:
        pytest.skip("a runner is booted, and compiles the tracer, by ./run soak")
    if missing := [name for name in ("sudo", "useradd", "qemu-system-x86_64") if not shutil.which(name)]:
        pytest.skip(f"needs {', '.join(missing)}")
    action = YAML(typ="safe").load((ROOT / "action.yml").read_text())
    given = {name: one["default"] for name, one in action["inputs"].items()} | {"kernels": "host"}
    (step,) = (one for one in action["runs"]["steps"] if one.get("name") == "Run the scenarios")
    variables = {
        name: re.sub(r"\$\{\{ inputs\.(\w+) }}", lambda found: given[found[1]], value)
        for name, value in step["env"].items()
    } | {"GITHUB_ACTIONS": "true", "GITHUB_WORKSPACE": "/home/runner/repository", "RUNNER_TEMP": "/home/runner/temp"}
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    environment = Path(sys.prefix)
    script = RUNNER.format(
        parents=shlex.join(map(str, [environment, *environment.parents])),
        project=shlex.quote(str(project)),
        environment=shlex.quote(str(environment)),
        step=shlex.quote(f"cd repository\n{exports}{step['run']}"),
    )
    command = [sys.executable, "-m", "harness.cli", "vm", "--kernel", images.DEFAULT, "--", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    said = done.stdout + done.stderr
    assert "1 failed, 1 passed" in said, said
    assert "with root's capabilities by sudo: asked for; functions by kprobe" in said
    assert re.search(r"^::error file=scenarios/edge.yaml,line=8,col=23,title=HTTPS is refused::", said, re.MULTILINE)
    assert "status 1\n" in said
    assert "reports: cobertura.xml junit.xml nft.sarif report.html\n" in said
    assert "not the user's:\n" in said
