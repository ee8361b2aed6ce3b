"""The functions that can be traced: of this machine's kernel or, where that cannot be asked, of an image's."""

from __future__ import annotations

import subprocess
import sys

import msgspec

from harness.errors import HarnessError, Unsupported
from harness.linux import modules
from harness.tracer.discover import Functions
from harness.tracer.survey import Survey
from harness.vm import images, progress
from harness.vm.kernel_image import Image

INSIDE = "--inside"
"""Hidden option: this is the process in the microVM."""


def functions(kernel: str) -> Functions:
    """The functions of this machine's kernel and its modules; else of the image ``kernel``, in a microVM.

    Raises :class:`~harness.errors.HarnessError` where neither can be had.
    """
    try:
        return Survey().functions()
    except Unsupported as lacking:
        with progress.shown(sys.stderr) as report:
            image = images.get(kernel, report)
        print(f"nft-harness: asking kernel {image.release} in a microVM: {lacking.sentence}", file=sys.stderr)
        return _in_a_guest(image)


def send() -> None:
    """Print the functions of this kernel, in a microVM, with the modules that rulesets use."""
    modules.load()
    sys.stdout.buffer.write(msgspec.json.encode(Survey().functions()))


def _in_a_guest(image: Image) -> Functions:
    from harness.vm.microvm import wrapper

    ask = [sys.executable, "-m", "harness.cli", "discover", INSIDE]
    command = [*wrapper(), "--kernel", str(image.vmlinuz), "--exec", *ask]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    try:
        return msgspec.json.decode(done.stdout, type=Functions)
    except msgspec.DecodeError:
        raise HarnessError(
            f"the microVM ended with status {done.returncode} and did not answer", remedy="see nft-harness doctor"
        ) from None
