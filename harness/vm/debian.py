"""Packages of kernels and of nft out of the Debian archive, by apt, without touching the machine's own apt.

apt works here as the ordinary user on folders of its own: it knows nothing of the packages that
are installed, installs none, and only believes what the Debian archive has signed. Proxy,
certificates and the like stay those of the machine.

Source: apt.conf(5), sources.list(5), apt-get(8), ``doc/progress-reporting.md`` of apt.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.errors import Unsupported
from harness.text import numbers_in
from harness.vm.progress import Progress


class NoArchive(Unsupported):
    """This machine knows no Debian archive."""


MIRROR_VARIABLE = "NFT_HARNESS_DEBIAN_MIRROR"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def download_kernel(suite: str, series: str, folder: Path, progress: Progress) -> list[Path]:
    """Download the packages of the newest kernel of ``series`` that ``suite`` has; see :func:`download`.

    Raises :class:`Unsupported` also when ``suite`` has no such kernel.
    """
    return _download(suite, lambda apt: _packages(apt, suite, series), folder, progress)


def download(suite: str, package: str, folder: Path, progress: Progress) -> Path:
    """Download ``package``, without those that it depends on.

    ``folder`` must exist and be empty; the package is put there, beside apt's own folders.
    Raises :class:`Unsupported` when this machine has no apt, archive or keyring, and when the archive
    can't be reached or verified.
    """
    return _download(suite, lambda _: [package], folder, progress)[0]


def download_with_libraries(suite: str, package: str, *more: str, folder: Path, progress: Progress) -> list[Path]:
    """Download ``package`` with all that it depends on, and ``more`` without; see :func:`download`."""
    return _download(suite, lambda apt: [*_closure(apt, package), *more], folder, progress)


def download_own(names: Sequence[str], parts: re.Pattern[str], folder: Path, progress: Progress) -> list[Path]:
    """Download packages by this machine's own apt, from its own sources: ``names``, and those that they depend on,
    directly or not, whose names match ``parts``.

    ``folder`` must exist; the packages are put there. Raises :class:`Unsupported` when this machine has no apt, or apt
    knows no such package or cannot fetch it.
    """
    _require_tools()
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        depends = (
            "--no-pre-depends",
            "--no-recommends",
            "--no-suggests",
            "--no-conflicts",
            "--no-breaks",
            "--no-replaces",
        )
        try:
            listed = _run(["apt-cache", "depends", *depends, "--no-enhances", name])
        except Unsupported:
            raise Unsupported(f"apt knows no package {name!r}", remedy="run apt-get update, or give a file") from None
        for needed in re.findall(r"Depends: (\S+)", listed):
            if parts.fullmatch(needed) and needed not in wanted:
                wanted.append(needed)  # its own come next
    # As root apt would give its downloads to the user _apt, who can't enter root's cache folder.
    as_caller = ("-o", "APT::Sandbox::User=root")
    _run(
        ["apt-get", "-qq", *as_caller, "download", *wanted],
        cwd=folder, step=f"downloading {', '.join(wanted)}", progress=progress,
    )  # fmt: skip
    return sorted(folder.glob("*.deb"))


def is_known(name: str) -> bool:
    """Whether this machine's own apt has a package ``name``; False without apt."""
    try:
        return bool(_run(["apt-cache", "--no-all-versions", "show", name]))
    except (Unsupported, OSError):
        return False


def named(package: Path) -> tuple[str, str]:
    """Name and version of the file of a package."""
    fields = _run(["dpkg-deb", "--show", "--showformat=${Package} ${Version}", str(package)]).split()
    return fields[0], fields[1]


