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

"""`pruned-perception play`: a rosbag2 folder onto its topics, also where there is no ros2 bag."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pruned_perception._io import write_text
from pruned_perception.benchmark.player import Played, play
from pruned_perception.benchmark.session import ros_session
from pruned_perception.cli.arguments import checked, not_negative, positive, topic
from pruned_perception.cli.output import check_output, say
from pruned_perception.cli.progress import Progress
from pruned_perception.errors import UserError

CLOCK_HZ = 40.0
"""As `ros2 bag play --clock` ticks."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('bag', type=Path, help='folder of the bag (MCAP or sqlite3)')
    parser.add_argument(
        '--topics', nargs='+', type=topic, metavar='TOPIC', help='only these topics'
    )
    parser.add_argument(
        '--remap', nargs='+', default=[], metavar='FROM:=TO', help='publish on other topics'
    )
    parser.add_argument('--rate', type=positive, default=1.0, help='times the recorded pace')
    parser.add_argument(
        '--new-stamps',
        action='store_true',
        help='put the time of publication into the headers, so that ages can be measured',
    )
    parser.add_argument(
        '--clock',
        nargs='?',
        type=positive,
        const=CLOCK_HZ,
        metavar='HZ',
        help='publish the recorded time on /clock, for nodes with use_sim_time; '
        f'default {CLOCK_HZ:g} times a second',
    )
    parser.add_argument(
        '--stamps',
        type=Path,
        metavar='FILE',
        help='write what was sent, and new stamp → recorded stamp (ns), as JSON',
    )
    parser.add_argument(
        '--wait-for',
        nargs='+',
        metavar='TOPIC=N',
        help='subscribers to wait for before the start; default 1 for every topic played',
    )
    parser.add_argument(
        '--timeout', type=not_negative, default=30.0, metavar='S', help='seconds to wait for them'
    )


def run(args: argparse.Namespace) -> int:
    """Play; the stamps file is written also where playing was cut short."""
    check_output(args.stamps)
    remap = dict(_pair(text, ':=', '--remap') for text in args.remap)
    for name in remap.values():
        checked('--remap', topic, name)
    with ros_session('player') as session, Progress(f'playing {args.bag}') as progress:
        subscribers = None
        if args.wait_for is not None:
            pairs = (_pair(text, '=', '--wait-for') for text in args.wait_for)
            subscribers = {topic: _count(number) for topic, number in pairs}
        played = play(
            session,
            args.bag,
            topics=args.topics,
            remap=remap,
            new_stamps=args.new_stamps,
            clock_hz=args.clock,
            rate=args.rate,
            subscribers=subscribers,
            timeout=args.timeout,
            on_progress=lambda share, _: progress.share(share),
        )
        whole = session.running
    if args.stamps is not None:
        write_played(args.stamps, played)
    sent = ', '.join(f'{topic} {count}' for topic, count in played.sent.items())
    say(f'sent in {played.seconds:.1f} s: {sent}; at most {played.behind_ms:.1f} ms late')
    return 0 if whole else 130


def write_played(file: Path, played: Played) -> None:
    """Write what was sent, and the stamps as pairs [new, recorded]."""
    content = {
        'sent': played.sent,
        'seconds': played.seconds,
        'behind_ms': played.behind_ms,
        'stamps': [[new, old] for new, old in played.stamps.items()],
    }
    write_text(file, json.dumps(content))


def _pair(text: str, sign: str, option: str) -> tuple[str, str]:
    left, found, right = text.partition(sign)
    if not (left and found and right):
        raise UserError(f'{option}: {text!r} is not of the form NAME{sign}VALUE')
    return left, right


def _count(text: str) -> int:
    if not text.isdigit():
        raise UserError(f'--wait-for: {text!r} is no number of subscribers')
    return int(text)
