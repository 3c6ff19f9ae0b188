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

"""`pruned-perception record`: topics into a rosbag2 folder, also where there is no ros2 bag."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from pruned_perception.benchmark.recorder import Recorder, record
from pruned_perception.benchmark.session import ros_session
from pruned_perception.cli.arguments import positive, topic
from pruned_perception.cli.output import say
from pruned_perception.cli.progress import Progress
from pruned_perception.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('topics', nargs='+', type=topic, metavar='TOPIC', help='topics to record')
    parser.add_argument(
        '-o', '--output', type=Path, required=True, help='folder of the new bag (MCAP storage)'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace a bag that is there')
    parser.add_argument(
        '--duration',
        type=positive,
        metavar='S',
        help='seconds from the first message (until Ctrl-C)',
    )
    parser.add_argument('--json', action='store_true', help='print what was recorded as JSON')


def run(args: argparse.Namespace) -> int:
    """Record; 1 where a topic stayed silent."""
    with ros_session('recorder') as session, Progress(f'recording {args.output}') as progress:

        def show(recorder: Recorder) -> None:
            count = sum(each.count for each in recorder.received.values())
            waiting = recorder.waiting_for
            progress.text(
                f'{count} messages' + (f', no publisher yet: {", ".join(waiting)}' * bool(waiting))
            )

        received = record(
            session,
            args.output,
            args.topics,
            duration=args.duration,
            overwrite=args.overwrite,
            on_progress=show,
        )
    silent = [topic for topic, each in received.items() if not each.count]
    if args.json:
        topics = {topic: {'count': r.count, 'lost': r.lost} for topic, r in received.items()}
        print(json.dumps({'bag': str(args.output), 'topics': topics}))
    else:
        for topic, each in received.items():
            lost = 'loss not known' if each.lost is None else f'{each.lost} lost'
            say(f'{topic}: {each.count} messages, {lost}')
    if len(silent) == len(received):
        raise UserError(f'nothing arrived on {", ".join(silent)}')
    if silent:
        say(f'nothing arrived on {", ".join(silent)}', file=sys.stderr)
    return 1 if silent else 0
