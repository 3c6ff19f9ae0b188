# Copyright 2026 the pruned_perception developers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Run commands where everything that leaves a process would arrive, and write down what does.

Started by `unshare --map-root-user --net --mount`, as `watched_namespace.py FOLDER SECONDS`, with
FOLDER/commands.json, a list of [name, [word …]]. In the namespace every address leads to this
process: a name server that answers each question, and a listener on the web's ports. Each command
runs under strace, is interrupted after SECONDS, and leaves FOLDER/name.log and the traces
FOLDER/name.trace.PID. What was asked and who connected is printed as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

NAME_SERVER, ELSEWHERE = '203.0.113.53', '203.0.113.1'  # of the block for documentation (RFC 5737)
CALLS = 'connect,sendto,sendmsg,sendmmsg'


def prepare(folder: Path) -> None:
    """Bring loopback up, let every address be this machine, and make ourselves the name server."""
    resolver = folder / 'resolv.conf'
    resolver.write_text(f'nameserver {NAME_SERVER}\noptions timeout:1\n')
    for command in (
        ['ip', 'link', 'set', 'lo', 'up', 'multicast', 'on'],
        ['ip', 'route', 'add', 'local', '0.0.0.0/0', 'dev', 'lo'],
        ['ip', 'route', 'add', 'multicast', '224.0.0.0/4', 'dev', 'lo'],
        ['mount', '--bind', str(resolver), '/etc/resolv.conf'],
    ):
        subprocess.run(command, check=True, stdout=sys.stderr)


def answer_names(questions: list[str]) -> None:
    """Answer every question with one address; IPv6 ones with none."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(('0.0.0.0', 53))
    while True:
        query, client = server.recvfrom(4096)
        end = query.index(b'\0', 12) + 5  # of the question: name, type, class
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode(errors='replace'))
            at += 1 + query[at]
        questions.append('.'.join(labels))
        wants_ipv4 = query[at + 1 : at + 3] == b'\0\1'
        head = query[:2] + struct.pack('>5H', 0x8180, 1, int(wants_ipv4), 0, 0)
        record = b'\xc0\x0c' + struct.pack('>HHIH', 1, 1, 60, 4) + socket.inet_aton(ELSEWHERE)
        server.sendto(head + query[12:end] + (record if wants_ipv4 else b''), client)


def accept(port: int, connections: list[str]) -> None:
    """Take every connection, and what it says first."""
    server = socket.create_server(('0.0.0.0', port))
    while True:
        connection, _ = server.accept()
        connection.settimeout(5)
        try:
            said = connection.recv(4096)
        except OSError:
            said = b''
        connections.append(f'port {port}, {len(said)} bytes')
        connection.close()


def main(folder: Path, seconds: float) -> int:
    """Run all commands beside each other."""
    prepare(folder)
    questions: list[str] = []
    connections: list[str] = []
    threading.Thread(target=answer_names, args=(questions,), daemon=True).start()
    for port in (80, 443):
        threading.Thread(target=accept, args=(port, connections), daemon=True).start()
    running: dict[str, subprocess.Popen[bytes]] = {}
    for name, command in json.loads((folder / 'commands.json').read_text()):
        strace = ['strace', '-ff', '-qq', '--seccomp-bpf', '-e', f'trace={CALLS}']
        strace += ['-e', 'signal=none', '-o', str(folder / f'{name}.trace')]
        with (folder / f'{name}.log').open('wb') as log:
            running[name] = subprocess.Popen(
                [*strace, *command],
                stdin=subprocess.PIPE,  # never closed: some run until then
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    time.sleep(seconds)
    ended = {name: process.poll() for name, process in running.items()}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        alive = [process for process in running.values() if process.poll() is None]
        for process in alive:
            os.killpg(process.pid, number)
        end = time.monotonic() + 10
        while any(process.poll() is None for process in alive) and time.monotonic() < end:
            time.sleep(0.1)
    # `ended`: exit status of those that did not run to the end.
    print(json.dumps({'questions': questions, 'connections': connections, 'ended': ended}))
    return 0


if __name__ == '__main__':
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
