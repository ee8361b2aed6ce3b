"""What the kernel gave of sifted packets, made by hand: what is made of it, and what is refused."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

import msgspec
import pytest

from harness.batch import sighting
from harness.batch.messages import Effects, Loaded, Sifted, SiftedStep, Sighting, Traced
from harness.linux.nfnetlink import NFT_MSG_TRACE
from harness.packets.frames import Frame
from harness.ruleset import nftrace
from harness.ruleset.listing import Chain
from harness.untrusted import Malformed
from tests import builders
from tests.ruleset.builders import attribute, nest, s32, u32

INET, ACCEPT, DROP = 1, 1, 0
RULE = builders.rule("tcp dport 443 accept", handle=9)
SENT = builders.frame()
FRAME = Frame(sender="client", interface="eth0", through="wire", data=SENT, summary="a SYN")
LOADED = Loaded(
    kernel="6.12",
    rules=(RULE,),
    policies=(),
    whole=False,
    traced=Traced(
        device="device",
        chains=(Chain(family="inet", table="filter", name="forward", hook="forward", policy="drop"),),
        table="ours",
        interfaces={2: "wan0"},
    ),
)


def datagram(table: bytes, *attributes: bytes, number: int = 7) -> bytes:
    body = struct.pack("=BBH", INET, 0, 0) + b"".join(
        [attribute(nftrace.TABLE, table), attribute(nftrace.CHAIN, b"forward\0"), attribute(nftrace.ID, u32(number))]
    )
    body += b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), NFT_MSG_TRACE, 0, 0, 0) + body


def entered(frame: bytes = SENT, number: int = 7, iif: int = 2) -> bytes:
    """The message of the chain that switches the trace on."""
    # The kernel gives up to 40 bytes of a network header that it does not know the end of.
    size = 34 if frame[14] >> 4 == 4 else 54
    headers = attribute(nftrace.NETWORK_HEADER, frame[14:size]), attribute(nftrace.TRANSPORT_HEADER, frame[size:54])
    headers = (*headers, attribute(nftrace.IIF, u32(iif)))
    return datagram(b"ours\0", attribute(nftrace.TYPE, u32(3)), *headers, number=number)


def ruled(code: int, handle: int = 9, number: int = 7) -> bytes:
    verdict = nest(nftrace.VERDICT, attribute(nftrace.VERDICT_CODE, s32(code)))
    rule = attribute(nftrace.RULE_HANDLE, struct.pack(">Q", handle))
    return datagram(b"filter\0", rule, attribute(nftrace.TYPE, u32(3)), verdict, number=number)


def resolving(operation: int, sender: str, target: str) -> bytes:
    """An ARP message."""
    ends = (bytes(6) + IPv4Address(address).packed for address in (sender, target))
    return struct.pack(">HHBBH", 1, 0x0800, 6, 4, operation) + b"".join(ends)


def effects(*messages: bytes, arrived: tuple[tuple[str, str, bytes], ...] = (), frame: Frame = FRAME) -> Effects:
    """Of one packet, by way of the JSON in which it comes from a guest."""
    seen = Sifted(steps=(SiftedStep(sightings=(Sighting(messages, arrived),)),))
    came = msgspec.json.decode(msgspec.json.encode(seen), type=Sifted)
    loaded = msgspec.json.decode(msgspec.json.encode(LOADED), type=Loaded)
    first, found = sighting.effects([loaded, came], [[[frame]]])
    assert first == LOADED
    assert isinstance(found, Effects)
    return found


def test_a_packet_that_a_rule_accepts_and_that_arrives() -> None:
    found = effects(entered(), ruled(ACCEPT), arrived=(("server", "eth0", builders.frame(ttl=63)),))
    (effect,) = found.seen
    assert (effect.verdict, effect.decided, effect.met) == ("accept", (RULE.place,), (RULE.place,))
    assert effect.hooks == ("forward accept",)
    assert effect.arrived == ("server eth0: 203.0.113.5:40000 → 10.0.2.2:443 tcp S (IPv4, 40 bytes), ttl 63",)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ((entered(builders.frame(src="203.0.113.6")), ruled(DROP)), sighting.FOREIGN),
        ((ruled(DROP),), sighting.FOREIGN),  # its beginning is missing
        ((entered(), ruled(ACCEPT, handle=10)), "a rule decided that is not in the ruleset's listing"),
        ((entered(), ruled(-1)), "breaks off in chain inet filter forward"),
        ((), "was seen by no function, no nf_tables trace and no host"),
        ((struct.pack("=IHHII", 17, NFT_MSG_TRACE, 0, 0, 0) + b"x",), "cannot be read"),
    ],
)
def test_what_is_not_clear_is_an_error(messages: tuple[bytes, ...], error: str) -> None:
    found = effects(*messages)
    assert not found.seen
    assert error in found.error


@pytest.mark.parametrize("tag", [b"", b"\x81\x00\x00\x07"], ids=["untagged", "tagged"])
@pytest.mark.parametrize(
    ("kind", "asked", "answered"),
    [
        (b"\x08\x06", resolving(1, "203.0.113.5", "203.0.113.1"), resolving(2, "203.0.113.1", "203.0.113.5")),
        (b"\x08\x06", resolving(1, "203.0.113.5", "203.0.113.1"), resolving(1, "203.0.113.5", "203.0.113.9")),
        (b"\x08\x00", SENT[14:], builders.frame(src="10.0.2.2", dst="203.0.113.5")[14:]),
    ],
    ids=["answer by ARP", "another request", "answer by IP"],
)
def test_an_answer_that_meets_rules_alone_is_not_the_packet(
    tag: bytes, kind: bytes, asked: bytes, answered: bytes
) -> None:
    frame = msgspec.structs.replace(FRAME, data=bytes(12) + tag + kind + asked)
    assert effects(entered(bytes(14) + answered), ruled(DROP), frame=frame).error == sighting.FOREIGN
    assert not effects(entered(bytes(14) + asked), ruled(DROP), frame=frame).error


@pytest.mark.parametrize(
    ("again", "verdict"),
    [
        (entered(number=8, iif=3), "drop"),
        (entered(number=8, iif=2), "accept"),
        (entered(number=8, iif=0), "accept"),
        (entered(builders.frame(src="10.0.2.2", dst="203.0.113.5"), number=8, iif=3), "accept"),
    ],
    ids=["its bridge receives it", "a copy", "sent by a bridge", "an answer"],
)
def test_a_packet_that_another_interface_receives_again(again: bytes, verdict: str) -> None:
    found = effects(entered(), ruled(ACCEPT), again, ruled(DROP, number=8))
    assert not found.error
    assert found.seen[0].verdict == verdict


def test_steps_of_other_packets_are_not_the_packets() -> None:
    """Those of its answer, for instance, are left behind."""
    (effect,) = effects(entered(), ruled(DROP), ruled(ACCEPT, number=8)).seen
    assert (effect.verdict, effect.hooks) == ("drop", ("forward drop", "forward accept"))


def test_why_a_packet_could_not_be_observed_is_kept() -> None:
    _, found = sighting.effects([LOADED, Sifted(error="messages were lost")], [[[FRAME]]])
    assert found == Effects(error="messages were lost")


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([Sifted()], "reports a packet that was not sent"),
        ([LOADED, Sifted(error="a"), Sifted(error="b")], "reports a packet that was not sent"),
        ([msgspec.structs.replace(LOADED, traced=None)], "does not report what was traced"),
    ],
)
def test_a_guest_that_answers_otherwise_is_refused(answers: list[Loaded | Sifted], sentence: str) -> None:
    with pytest.raises(Malformed, match=sentence):
        list(sighting.effects(answers, [[[FRAME]]]))


def test_frames_that_were_not_sent_are_an_error_of_the_packet() -> None:
    for sifted in (Sifted(), Sifted(steps=(SiftedStep(sightings=()),))):
        _, found = sighting.effects([LOADED, sifted], [[[FRAME]]])
        assert found == Effects(error="the session reports other frames than those that were sent")
