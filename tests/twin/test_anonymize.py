"""Addresses and names replaced by others, the same everywhere."""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

from harness.twin.anonymize import Anonymizer

TEXT = """nft-harness twin 1
[host]
|fw1.example.org 6.12.0
|
|=0
[links]
|[{"ifname": "eth0", "address": "52:54:00:12:34:56"}, {"ifname": "acme-dmz"}, {"ifname": "tunnel-acme"}]
|
|=0
[addresses]
|[{"ifname": "eth0", "addr_info": [{"family": "inet", "local": "84.10.20.30", "prefixlen": 24}]},
|{"ifname": "acme-dmz", "addr_info": [{"family": "inet", "local": "10.66.7.1", "prefixlen": 24}]}]
|
|=0
[nft]
|table inet acme {
|	chain from-acme {
|		iifname "acme-dmz" ip saddr 84.10.20.7 ip daddr 10.66.7.20-10.66.7.40 accept comment "for Jane Doe"
|		iifname "tunnel*" ip saddr 84.10.0.0/16 ether saddr 52:54:00:12:34:56 drop
|		ip6 saddr 2a01:4f8:1::5 ip6 daddr 2a01:4f8:1::/48 ip saddr 127.0.0.1 jump from-acme
|		ip saddr 192.168.5.6 tcp dport 22 meta time "10:30:00" accept
|	}
|}
|
|=0
"""


def test_nothing_that_names_anybody_is_left() -> None:
    found = Anonymizer(TEXT, b"key").text()
    for secret in ("84.10.", "10.66.7", "acme", "Jane", "52:54:00:12", "2a01:4f8", "fw1", "192.168.5.6"):
        if secret == "acme":
            assert "acme" not in found.replace("tunnel-acme", ""), found  # a rule's tunnel* has to meet it
        else:
            assert secret not in found, found
    assert "127.0.0.1" in found
    assert "10:30:00" in found


def test_the_same_everywhere_and_by_prefix() -> None:
    found = Anonymizer(TEXT, b"key").text()
    own = ip_address(re.findall(r'"local": "([^"]+)"', found)[0])
    (other,) = re.findall(r"ip saddr (\S+) ip daddr", found)
    (network,) = re.findall(r"ip saddr (\S+/16)", found)
    assert ip_address(other) in ip_network(f"{own}/24", strict=False)
    assert own in ip_network(network)
    first, last = re.findall(r"ip daddr ([\d.]+)-([\d.]+) ", found)[0]
    assert int(ip_address(last)) - int(ip_address(first)) == 20
    assert ip_address(first).is_private
    six, prefix = re.findall(r"ip6 saddr (\S+) ip6 daddr (\S+)", found)[0]
    assert ip_address(six) in ip_network(prefix)
    assert found.count(re.findall(r'"address": "([^"]+)"', found)[0]) == 2
    assert Anonymizer(TEXT, b"key").text() == found
    assert Anonymizer(TEXT, b"other").text() != found
