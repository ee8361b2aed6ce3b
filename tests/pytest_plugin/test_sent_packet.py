"""What was seen of a packet, as tests in Python read it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]


class TestWhatIsSeen:
    def test_has_the_words_of_a_scenario(self, run: Callable[..., pytest.RunResult]) -> None:
        run(
            "seen = nft_run(**RULES, send=HTTPS)\n"
            "assert (seen.verdict, seen.with_, seen.delivered) == ('accept', '', 'server')\n"
            "assert seen.rule.text == 'tcp dport 443 accept' and seen.rule.position.line == 5\n"
            "assert [step.verdict for step in seen.steps] == ['accept']\n"
            "assert seen.layers == ('Device', 'IPv4', 'Netfilter', 'IPv4', 'Xmit')\n"
            "assert list(seen.path)[:2] == ['netif_receive_skb', 'ip_rcv'] and len(seen.path) == 5\n"
            "assert seen.dropped is None and seen.replies == () and seen.sees['ether_type'] == 0\n"
            "assert repr(seen).endswith(': delivered to server>')\n"
        ).assert_outcomes(passed=1)

    def test_a_policy_is_no_rule(self, run: Callable[..., pytest.RunResult]) -> None:
        run(
            "seen = nft_run(**RULES, send=SSH)\n"
            "assert (seen.verdict, seen.rule, seen.delivered, seen.sees) == ('drop', None, 'nowhere', {})\n"
        ).assert_outcomes(passed=1)

    def test_a_function_that_could_not_be_traced_is_not_called_unmet(
        self, run: Callable[..., pytest.RunResult]
    ) -> None:
        result = run(
            "seen = nft_run(**RULES, send=SSH)\nassert 'ip_forward' not in seen.path\n'ip_forwrad' in seen.path"
        )
        result.assert_outcomes(errors=1)
        result.stdout.fnmatch_lines(["*cannot trace ip_forwrad*did you mean ip_forward?"])

    def test_expectations_of_a_scenario(self, run: Callable[..., pytest.RunResult]) -> None:
        run(
            "seen = nft_run(**RULES, send=SSH, expect={'verdict': 'drop', 'rule': 'policy'})\n"
            "seen.expect(verdict='drop', delivered='nowhere', never=['ip_forward'])\n"
            "with pytest.raises(AssertionError, match='expect.verdict +reject +seen +drop'):\n"
            "    seen.expect(verdict='reject', with_='tcp reset')\n"
        ).assert_outcomes(passed=1)
