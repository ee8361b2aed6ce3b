"""Programs that read queues of nf_tables. See include/uapi/linux/netfilter/nfnetlink_queue.h.

Nothing here waits, as with the programs of :mod:`harness.lab.sockets`: what has come is read when asked for.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import suppress
from typing import Final, Self

from harness.errors import HarnessError, Unsupported
from harness.lab.lab import Host
from harness.linux.netlink import NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, RECEIVE, attributes, messages, written
from harness.linux.nfnetlink import NETLINK_NETFILTER
from harness.packets.checksums import corrected
from harness.scenario.models.sockets import Queue

NFQNL_MSG_PACKET, NFQNL_MSG_VERDICT, NFQNL_MSG_CONFIG = 3 << 8, 3 << 8 | 1, 3 << 8 | 2
CONFIG_COMMAND, CONFIG_PARAMETERS = 1, 2  # enum nfqnl_attr_config
BIND, COPY_PACKET = 1, 2  # enum nfqnl_msg_config_cmds, nfqnl_config_mode
PACKET_HEADER, VERDICT_HEADER, MARK, PAYLOAD = 1, 2, 3, 10  # enum nfqnl_attr_type
VERDICTS: Final = {"drop": 0, "accept": 1, "repeat": 4}  # linux/netfilter.h

_GENERAL = struct.Struct("!BBH")  # struct nfgenmsg
_COMMAND = struct.Struct("!BxH")  # struct nfqnl_msg_config_cmd
_PARAMETERS = struct.Struct("!IB")  # struct nfqnl_msg_config_params
_VERDICT = struct.Struct("!II")  # struct nfqnl_msg_verdict_hdr


class QueueReader:
    """Reads one queue of ``host`` until it is closed, and gives each packet the verdict of ``spec``.

    Raises :class:`~harness.errors.Unsupported` where the kernel has no queues, and
    :class:`~harness.errors.HarnessError` when another program reads this one.
    """

    def __init__(self, host: Host, spec: Queue) -> None:
        self._spec = spec
        self._general = _GENERAL.pack(socket.AF_UNSPEC, 0, spec.number)
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = host.namespace.call(socket.socket, socket.AF_NETLINK, kind, NETLINK_NETFILTER)
        try:
            self._configure(CONFIG_COMMAND, _COMMAND.pack(BIND, socket.AF_UNSPEC))
            self._configure(CONFIG_PARAMETERS, _PARAMETERS.pack(RECEIVE - 1, COPY_PACKET))
        except OSError as refused:
            self._socket.close()
            if refused.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                remedy = "load its module: modprobe nfnetlink_queue"
                raise Unsupported("this kernel has no queues (CONFIG_NETFILTER_NETLINK_QUEUE)", remedy=remedy) from None
            raise HarnessError(f"{host.name} cannot read queue {spec.number}: {refused.strerror}") from None
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def advance(self) -> None:
        """Give a verdict on each packet that has come."""
        with suppress(BlockingIOError):
            while True:
                for message in messages(self._socket.recv(RECEIVE)):
                    if message.type == NFQNL_MSG_PACKET and self._spec.verdict != "none":
                        self._decide(dict(attributes(message.body[_GENERAL.size :])))

    def _decide(self, packet: dict[int, memoryview]) -> None:
        number = int.from_bytes(packet[PACKET_HEADER][:4], "big")
        answer = [(VERDICT_HEADER, _VERDICT.pack(VERDICTS[self._spec.verdict], number))]
        if self._spec.mark is not None:
            answer.append((MARK, self._spec.mark.to_bytes(4, "big")))
        if self._spec.replace:
            content = bytes(packet.get(PAYLOAD, b""))
            for old, new in self._spec.replace.items():
                content = content.replace(old.encode(), new.encode())
            answer.append((PAYLOAD, corrected(content)))
        self._socket.send(written(NFQNL_MSG_VERDICT, NLM_F_REQUEST, self._general, answer))

    def _configure(self, kind: int, payload: bytes) -> None:
        self._socket.send(written(NFQNL_MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, self._general, [(kind, payload)]))
        for message in messages(self._socket.recv(RECEIVE)):
            if message.type == NLMSG_ERROR and (code := struct.unpack_from("=i", message.body)[0]):
                raise OSError(-code, os.strerror(-code))
