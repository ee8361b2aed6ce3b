"""The command ``nft-harness diff``, top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from harness import temporary
from harness.batch.messages import Effects, Loaded
from harness.batch.session import BatchSession
from harness.compare import accepted, saving, sides
from harness.compare.changes import HOOKS, Book, Change, Witness, compared, grouped, undecided
from harness.compare.output import FUNCTIONS, Comparison
from harness.compare.sides import Side
from harness.errors import BrokenMeasurement, HarnessError, together
from harness.generate import lab, pool
from harness.generate.device import SimulatedDevice
from harness.generate.facts import Facts
from harness.generate.lab import ChosenLab
from harness.generate.pool import Pool
from harness.generate.simulate import SimulatedRuleset
from harness.linux import features
from harness.model.observation import Place
from harness.model.problem import Problem
from harness.packets.frames import Frame, build
from harness.packets.spec import Send
from harness.scenario.case import Case
from harness.scenario.files import shortened
from harness.scenario.load import load_all
from harness.scenario.models.actions import SendAction
from harness.text import counted
from harness.topology.network import Network
from harness.vm import placement

REPORTED: Final = 200
"""Packets from one line about the progress to the next."""
EXPLAINED: Final = 200
"""Rules and policies that no packet met of which the reason is looked for: that takes long in a chain of thousands."""
UNSEEN: Final = "packets were made for it; none of those that were sent met it (--packets sends more)"
ROUNDS: Final = 4
"""Times that witnesses are made simpler."""

KERNEL, HOST, NOWHERE = SIFTS = ("kernel", "host", "no")
"""Packets are sifted on the kernel that confirms, on this machine's own, or not: then functions watch each."""

Progress = Callable[[str], None]


class DiffRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    rulesets: tuple[str, ...]
    base: str = ""
    optimize: bool = False
    permute: bool = False
    kernels: tuple[str, ...] = ()
    lab: str = ""
    packets: int = 500
    seed: int = 1
    pcap: Path | None = None
    scenarios: tuple[Path, ...] = ()
    """Scenario files whose packets are sent as well."""
    rules: bool = False
    accept: Path | None = None
    approve: bool = False
    save: Path | None = None
    """A scenario file to which a scenario of each change is added."""
    kernel: str = placement.AUTO
    tracer: str = placement.AUTO
    sift: str = KERNEL
    """Where packets are sifted, one of :data:`SIFTS`."""


class Sent(NamedTuple):
    """A packet of a comparison, with its frames."""

    sends: tuple[dict[str, Any], ...]
    frames: tuple[tuple[Frame, ...], ...]

    @property
    def summary(self) -> str:
        """The last packet in a line."""
        return self.frames[-1][-1].summary


def run(request: DiffRequest, progress: Progress) -> list[Comparison]:
    """Compare what ``request`` names; a comparison for each pair of sides.

    Raises :class:`~harness.errors.HarnessError` where that cannot be done.
    """
    approved = accepted.read(request.accept, may_lack=request.approve) if request.accept else []
    with ExitStack() as stack:
        folder = stack.enter_context(temporary.folder("diff"))
        pairs = list(_pairs(request, folder))
        if request.save:
            for old, given in pairs:
                saving.refuse(request.save, given or Side(f"{old.name} by nft --optimize", old.files, is_made=True))
        kernels = request.kernels or (request.kernel,)
        sifting = stack.enter_context(_on_host()) if request.sift == HOST else None
        sessions = [stack.enter_context(BatchSession.open(kernel, request.tracer)) for kernel in kernels]
        found = []
        for old, named in pairs:
            new = named or _optimized(old, folder, sessions[0], request)
            both = sessions[0], sessions[-1]
            sifts = (sifting, sifting) if sifting else both
            comparison, chosen = _Comparing(
                request, (old, new), both, sifts, progress, f"{shortened(folder)}/"
            ).compare()
            for change in comparison.changes:
                change.accepted = request.approve or change.key in approved
            if request.save:
                saving.save(request.save, comparison.changes, new, chosen, sessions[-1], progress)
            found.append(comparison)
    if request.accept and request.approve:
        accepted.write(request.accept, [change for one in found for change in one.changes])
    return found


def _on_host() -> AbstractContextManager[BatchSession]:
    """A session on this machine's own kernel, which watches no functions.

    Raises :class:`~harness.errors.HarnessError` where that cannot be had.
    """
    return BatchSession.open(placement.HOST, features.TRACEPOINTS)


