"""Names of ICMP and ICMPv6 types and codes, as nft(8) writes them, and what a reject answers."""

from __future__ import annotations

from collections.abc import Mapping

from harness.model.problem import Problem, unknown
from harness.packets.spec import SeesICMP

# nft(8), "ICMP TYPE TYPE" and "ICMPV6 TYPE TYPE".
TYPES: Mapping[str, int] = {
    "echo-reply": 0,
    "destination-unreachable": 3,
    "source-quench": 4,
    "redirect": 5,
    "echo-request": 8,
    "router-advertisement": 9,
    "router-solicitation": 10,
    "time-exceeded": 11,
    "parameter-problem": 12,
    "timestamp-request": 13,
    "timestamp-reply": 14,
    "info-request": 15,
    "info-reply": 16,
    "address-mask-request": 17,
    "address-mask-reply": 18,
}
TYPES_V6: Mapping[str, int] = {
    "destination-unreachable": 1,
    "packet-too-big": 2,
    "time-exceeded": 3,
    "parameter-problem": 4,
    "echo-request": 128,
    "echo-reply": 129,
    "mld-listener-query": 130,
    "mld-listener-report": 131,
    "mld-listener-done": 132,
    "mld-listener-reduction": 132,
    "nd-router-solicit": 133,
    "nd-router-advert": 134,
    "nd-neighbor-solicit": 135,
    "nd-neighbor-advert": 136,
    "nd-redirect": 137,
    "router-renumbering": 138,
    "ind-neighbor-solicit": 141,
    "ind-neighbor-advert": 142,
    "mld2-listener-report": 143,
}
ECHO_V6 = frozenset({TYPES_V6["echo-request"], TYPES_V6["echo-reply"]})
DISCOVERY_V6 = range(TYPES_V6["nd-router-solicit"], TYPES_V6["nd-redirect"] + 1)
"""Neighbour discovery: with another hop limit than 255 it is invalid (RFC 4861 sections 6.1, 7.1 and 8.1)."""
NEIGHBOUR_V6 = frozenset({TYPES_V6["nd-neighbor-solicit"], TYPES_V6["nd-neighbor-advert"]})

# Codes of destination-unreachable: nft(8), "ICMP CODE TYPE", "ICMPV6 CODE TYPE", "ICMPX CODE TYPE".
CODES: Mapping[str, int] = {
    "net-unreachable": 0,
    "host-unreachable": 1,
    "prot-unreachable": 2,
    "port-unreachable": 3,
    "frag-needed": 4,
    "net-prohibited": 9,
    "host-prohibited": 10,
    "admin-prohibited": 13,
}
CODES_V6: Mapping[str, int] = {
    "no-route": 0,
    "admin-prohibited": 1,
    "addr-unreachable": 3,
    "port-unreachable": 4,
    "policy-fail": 5,
    "reject-route": 6,
}
# The same in both families: icmp_code_v4 and icmp_code_v6 in net/netfilter/nft_reject.c.
CODES_X: Mapping[str, tuple[str, str]] = {
    "no-route": ("net-unreachable", "no-route"),
    "port-unreachable": ("port-unreachable", "port-unreachable"),
    "host-unreachable": ("host-unreachable", "addr-unreachable"),
    "admin-prohibited": ("admin-prohibited", "admin-prohibited"),
}


def check_reject(text: str) -> int | None:
    """Check what a reject answers with: ``tcp reset``, ``icmp port-unreachable``, ``icmpx no-route``…

    Returns the IP version that it can answer, 4 or 6, None when both. ``type`` before the code, as
    nft before 1.0.1 prints it, makes no difference. Raises
    :class:`~harness.model.problem.Problem` without keys.
    """
    match text.split():
        case ["tcp", "reset"]:
            return None
        case ["icmp", "type", code] | ["icmp", code]:
            _known(code, CODES, "icmp reject code")
            return 4
        case ["icmpv6", "type", code] | ["icmpv6", code]:
            _known(code, CODES_V6, "icmpv6 reject code")
            return 6
        case ["icmpx", "type", code] | ["icmpx", code]:
            _known(code, CODES_X, "icmpx reject code")
            return None
    raise Problem(
        f"'{text}' is not a way to reject",
        remedy="write 'tcp reset', or 'icmp', 'icmpv6' or 'icmpx' and a code, as in 'icmp port-unreachable'",
    )


def name_of(names: Mapping[str, int], number: object, default: str) -> str:
    """The first of ``names`` for ``number``; ``default`` where there is none."""
    return next((name for name, one in names.items() if one == number), default)


def number(name: str | int, types: Mapping[str, int]) -> int:
    """The number of an ICMP type of ``TYPES`` or ``TYPES_V6``; raises Problem without keys."""
    return name if isinstance(name, int) else types[_known(name, types, "type name that nft knows")]


def numbers(header: SeesICMP, protocol: str) -> tuple[int | None, int | None]:
    """Type and code that ``header`` asks for, None for any; raises Problem, with the key that is wrong."""
    types, codes = (TYPES, CODES) if protocol == "icmp" else (TYPES_V6, CODES_V6)
    kind = code = None
    try:
        kind = None if header.type is None else number(header.type, types)
    except Problem as problem:
        raise problem.below("type") from None
    if isinstance(header.code, int):
        code = header.code
    elif header.code is not None:
        if kind != types["destination-unreachable"]:
            remedy = "write its number, or type: destination-unreachable"
            raise Problem("only codes of destination-unreachable have names", "code", remedy=remedy)
        if header.code not in codes:
            raise unknown(header.code, codes, "code of destination-unreachable", "code")
        code = codes[header.code]
    return kind, code


def _known(name: str, names: Mapping[str, object], noun: str) -> str:
    if name not in names:
        raise unknown(name, names, noun)
    return name
