"""A ruleset as nft lists it, read back."""

from __future__ import annotations

import pytest

from harness.ruleset.listing import Chain, Handle, lasting, read, seconds, tables, without_table

LISTING = """\
table inet filter { # handle 3
	set web {
		type inet_service
		elements = { 80,
				443 }
	}

	chain forward { # handle 1
		comment "towards the servers"
		type filter hook forward priority 0; policy drop;
		ct state established,related accept # handle 4
		tcp dport @web jump checked comment "web" # handle 5
	}

	chain checked { # handle 2
		counter packets 0 bytes 0 # handle 6
	}
}
table netdev early { # handle 4
	chain in {
		type filter hook ingress devices = { "wan0", lan0 } priority -500; policy accept;
	}
	chain out {
		type filter hook egress device "wan0" priority 5;
	}
}
"""


def test_chains_with_and_without_a_hook() -> None:
    chains, _ = read(LISTING)
    forward, checked, early, late = chains
    assert forward == Chain(
        family="inet", table="filter", name="forward", type="filter", hook="forward", priority=0, policy="drop"
    )
    assert (checked.name, checked.is_base) == ("checked", False)
    assert (early.devices, early.priority) == (("wan0", "lan0"), -500)
    assert (late.devices, late.policy) == (("wan0",), "accept")


def test_rules_with_handle_and_comment() -> None:
    _, rules = read(LISTING)
    assert [(one.place, one.comment) for one in rules] == [
        (("inet", "filter", "forward", 4), ""),
        (("inet", "filter", "forward", 5), "web"),
        (("inet", "filter", "checked", 6), ""),
    ]
    assert rules[1].text == 'tcp dport @web jump checked comment "web"'


BLOCKS = """\
table inet t { # handle 1
	chain c { # handle 1
		tcp dport 22 jump {
			ip saddr 192.0.2.1 accept
			drop
		} # handle 5
		tcp dport { 80,
			443 } accept # handle 9
		udp dport 53 goto {
			accept
		} # handle 8
	}
}
"""


def test_a_rule_of_several_lines_is_one_text() -> None:
    _, rules = read(BLOCKS)
    assert [one.text for one in rules] == [
        "tcp dport 22 jump { ip saddr 192.0.2.1 accept; drop; }",
        "tcp dport { 80, 443 } accept",
        "udp dport 53 goto { accept; }",
    ]


def of(chain: str, *handles: int) -> list[Handle]:
    return [Handle("inet", "t", chain, one) for one in handles]


def test_the_rules_of_a_block_follow_the_one_that_holds_it() -> None:
    _, rules = read(BLOCKS, [*of("__chain1", 7), *of("__chain0", 4, 3)])
    assert [(one.chain, one.handle, one.text, one.block) for one in rules] == [
        ("c", 5, "tcp dport 22 jump { ip saddr 192.0.2.1 accept; drop; }", "__chain0"),
        ("__chain0", 3, "ip saddr 192.0.2.1 accept", ""),
        ("__chain0", 4, "drop", ""),
        ("c", 9, "tcp dport { 80, 443 } accept", ""),
        ("c", 8, "udp dport 53 goto { accept; }", "__chain1"),
        ("__chain1", 7, "accept", ""),
    ]


@pytest.mark.parametrize(
    "handles",
    [of("__chain0", 3, 4), [*of("__chain0", 3), *of("__chain1", 7)]],
    ids=["a block is missing", "a rule is missing"],
)
def test_where_the_kernels_list_is_another_blocks_stay_closed(handles: list[Handle]) -> None:
    _, rules = read(BLOCKS, handles)
    assert [one.handle for one in rules] == [5, 9, 8]
    assert not any(one.block for one in rules)


def test_tables_are_known_by_their_handles() -> None:
    assert tables(LISTING) == {("inet", "filter"): 3, ("netdev", "early"): 4}


def test_a_listing_without_a_table_has_no_handles_of_tables() -> None:
    left = without_table(LISTING, "filter")
    assert left.startswith("table netdev early {\n")
    assert "filter {" not in left
    assert without_table(LISTING, "other").count("# handle") == LISTING.count("# handle") - 2


TIMED = """\
table inet filter { # handle 3
	set blocked {
		type ipv4_addr
		flags dynamic,timeout
		timeout 1h30m
	}

	map sticky {
		typeof ip saddr : ip daddr
		flags dynamic,timeout
	}

	ct timeout brief { # handle 2
		protocol udp
		l3proto ip
		policy = { unreplied : 5, replied : 1m40s }
	}

	chain c {
		type filter hook input priority 0; policy accept;
		tcp dport 22 add @blocked { ip saddr timeout 10s } drop
		add @sticky { ip saddr timeout 500ms : 10.0.0.1 }
		add @never { ip saddr } comment "timeout 3s"
	}
}
"""


def test_what_expires_and_when_at_the_soonest() -> None:
    assert lasting(TIMED) == (
        ("an element of set blocked", 10, "@blocked"),
        ("a connection by the ct timeout brief", 5, "ct"),
        ("an element of set sticky", 0.5, "@sticky"),
    )
    assert lasting(LISTING) == ()


def test_durations() -> None:
    assert [seconds(one) for one in ("5", "5s", "1h30m", "1d", "500ms", "1m40s")] == [5, 5, 5400, 86400, 0.5, 100]