def _pairs(request: DiffRequest, folder: Path) -> Iterator[tuple[Side, Side | None]]:
    """The sides that are compared with each other; None for what ``nft --optimize`` will make of the first."""
    named = request.rulesets
    modes = [bool(request.base), request.optimize, request.permute, bool(request.kernels)]
    if sum(modes) > 1:
        raise HarnessError("--base, --optimize, --permute and --kernels are about different sides", remedy="give one")
    if request.kernels and request.sift == HOST:
        raise HarnessError("--kernels compares two kernels, and this machine has one", remedy="leave out --sift host")
    if request.base:
        yield from sides.at_revision(request.base, named, folder)
        return
    if any(modes) and len(named) != 1 and not request.permute:
        raise HarnessError("--optimize and --kernels take one ruleset", remedy="name one file, folder or list")
    if request.permute:
        side = sides.of(",".join(named))
        yield from ((side, other) for other in sides.orders(side))
    elif request.optimize:
        yield sides.of(named[0]), None
    elif request.kernels:
        if len(request.kernels) != 2:
            raise HarnessError("--kernels takes two kernels", remedy="as in --kernels 6.1 7.2")
        yield sides.of(named[0]), sides.of(named[0])
    elif len(named) == 2:
        yield sides.of(named[0]), sides.of(named[1])
    else:
        remedy = "name the old and the new one, or give --base, --optimize, --permute or --kernels"
        raise HarnessError(
            f"two rulesets are needed, and {len(named)} {'is' if len(named) == 1 else 'are'} given", remedy=remedy
        )


def _looked(session: BatchSession, side: Side, unpacked: str) -> Facts:
    """What the ruleset of ``side`` consists of; an error calls its files as the user does, not by ``unpacked``."""
    try:
        return session.look(side.given or side.files.paths)
    except HarnessError as error:
        if not side.is_made:
            raise
        raise HarnessError(f"{side.name}: {str(error).replace(unpacked, '')}") from None


def _optimized(side: Side, folder: Path, session: BatchSession, request: DiffRequest) -> Side:
    """What ``nft --optimize`` makes of ``side``."""
    facts = _looked(session, side, f"{shortened(folder)}/")
    network = _lab(request, facts, facts).network
    file = folder / "optimized.nft"
    file.write_text(session.optimized((network, side.files)))
    return Side(f"{side.name} by nft --optimize", sides.of(str(file)).files, is_made=True)


def _lab(request: DiffRequest, old: Facts, new: Facts) -> ChosenLab:
    """The lab for both sides: it has the interfaces and addresses that either names."""
    if request.lab:
        return lab.given(request.lab)
    return lab.choose(_together(old, new))


def _together(old: Facts, new: Facts) -> Facts:
    """Both rulesets as if they were one: the tables of the second get names of their own."""

    def renamed(one: dict[str, Any]) -> dict[str, Any]:
        ((kind, what),) = one.items()
        if kind == "table":
            return {kind: what | {"name": f"{what['name']}~"}}
        return {kind: what | {"table": f"{what['table']}~"}} if "table" in what else one

    return Facts(
        objects=[*old.objects, *map(renamed, new.objects)],
        chains=(*old.chains, *(msgspec.structs.replace(one, table=f"{one.table}~") for one in new.chains)),
        rules=(*old.rules, *(msgspec.structs.replace(one, table=f"{one.table}~") for one in new.rules)),
        defines=old.defines | new.defines,
    )


