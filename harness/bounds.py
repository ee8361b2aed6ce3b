"""Limits of what an untrusted file may demand.

Each bound is many times what a real file needs, and small enough that what it lets through is read within
seconds and a few hundred megabytes. What is beyond one is answered with a sentence at its line.
``docs/limitations.md`` has the same numbers, and a test compares them.
"""

from __future__ import annotations

from typing import Final

SCENARIO_BYTES: Final = 1 << 20
"""Size of a scenario file or a lab. A scenario takes about 500 bytes."""
RULESET_BYTES: Final = 16 << 20
"""Size of a ruleset's file. A list of 100,000 addresses takes 2 MB."""
CAPTURE_BYTES: Final = 16 << 20
"""Size of a capture that packets are taken from."""
PAYLOAD_BYTES: Final = 65535
"""Size of a file that is a packet's payload: the longest IP packet."""
SETTINGS_BYTES: Final = 1 << 20
"""Size of a settings file of pytest."""
PYTHON_BYTES: Final = 4 << 20
"""Size of a test in Python that is looked into, to see whether it takes a fixture of the harness."""
YAML_DEPTH: Final = 32
"""Nesting of a scenario file or a lab. The language needs 9."""
YAML_VALUES: Final = 100_000
"""Values in a file after aliases are expanded and scenarios are made of parameters. A scenario has about 15."""
SCENARIOS_OF_ONE: Final = 1000
"""Scenarios that ``each`` or ``matrix`` makes of one."""
TWIN_BYTES: Final = 64 << 20
"""What a machine prints of which a twin is made. A router with ten interfaces prints 30 KB."""
RESULT_BYTES: Final = 60 << 20
"""Size of a stored result, a little less than of a message from a worker. A scenario takes about 100 KB, and one with
1,000 packets 7 MB with functions."""
RESULTS_BYTES: Final = 16 << 30
"""Size of a file with a stored result on each line, of which one at a time is in memory."""
EXPRESSION_BYTES: Final = 1 << 20
"""Texts and bytes in a packet expression together, repeated as often as they say."""
PACKETS_BYTES: Final = 16 << 20
"""Bytes of the packets that one expression makes."""
HOSTS: Final = 250
"""Hosts of a lab: the tracer distinguishes 256 network namespaces."""
INTERFACES: Final = 2048
"""Interfaces of all hosts of a lab."""
KERNEL_BYTES: Final = 256 << 20
"""Size of a kernel image. Debian's have 10 to 15 MB."""
VMLINUX_BYTES: Final = 512 << 20
"""Size of a kernel unpacked. Debian's have 60 to 100 MB."""
INCLUDE_DEPTH: Final = 16
"""Files of a ruleset that include one another: nft's own limit."""
