"""What a template leaves out is there when it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
import json, os
from harness.warm import program
program.forget_manufacturers()
from scapy import data
from scapy.config import conf

def held():
    return len(data.DADict.d.__get__(data.MANUFDB))

before = held()
found = conf.manufdb.lookup("08:00:2b:00:00:01")
wireshark = data.MANUFDB._name if os.path.exists(data.MANUFDB._name) else None
complete = data.load_manuf(wireshark).d == data.MANUFDB.d
print(json.dumps([before, held(), found, complete, type(data.MANUFDB) is data.ManufDA]))
"""


def test_manufacturers_are_read_when_they_are_asked_for() -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    before, after, manufacturer, complete, as_it_was = json.loads(process.stdout)
    assert before == 0
    assert after > 10_000
    assert "Digital" in manufacturer[1]
    assert complete
    assert as_it_was