def _download(suite: str, choose: Callable[[_Apt], list[str]], folder: Path, progress: Progress) -> list[Path]:
    failures = []
    for archive in archives():
        apt = _Apt(folder, archive, suite)
        try:
            apt.run("apt-get", "update", step=f"reading the package list of Debian {suite}", progress=progress)
        except Unsupported as failure:
            failures.append(failure)
            continue
        packages = choose(apt)
        step = f"downloading {packages[0]}".replace("linux-image-", "Linux ")
        apt.run("apt-get", "download", *packages, step=step, progress=progress)
        return sorted(folder.glob("*.deb"))
    raise failures[0]


def unpack(package: Path, folder: Path) -> None:
    """Unpack the files of ``package`` below ``folder``; nothing is installed, no script of it runs."""
    _run(["dpkg-deb", "--extract", str(package), str(folder)])


def archives() -> list[str]:
    """Addresses where this machine may find the Debian archive, the surest first.

    Raises :class:`Unsupported` unless it can fetch and verify Debian's kernels, :class:`NoArchive` where it knows none.
    """
    if platform.machine() != "x86_64":
        raise Unsupported(f"kernel images are for x86_64, and this machine is {platform.machine()}")
    _require_tools()
    found = _archives()
    if not KEYRING.exists():
        raise Unsupported(
            f"{KEYRING} is missing, so that no download could be verified",
            remedy="run apt-get install debian-archive-keyring",
        )
    return found


def _require_tools() -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unsupported(
                f"{tool} is missing, and Debian's kernels come through it",
                remedy="install it, or give a kernel of your own: --nft-kernel FOLDER with vmlinuz and lib/modules",
            )


def _archives() -> list[str]:
    if mirror := os.environ.get(MIRROR_VARIABLE):
        return [mirror]
    fields = "$(REPO_URI) $(ORIGIN) $(LABEL)"
    listing = _run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"])
    known, unknown = [], []
    for line in listing.splitlines():
        address, origin, label = line.split(" ", 2)
        if (origin, label) == ("Debian", "Debian"):
            known.append(address)
        elif origin == "$(ORIGIN)":  # apt has not read that archive yet; its signature decides
            unknown.append(address)
    if not listing:
        unknown = _unread()
    found = [address for address in dict.fromkeys(known + unknown) if not address.startswith("cdrom:")]
    if not found:
        raise NoArchive(
            "the apt sources of this machine name no Debian archive",
            remedy=f"set {MIRROR_VARIABLE} to the address of one, use --nft-kernel installed, or a kernel of packages: "
            "nft-harness kernels add",
        )
    return found


def _unread() -> list[str]:
    """Addresses of this machine's apt sources where it has no lists, as in most container images."""
    # Not indextargets: that has only those whose lists are there.
    targets = re.findall(
        r"^'(\S+?)dists/\S+/(?:In)?Release' ", _run(["apt-get", "update", "--print-uris"]), re.MULTILINE
    )
    return list(dict.fromkeys(targets))


class _Apt:
    """apt on private folders, reading one suite of one archive."""

    def __init__(self, folder: Path, archive: str, suite: str) -> None:
        self.folder = folder
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").touch()
        options = f"arch=amd64 target=Packages pdiffs=no signed-by={KEYRING}"
        (folder / "sources.list").write_text(f"deb [{options}] {archive} {suite} main\n")
        # Read last, so that it wins over the machine's own. The cleared lists hold commands that a
        # machine runs after an update, e.g. to empty its package cache. apt as root would give its
        # downloads to the user _apt, who can't enter root's cache folder.
        (folder / "apt.conf").write_text(
            f"""
            Dir::Etc::SourceList "{folder}/sources.list";
            Dir::Etc::SourceParts "/dev/null";
            Dir::Etc::Preferences "/dev/null";
            Dir::Etc::PreferencesParts "/dev/null";
            Dir::State "{folder}/state";
            Dir::State::Status "{folder}/status";
            Dir::Cache "{folder}/cache";
            #clear APT::Update::Pre-Invoke;
            #clear APT::Update::Post-Invoke;
            #clear APT::Update::Post-Invoke-Success;
            #clear APT::Architectures;
            APT::Architecture "amd64";
            APT::Default-Release "";
            APT::Sandbox::User "root";
            APT::Update::Error-Mode "any";
            APT::Get::AllowUnauthenticated "false";
            Acquire::AllowInsecureRepositories "false";
            Acquire::Languages "none";
            """
        )

    def run(self, program: str, *arguments: str, step: str = "", progress: Progress | None = None) -> str:
        """Run an apt program in the folder; its standard output."""
        argv = [program, "-qq", "-c", "apt.conf", *arguments]
        return _run(argv, cwd=self.folder, step=step, progress=progress)


