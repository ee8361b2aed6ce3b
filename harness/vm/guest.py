"""A microVM that is planned as a worker of pytest-xdist: how it will start, and what execnet starts it by."""

from __future__ import annotations

import os
import re
import shlex

from harness.ending import leaving_nothing
from harness.errors import HarnessError
from harness.vm import initramfs, machine, microvm, template
from harness.vm.accelerator import accelerator
from harness.vm.kernel_image import Image
from harness.vm.progress import Progress


class Guest:
    """A microVM that is planned as a worker of pytest-xdist; it boots when xdist starts the worker."""

    def __init__(self, image: Image, accelerator: str) -> None:
        self.image = image
        self.accelerator = accelerator
        self.start = ""
        """How it will start, and why so: part of a sentence, "" until that is decided."""
        self._start = microvm.AUTO
        self._console = machine.memory_file("console")

    @classmethod
    def plan(cls, image: Image) -> Guest:
        """A guest that will boot ``image`` as fast as this machine can.

        Raises :class:`Unsupported` when QEMU, busybox or a kernel module is missing.
        """
        chosen = accelerator(image).name
        initramfs.check(image)  # here, and not in a worker
        return cls(image, chosen)

    def decide(self, *, cold: bool, progress: Progress | None) -> None:
        """Decide how the guest starts: restored from a template, or booted if that is asked for by ``cold``.

        Where there is no template, one is made if there is a ``progress`` to show that: it takes a minute. With a hash
        seed none is made: tox sets another seed in each run.
        """
        self._start = microvm.COLD
        if cold:
            self.start = "it boots, as requested"
            return
        virtual = machine.machine(self.accelerator, microvm.MEMORY, microvm.CPUS)
        try:
            found = template.find(template.key(self.image, virtual))
        except template.NoTemplate as missing:
            self.start = f"it boots: {missing}"
            if progress is None or template.HASH_SEED in os.environ:
                return
            from harness.vm import making  # rarely, and it imports much

            try:
                with leaving_nothing():
                    found = making.make(self.image, self.accelerator, microvm.MEMORY, progress)
            except HarnessError as error:
                self.start = f"it boots: no template could be made: {error}"
                return
        self._start = found.name
        self.start = "it is restored from a template"

    @property
    def name(self) -> str:
        """Its kernel's release without what all of Debian's have: ``6.12.107``, ``6.1.0-50``."""
        return re.sub(r"(\+deb\d+)?(-amd64)?$", "", self.image.release)

    def worker(self, copy: int = 0) -> str:
        """What a worker in the guest is called: as the guest; further copies of the guest have a number behind it."""
        return f"{self.name}-{copy}" if copy else self.name

    def spec(self, copy: int = 0) -> str:
        """What ``pytest --tx`` takes in this process, with which the guest ends: a worker as execnet specifies it."""
        # In a session of its own: Ctrl-C in the terminal is for pytest, which ends its workers.
        command = ["setsid", *microvm.wrapper(), "--kernel", str(self.image.vmlinuz)]
        # When execnet has closed its end, everything of the worker's has arrived.
        command += ["--nft", self.image.nft_argument]
        command += ["--until", "eof", "--accelerator", self.accelerator, "--start", self._start]
        command += ["--console", f"/proc/{os.getpid()}/fd/{self._console}"]
        # "//" ends a value of execnet's specifications.
        return f"popen//id={self.worker(copy)}//python={re.sub('/+', '/', shlex.join(command))}"

    def console(self) -> str:
        """Output of the kernels of the guest and its copies, of their init scripts and of QEMU until now."""
        return machine.text(self._console)

    def describe(self) -> str:
        """For example ``kernel 6.12.107 in a microVM (TCG)``."""
        return f"kernel {self.name} in a microVM ({self.accelerator.upper()})"
