"""What a ruleset needs and the running kernel lacks.

The kernel refuses with an error code alone, the same for a feature that it does not have and for a
name that is not there. So the smallest ruleset with the feature is tried: the kernel is asked, not
its version or configuration.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from harness.ruleset.nft import Nft, NftError


class Feature(NamedTuple):
    """Something of nf_tables that a kernel may be built or run without."""

    name: str
    modules: str
    """What has it, for the remedy."""
    words: str
    """A regular expression that finds it in a ruleset's text."""
    trial: str
    """The smallest table that needs it."""


def _rule(name: str, modules: str, words: str, rule: str, *, family: str = "ip", hook: str = "input") -> Feature:
    """A feature of rules in a chain of type filter."""
    device = " device lo" if family == "netdev" else ""
    chain = f"type filter hook {hook}{device} priority 0;"
    return Feature(name, modules, words, f"table {family} TRIAL {{ chain c {{ {chain} {rule}; }}; }}")


def _nat(name: str, modules: str, words: str, rule: str, hook: str) -> Feature:
    """A feature of rules in a chain of type nat."""
    chain = f"type nat hook {hook} priority 0;"
    return Feature(name, modules, words, f"table ip TRIAL {{ chain c {{ {chain} {rule}; }}; }}")


FEATURES: Final = (
    Feature(
        "flowtables",
        "nf_flow_table_inet and nft_flow_offload",
        r"\bflowtable\b|\bflow add\b",
        "table inet TRIAL { flowtable f { hook ingress priority 0; devices = { lo }; }; }",
    ),
    Feature(
        "secmark",
        "CONFIG_NETWORK_SECMARK and the security module whose context it is",
        r"\bsecmark\b",
        'table ip TRIAL { secmark s { "system_u:object_r:ssh_server_packet_t:s0"; }; }',
    ),
    Feature(
        "ct timeout",
        "CONFIG_NF_CONNTRACK_TIMEOUT",
        r"\bct timeout\b",
        "table ip TRIAL { ct timeout t { protocol tcp; policy = { established : 9 }; }; }",
    ),
    Feature(
        "ct expectation",
        "nft_ct",
        r"\bct expectation\b",
        "table ip TRIAL { ct expectation e { protocol tcp; dport 9; timeout 9s; size 9; l3proto ip; }; }",
    ),
    *(
        Feature(
            f"the ct helper {name}",
            f"nf_conntrack_{module}",
            rf'"{name}"',
            f'table ip TRIAL {{ ct helper h {{ type "{name}" protocol {protocol}; }}; }}',
        )
        for name, protocol, module in (
            *(("ftp", "tcp", "ftp"), ("tftp", "udp", "tftp"), ("sip", "udp", "sip"), ("irc", "tcp", "irc")),
            *(("pptp", "tcp", "pptp"), ("snmp", "udp", "snmp"), ("sane", "tcp", "sane"), ("RAS", "udp", "h323")),
            *(("Q.931", "tcp", "h323"), ("amanda", "udp", "amanda"), ("netbios-ns", "udp", "netbios_ns")),
        )
    ),
    _rule("queue", "nft_queue", r"\bqueue\b", "queue"),
    _rule("synproxy", "nft_synproxy", r"\bsynproxy\b", "tcp dport 1 synproxy mss 9"),
    _rule("tproxy", "nft_tproxy", r"\btproxy\b", "tcp dport 1 tproxy to :9", hook="prerouting"),
    _rule("socket", "nft_socket", r"\bsocket\b", "socket transparent 1"),
    _rule("osf", "nft_osf", r"\bosf\b", 'osf name "Linux"'),
    _rule("dup in family ip", "nft_dup_ipv4", r"\bdup to\b", "dup to 192.0.2.1", hook="prerouting"),
    _rule("dup in family ip6", "nft_dup_ipv6", r"\bdup to\b", "dup to 2001:db8::1", family="ip6", hook="prerouting"),
    _rule("dup in family netdev", "nft_dup_netdev", r"\bdup to\b", "dup to lo", family="netdev", hook="ingress"),
    _rule("fwd", "nft_fwd_netdev", r"\bfwd\b", "fwd to lo", family="netdev", hook="ingress"),
    _rule("egress", "CONFIG_NETFILTER_EGRESS", r"\begress\b", "accept", family="netdev", hook="egress"),
    _rule("meta ibrname and similar keys", "nft_meta_bridge", r"\b[io]br\w+", "meta ibrname lo", family="bridge"),
    _rule("ct in family bridge", "nf_conntrack_bridge", r"\bct\b", "ct state new", family="bridge"),
    _rule("reject in family bridge", "nft_reject_bridge", r"\breject\b", "reject", family="bridge"),
    _rule("reject", "nft_reject_ipv4", r"\breject\b", "reject"),
    _rule("reject", "nft_reject_inet and nft_reject_ipv6", r"\breject\b", "reject", family="inet"),
    _rule("numgen", "nft_numgen", r"\bnumgen\b", "meta mark set numgen inc mod 2"),
    _rule("jhash and symhash", "nft_hash", r"\b(?:jhash|symhash)\b", "meta mark set jhash ip saddr mod 2"),
    _rule("fib", "nft_fib_ipv4", r"\bfib\b", "fib saddr type local"),
    _rule("fib", "nft_fib_inet", r"\bfib\b", "fib saddr type local", family="inet"),
    _rule("ct count", "nft_connlimit", r"\bct count\b", "ct count 1"),
    _rule("ipsec", "nft_xfrm", r"\bipsec\b", "ipsec in reqid 1"),
    _rule("limit", "nft_limit", r"\blimit\b", "limit rate 1/second"),
    _rule("quota", "nft_quota", r"\bquota\b", "quota 1 bytes"),
    _rule("log", "nft_log", r"\blog\b", "log"),
    _rule("connection tracking", "nft_ct", r"\bct\b|\bnotrack\b", "ct state new"),
    _nat("masquerade", "nft_masq", r"\bmasquerade\b", "masquerade", "postrouting"),
    _nat("redirect", "nft_redir", r"\bredirect\b", "redirect", "prerouting"),
    _nat("NAT", "nft_chain_nat", r"\btype nat\b|\b[sd]nat\b", "accept", "prerouting"),
)
"""The statement, expression or object that needs each, most special first."""


def missing(nft: Nft, text: str) -> Feature | None:
    """A feature that ``text`` names and the kernel of ``nft``'s network namespace lacks."""
    return next((feature for feature in _named(text) if not _works(nft, feature)), None)


def _named(text: str) -> Iterator[Feature]:
    return (feature for feature in FEATURES if re.search(feature.words, text))


def _works(nft: Nft, feature: Feature) -> bool:
    name = "nft_harness_trial"
    try:
        nft.run(feature.trial.replace("TRIAL", name))
    except NftError:
        return False
    nft.run(f"delete table {feature.trial.split()[1]} {name}")
    return True