def _packages(apt: _Apt, suite: str, series: str) -> list[str]:
    """The newest kernel of ``series`` for ordinary machines, and the parts it is split into."""
    # linux-image-6.12.107+deb13-amd64, linux-image-6.1.0-49-amd64; not -cloud-, -rt-, -dbg, -unsigned
    pattern = re.compile(rf"linux-image-{re.escape(series)}\.[^-]+(-[0-9.]+)?-amd64")
    names = apt.run("apt-cache", "pkgnames", f"linux-image-{series}.").split()
    kernels = [name for name in names if pattern.fullmatch(name)]
    if not kernels:
        raise Unsupported(
            f"Debian {suite} has no Linux {series} now",
            remedy="use another version (nft-harness kernels list), or a kernel of your own: --nft-kernel FOLDER",
        )
    newest = max(kernels, key=numbers_in)
    release = newest.removeprefix("linux-image-")
    # From 6.16 on the image, the modules and the lists of built-in modules are packages of their own.
    parts = re.findall(
        rf"linux-(?:base|binary|modules)-{re.escape(release)}(?=\s)", apt.run("apt-cache", "depends", newest)
    )
    return [newest, *dict.fromkeys(parts)]


def _closure(apt: _Apt, package: str) -> list[str]:
    """``package`` and what apt would install with it where nothing is installed."""
    options = ("--print-uris", "--yes", "--no-install-recommends")
    # 'http://…/nftables_1.1.3-1_amd64.deb' nftables_1.1.3-1_amd64.deb 75864 SHA256:…
    listed = apt.run("apt-get", *options, "install", package).splitlines()
    names = [line.split()[1].partition("_")[0] for line in listed if line.startswith("'")]
    return [package, *(name for name in names if name != package)]


def _run(argv: list[str], *, cwd: Path | None = None, step: str = "", progress: Progress | None = None) -> str:
    """Run a program to its end; its standard output. Progress of apt is reported to ``progress``.

    Raises :class:`Unsupported` with the program's own first error when it fails.
    """
    # If this process is killed, the program must not go on alone.
    argv = ["setpriv", "--pdeathsig", "TERM", *argv]
    status, status_of_child = os.pipe()
    if progress is not None:
        progress(step, None)
        argv += ["-o", f"APT::Status-Fd={status_of_child}"]
    with (
        os.fdopen(status) as reports,
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            argv,
            cwd=cwd,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            pass_fds=[status_of_child],
        ) as process,
    ):
        os.close(status_of_child)
        try:
            for report in reports:  # dlstatus:<part>:<percent>:<sentence>
                if progress is not None and report.startswith("dlstatus:"):
                    progress(step, float(report.split(":")[2]))
            failed = process.wait() != 0
        except BaseException:
            process.terminate()
            raise
        output.seek(0)
        errors.seek(0)
        if failed:
            raise Unsupported(_first_error(argv[3], errors.read()), remedy=_remedy(argv[3]))
        return output.read()


def _first_error(program: str, text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("E: ") for line in lines if line.startswith("E: ")] or lines or ["no reason given"]
    return f"{program} failed: {errors[0]}"


def _remedy(program: str) -> str:
    if program == "dpkg-deb":
        return "is it a whole package, and is there room on the disk?"
    return (
        f"check the network, the free disk space and the machine's apt settings, or set {MIRROR_VARIABLE} to a mirror"
    )