class _Comparing:
    """The comparison of two sides."""

    def __init__(
        self,
        request: DiffRequest,
        both: tuple[Side, Side],
        sessions: tuple[BatchSession, BatchSession],
        sifts: tuple[BatchSession, BatchSession],
        progress: Progress,
        unpacked: str,
    ) -> None:
        """``sessions`` watch functions, ``sifts`` do not; ``unpacked`` is the folder of files of a revision."""
        self._request = request
        self._sides = both
        self._sessions = {False: sessions, True: sifts}
        self._is_sifted = request.sift != NOWHERE
        self._progress = progress
        self._unpacked = unpacked
        self._books: dict[bool, dict[int, Book]] = {False: {}, True: {}}
        """Of packets that were sifted or not, of each side."""
        self.broken: dict[str, int] = {}
        """Why packets could not be measured, and how many."""
        self._by_chance: set[str] = set()
        """Of packets about which chance or time decides, what is sent."""
        self.disagreements: list[str] = []

    def compare(self) -> tuple[Comparison, ChosenLab]:
        """What was found, and the lab."""
        sifts = self._sessions[self._is_sifted]
        facts = [_looked(session, side, self._unpacked) for session, side in zip(sifts, self._sides, strict=True)]
        chosen = _lab(self._request, *facts)
        devices = [SimulatedDevice(SimulatedRuleset(one), chosen.network) for one in facts]
        packets, generator = self._packets(devices, chosen.network)
        old, new = (side.name for side in self._sides)
        self._progress(f"{old}, {new}: {counted(len(packets), 'packet')}; the lab: {chosen.described}")
        unclear: list[Sent] = []
        changes = grouped(list(self._changes(packets, chosen.network, sift=self._is_sifted, unclear=unclear)), _cost)
        for _ in range(ROUNDS):
            before, changes = changes, self._simpler(changes, chosen.network)
            if changes == before:
                break
        if self._is_sifted:
            changes = [*self._confirmed(changes, chosen.network)]
            if unclear:
                self._progress(f"  measured one by one, as sifting leaves them open: {counted(len(unclear), 'packet')}")
                changes += self._changes(unclear, chosen.network, sift=False)
            changes = grouped(changes, _cost)
        if len(packets) == sum(self.broken.values()):
            raise BrokenMeasurement(f"no packet could be measured: {next(iter(self.broken), 'none was made')}")
        books = [self._books[self._is_sifted][number] for number in (0, 1)]
        for number, armed in self._books[False].items():
            books[number].add(armed)
        confirming = dict.fromkeys(book.kernel for book in self._books[False].values())
        comparison = Comparison(
            old=self._sides[0].name,
            new=self._sides[1].name,
            kernels=tuple(confirming),
            watched=self._watched(),
            sifted=tuple(dict.fromkeys(book.kernel for book in books)) if self._is_sifted else (),
            lab=chosen.described,
            seed=self._request.seed,
            packets=len(packets),
            changes=sorted(changes, key=lambda one: one.witness.number),
            met=tuple((len(book.met & set(book.places)), len(book.places)) for book in books),
            unmet=_unmet(books, devices, generator),
            beyond=tuple(sorted(generator.boundaries.beyond)),
            too_many=len(generator.left_out),
            broken=tuple(f"{counted(number, 'packet')}: {why}" for why, number in self.broken.items()),
            by_chance=sum(repr(one.sends) in self._by_chance for one in packets),
            disagreements=tuple(self.disagreements),
        )
        return comparison, chosen

    def _watched(self) -> str:
        """What was watched of packets that were not sifted."""
        return FUNCTIONS if all(book.whole for book in self._books[False].values()) else features.TRACEPOINTS

    def _packets(self, devices: Sequence[SimulatedDevice], network: Network) -> tuple[list[Sent], Pool]:
        """The packets that are sent: those of captures, then generated ones, each once."""
        generator = Pool(devices, self._request.seed)
        found: dict[str, Sent] = {}
        for sends in self._given(network):
            if (made := _made(sends, network)) is not None:
                found[repr(sends)] = made
        if not found and (self._request.pcap or self._request.scenarios):
            raise HarnessError("no packet of the capture or the scenarios can be sent in this lab")
        for packet in generator.packets(self._request.packets):
            if (made := _made(packet.sends, network)) is not None:
                found.setdefault(repr(packet.sends), made)
        return list(found.values()), generator

    def _given(self, network: Network) -> Iterator[tuple[dict[str, Any], ...]]:
        """The packets of scenarios and captures; those after the first of a scenario need the ones before."""
        for path in self._request.scenarios:
            loaded = load_all(path, recording=True)
            if loaded.errors:
                raise together(loaded.errors)
            for case in loaded.cases:
                actions = case.actions if isinstance(case, Case) else ()
                if actions and all(isinstance(action, SendAction) for action in actions):
                    yield tuple(msgspec.to_builtins(a.send) for a in actions if isinstance(a, SendAction))
        if self._request.pcap:
            from harness.packets import replay
            from harness.packets.spec import Pcap

            file = str(self._request.pcap.resolve())
            try:
                recorded = replay.packets(Pcap(file=file))
            except Problem as problem:
                raise HarnessError(f"{self._request.pcap} {problem.sentence}", remedy=problem.remedy) from None
            for one in recorded[: self._request.packets]:
                sender = replay.sender(one, network)
                yield ({"from": sender, "pcap": {"file": file, "packets": one.number}},)

    def _changes(
        self,
        packets: Sequence[Sent],
        network: Network,
        *,
        sift: bool,
        unclear: list[Sent] | None = None,
        failed: dict[str, str] | None = None,
    ) -> Iterator[Change]:
        """The changes that ``packets`` show.

        Those that could not be measured are added to ``unclear``, or by what is sent to ``failed``, with the reason.
        """
        old, new = (self._effects(number, packets, network, sift=sift) for number in (0, 1))
        books = self._books[sift][0], self._books[sift][1]
        for number, (sent, before, after) in enumerate(zip(packets, old, new, strict=True)):
            if why := before.error or after.error:
                if unclear is not None and sift:
                    unclear.append(sent)
                elif failed is not None:
                    failed[repr(sent.sends)] = why
                else:
                    self.broken[why] = self.broken.get(why, 0) + 1
                continue
            about = number, sent.sends, sent.summary
            change = compared(about, before, after, books, rules=self._request.rules, hooks=sift)
            if change is not None:
                yield change
            elif why := undecided(before.seen, after.seen, either=failed is not None):
                if failed is not None:
                    failed[repr(sent.sends)] = why
                else:
                    self._by_chance.add(repr(sent.sends))

    def _effects(self, side: int, packets: Sequence[Sent], network: Network, *, sift: bool) -> list[Effects]:
        """The effects of one side on ``packets``."""
        found: list[Effects] = []
        files, books = self._sides[side].files, self._books[sift]
        session = self._sessions[sift][side]
        for answer in session.effects((network, files), [one.frames for one in packets], sift=sift):
            if isinstance(answer, Loaded):
                books.setdefault(side, Book(answer, self._unpacked))
                continue
            found.append(answer)
            # What a packet meets on its way back by the loopback is, when it is sifted, only in what it came to.
            books[side].met |= {place for one in answer.seen for place in (*one.met, *(one.came if sift else ()))}
            if len(found) % REPORTED == 0 and len(found) < len(packets):
                self._progress(f"  {len(found)} of {len(packets)} through {self._sides[side].name}")
        return found

    def _confirmed(self, changes: Sequence[Change], network: Network) -> Iterator[Change]:
        """``changes`` as functions show them: of each the simplest packet that does.

        One of which no packet can be measured stays as it was sifted, with the reason.
        """
        why: dict[int, str] = {}
        left = {number: [change.witness, *change.spare] for number, change in enumerate(changes)}
        if left:
            self._progress(f"  to be confirmed: {len(left)}")
        while left:
            chosen = {number: several.pop(0) for number, several in left.items()}
            tried = [made for one in chosen.values() if (made := _made(one.sends, network)) is not None]
            failed: dict[str, str] = {}
            found_now = self._changes(tried, network, sift=False, failed=failed)
            shown = {repr(one.witness.sends): one for one in found_now}
            for number, witness in chosen.items():
                sifted = changes[number]
                if number not in why or why[number]:
                    why[number] = failed.get(repr(witness.sends), "")
                if (found := shown.get(repr(witness.sends))) is not None:
                    known = found.witness._replace(number=witness.number)
                    yield msgspec.structs.replace(found, witness=known, packets=sifted.packets)
                    del left[number]
                elif not left[number]:
                    del left[number]
                    if why[number] and sifted.kind != HOOKS:
                        yield msgspec.structs.replace(sifted, unconfirmed=why[number])
                    elif sifted.kind != HOOKS:
                        self.disagreements.append(f"{sifted.kind}: {witness.summary}")

    def _simpler(self, changes: Sequence[Change], network: Network) -> list[Change]:
        """``changes`` with simpler witnesses where a packet with one thing less said shows the same."""
        tried: list[Sent] = []
        for change in changes:
            *before, last = change.witness.sends
            for send in pool.simpler(last):
                if (made := _made((*before, send), network)) is not None:
                    tried.append(made)
        if not tried:
            return list(changes)
        keys = {change.key: change for change in changes}
        for other in self._changes(tried, network, sift=self._is_sifted, unclear=[]):
            known = keys.get(other.key)
            if known is not None and _cost(other.witness) < _cost(known.witness):
                witness = other.witness._replace(number=known.witness.number)
                keys[other.key] = msgspec.structs.replace(known, witness=witness)
        return list(keys.values())


