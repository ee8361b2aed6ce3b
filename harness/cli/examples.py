"""Examples of each subcommand, which its help and the manual page end with; a ``#`` begins what an example does."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final = {
    "ask": """\
nft-harness ask edge.nft 'client > server tcp dport 22'     # verdict, rule, path, and why
nft-harness ask edge.nft --packet 'IP()/TCP(dport=22)'      # a packet in scapy's notation
""",
    "check": """\
nft-harness check scenarios/                     # files and their rulesets, without running them
nft-harness check --format github scenarios/     # annotations for a job in GitHub Actions
nft-harness check --kernel 7.2 scenarios/        # as for a run on Linux 7.2
""",
    "completion": """\
nft-harness completion bash > ~/.local/share/bash-completion/completions/nft-harness
nft-harness completion zsh > ~/.zfunc/_nft-harness          # with ~/.zfunc in fpath
nft-harness completion fish > ~/.config/fish/completions/nft-harness.fish
""",
    "diff": """\
nft-harness diff old.nft new.nft     # which packets they treat differently
nft-harness diff --base main         # this branch's rulesets with those of main
""",
    "discover": """\
nft-harness discover --layer Netfilter --priority 1     # critical and important ones
nft-harness discover --match 'ip_*' --output functions.json
nft-harness discover --config trace.json --max-trace 30
""",
    "doctor": """\
nft-harness doctor            # what this machine can do, and what to install
nft-harness doctor --json     # for programs
""",
    "init": """\
nft-harness init /etc/nftables.conf               # writes scenarios/nftables.yaml
nft-harness init edge.nft -o scenarios/edge.yaml --no-run
""",
    "kernels": """\
nft-harness kernels list
nft-harness kernels fetch 6.1 7.2     # download them now rather than at the first run
nft-harness kernels warm              # later guests start in about two seconds
""",
    "lab": """\
nft-harness lab show scenarios/edge.yaml                       # a drawing
nft-harness lab enter scenarios/edge.yaml                      # a shell in the device under test
nft-harness lab enter scenarios/edge.yaml -- nft list ruleset
""",
    "manual": """\
nft-harness manual > ~/.local/share/man/man1/nft-harness.1
nft-harness manual | man -l -
""",
    "mutate": """\
nft-harness mutate scenarios/edge.yaml                       # which changes of its ruleset no scenario notices
nft-harness mutate scenarios/ --ruleset edge.nft --save scenarios/edge.yaml
nft-harness mutate scenarios/ --fail-under 90 --json mutants.json
""",
    "report": """\
nft-harness report results/ --html report.html
nft-harness report *.jsonl --cov --cov-fail-under 90
""",
    "schema": """\
nft-harness schema > scenario.schema.json     # for an editor
nft-harness schema --markdown                 # the reference
""",
    "trace": """\
nft-harness trace --proto tcp --filter 'port 80'                 # until Ctrl-C
nft-harness trace --group packet -- ping -c 1 10.0.2.2           # beside a command
nft-harness trace --out trace.jsonl -- ping -c 1 10.0.2.2        # to look at it again later:
nft-harness trace --read trace.jsonl --functions 'nf_*' 'nft_*'
""",
    "twin": """\
nft-harness twin admin@fw1             # by ssh and sudo -n: writes a folder fw1
nft-harness twin --script > collect.sh # read it, run it on the machine as root, and then
nft-harness twin --from fw1.txt        # make the twin from its output
nft-harness twin admin@fw1 --check fw1 # how the machine differs from its twin now
""",
    "vm": """\
nft-harness vm -- uname -r
nft-harness vm --kernel 7.2 -- sh experiment.sh
""",
}
"""By the name of the subcommand."""
