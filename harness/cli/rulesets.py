"""Commands about rulesets."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Final

from harness.cli.statuses import BROKEN
from harness.errors import BrokenMeasurement, HarnessError
from harness.text import say

TRACERS: Final = ("auto", "kprobe.multi", "fentry", "kprobe", "tracepoints")

# Imports of a subcommand's own modules stand in its functions: the others need not wait for them.


def ask(parser: argparse.ArgumentParser) -> None:
    """Send one packet through a ruleset: what becomes of it, and why."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.ask import command
        from harness.ask.steps import Question

        given = [options.line and not (options.packet or options.pcap), options.send, options.packet, options.pcap]
        if sum(map(bool, given)) != 1:
            remedy = "ask as in 'client > server tcp dport 22', or by one of --send, --packet and --pcap"
            raise HarnessError("no packet is given" if not any(given) else "several packets are given", remedy=remedy)
        line = " ".join(options.line)
        request = command.Request(
            ruleset=options.ruleset,
            question=Question(line=line, send=options.send, packet=options.packet, pcap=options.pcap),
            lab=options.lab,
            flow=options.flow,
            json=options.json,
            save=options.save,
            kernel=options.kernel,
            tracer=options.nft_tracer,
            colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ,
        )
        try:
            command.run(request, print, lambda line: say(line, sys.stderr))
        except BrokenMeasurement as broken:
            say(f"nft-harness: broken measurement: {broken}", sys.stderr)
            return BROKEN
        return 0

    add = parser.add_argument
    add("ruleset", type=Path, help="an nft file, or one of iptables-save")
    add("line", nargs="*", metavar="PACKET", help="a packet on one line: 'client > server tcp dport 22'")
    add("--send", default="", metavar="YAML", help="a packet as send in a scenario: '{from: client, to: server, …}'")
    add("--packet", default="", metavar="LAYERS", help="a packet in scapy's words: 'IP()/TCP(dport=22)'")
    add("--pcap", type=Path, metavar="FILE", help="the packets of a capture, each from the host with its source")
    add("--lab", default="", metavar="LAB", help="a built-in lab or the file of one; default: one for the ruleset")
    add("--flow", action="store_true", help="have programs exchange data by TCP or UDP, instead of one packet")
    add("--json", action="store_true", help="print a stored result, as pytest --nft-results writes them")
    add("--save", type=Path, metavar="FILE", help="append it to a scenario file, with what was seen as expectation")
    add("--kernel", default="auto", help="auto (default), host, a version or a path")
    add("--nft-tracer", default="auto", choices=TRACERS, help="how functions are traced, as pytest --nft-tracer")
    parser.set_defaults(run=run)


def init(parser: argparse.ArgumentParser) -> None:
    """Write a first scenario file for a ruleset: a packet for each rule and policy, and what becomes of it."""
    from pathlib import Path

    def run(options: argparse.Namespace) -> int:
        from harness.init import command

        def progress(line: str) -> None:
            say(line, sys.stderr)

        return command.run(
            options.ruleset, options.output, kernel=options.kernel, measure=not options.no_run, progress=progress
        )

    parser.add_argument("ruleset", type=Path, help="an nft file; copied to scenarios/rulesets if it lies elsewhere")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: scenarios/NAME.yaml")
    parser.add_argument("--no-run", action="store_true", help="write packets only, for pytest --nft-record")
    parser.add_argument("--kernel", default="auto", help="auto (default), host, a version or a path")
    parser.set_defaults(run=run)