def _unmet(books: Sequence[Book], devices: Sequence[SimulatedDevice], generator: Pool) -> tuple[str, ...]:
    """The rules and policies that no packet met, with the reason; each once where both sides are one file."""
    return tuple(dict.fromkeys(_unmet_of_each(books, devices, generator)))


def _unmet_of_each(books: Sequence[Book], devices: Sequence[SimulatedDevice], generator: Pool) -> Iterator[str]:
    places = [
        (book, device, place)
        for book, device in zip(books, devices, strict=True)
        for place in book.places
        if place not in book.met
    ]
    for book, device, place in places[:EXPLAINED]:
        why = generator.why_none(device, place, partial(_name, book)) or UNSEEN
        yield f"{book.named(place)}: {why}"
    yield from (str(book.named(place)) for book, _, place in places[EXPLAINED:])


def _name(book: Book, place: Place) -> str:
    return str(book.named(place))


def _cost(witness: Witness) -> tuple[int, int, int]:
    return pool.cost_of(witness.sends)


def _made(sends: tuple[dict[str, Any], ...], network: Network) -> Sent | None:
    """The frames of a packet and of those before it; None for what cannot be sent in this lab."""
    with suppress(Problem, msgspec.ValidationError):
        return Sent(sends, tuple(build(msgspec.convert(send, Send), network) for send in sends))
    return None


def changed(comparisons: Sequence[Comparison]) -> bool:
    """Whether something changes that was not accepted."""
    return any(not change.accepted for one in comparisons for change in one.changes)
