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

"""`pruned-perception monitor`: rates, stages, end-to-end latency, drops and loss, live."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from pruned_perception._tables import UNKNOWN as _UNKNOWN
from pruned_perception._tables import Table, printable
from pruned_perception.benchmark.monitor import COUNT_BY, Monitor, Names, Report
from pruned_perception.benchmark.session import ros_session
from pruned_perception.cli.arguments import namespace, positive, topic
from pruned_perception.cli.output import say
from pruned_perception.errors import UserError
from pruned_perception.inference.latency import QUANTITIES

_PERCENTILES = ('p50', 'p90', 'p99')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'namespaces',
        nargs='*',
        type=namespace,
        metavar='NAMESPACE',
        help='cameras to watch, e.g. /front (default: all that appear; / is the root)',
    )
    parser.add_argument('--duration', type=positive, metavar='S', help='seconds (until Ctrl-C)')
    parser.add_argument(
        '--interval', type=positive, default=1.0, metavar='S', help='seconds between two updates'
    )
    parser.add_argument(
        '--window', type=positive, default=10.0, metavar='S', help='seconds that figures go over'
    )
    parser.add_argument(
        '--count',
        choices=COUNT_BY,
        default='camera_info',
        help='what to count sent frames by; image receives every image, which costs a copy',
    )
    parser.add_argument(
        '--detections', type=topic, default=Names.detections, help='name of the detections'
    )
    parser.add_argument('--image', type=topic, default=Names.image, help='name of the images')
    parser.add_argument(
        '--camera-info', type=topic, default=Names.camera_info, help='name of the camera_info'
    )
    parser.add_argument('--enclave', default='', help='security enclave (docs/security.md)')
    parser.add_argument('--use-sim-time', action='store_true', help='ages by /clock')
    parser.add_argument(
        '--json', action='store_true', help='one JSON object a line and update, the totals last'
    )
    parser.add_argument(
        '--records', type=Path, metavar='FILE', help='write every message of detections as JSON'
    )


def run(args: argparse.Namespace) -> int:
    """Watch; 1 where `--duration` ended and a camera had sent no detections."""
    if not (args.interval > 0 and args.window > 0):
        raise UserError('--interval and --window must be above 0')
    with contextlib.ExitStack() as stack:
        records = _open(args.records, stack)
        session = stack.enter_context(
            ros_session('perception_monitor', use_sim_time=args.use_sim_time, enclave=args.enclave)
        )
        names = Names(args.detections, args.image, args.camera_info)
        monitor = Monitor(
            session, args.namespaces, names=names, count_by=args.count, records=records
        )
        view = _view(args.json, stack)
        end = None if args.duration is None else time.monotonic() + args.duration
        while session.running and (end is None or time.monotonic() < end):
            left = args.interval if end is None else min(args.interval, end - time.monotonic())
            monitor.spin(left)
            view.update(monitor.reports(args.window), monitor)
        view.finish(monitor.totals(), monitor)
        silent = not monitor.cameras or any(
            camera.received.count == 0 for camera in monitor.cameras.values()
        )
    return 1 if silent and args.duration is not None else 0


def _open(file: Path | None, stack: contextlib.ExitStack) -> IO[str] | None:
    if file is None:
        return None
    try:
        return stack.enter_context(file.open('w'))
    except OSError as error:
        raise UserError(f'cannot write {file}: {error.strerror}') from error


def _view(as_json: bool, stack: contextlib.ExitStack) -> Any:
    if as_json:
        return _Json()
    if sys.stdout.isatty():
        return _Table(stack)
    return _Lines()


class _Json:
    """One object a line: {"time", "cameras": [...]}, at last {"time", "totals": [...]}."""

    def update(self, reports: Sequence[Report], monitor: Monitor) -> None:
        self._print('cameras', reports, monitor)

    def finish(self, reports: Sequence[Report], monitor: Monitor) -> None:
        self._print('totals', reports, monitor)

    def _print(self, key: str, reports: Sequence[Report], monitor: Monitor) -> None:
        line: dict[str, Any] = {'time': time.time(), key: [asdict(each) for each in reports]}
        if not reports:
            line['trouble'] = monitor.nothing
        print(json.dumps(line), flush=True)


class _Lines:
    """A line a camera and update, for logs and pipes."""

    def update(self, reports: Sequence[Report], monitor: Monitor) -> None:
        for line in [describe(each) for each in reports] or [monitor.nothing]:
            say(line)

    def finish(self, reports: Sequence[Report], monitor: Monitor) -> None:
        for each in reports:
            say(f'in all: {describe(each)}')


class _Table:
    """A table that stays in place on a terminal, a column a camera."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = stack.enter_context(
            Live(console=Console(), auto_refresh=False, vertical_overflow='visible')
        )

    def update(self, reports: Sequence[Report], monitor: Monitor) -> None:
        self._live.update(table(reports, monitor.nothing if not reports else None), refresh=True)

    finish = update


def describe(report: Report) -> str:
    """Return one line on a camera."""
    parts = [report.namespace]
    if report.model:
        parts.append(report.model)
    parts.append(f'in {_rate(report.rate_in)} out {_rate(report.rate_out)} Hz')
    if (e2e := report.e2e_receive) is not None:
        parts.append(f'e2e p50 {e2e.p50:.1f} p90 {e2e.p90:.1f} p99 {e2e.p99:.1f} ms ({e2e.n})')
    if 'inference' in report.stages:
        parts.append(f'inference p50 {report.stages["inference"]["p50"]:.1f} ms')
    if report.drops is not None:
        parts.append('dropped ' + _drops(report.drops))
    parts.append(f'lost in {_count(report.loss_in)} out {_count(report.loss_out)}')
    if report.lost_on_the_way:
        parts.append(f'{report.lost_on_the_way} lost by the middleware before the node')
    if report.invalid_stamps:
        parts.append(f'{report.invalid_stamps} invalid stamps')
    if report.watch:
        parts.append(report.watch)
    if report.status is not None and report.status[0] != 'OK' and report.status[1] != report.watch:
        parts.append(f'{report.status[0]}: {report.status[1]}')
    if report.trouble:
        parts.append(f'NOTHING ARRIVES: {report.trouble}')
    return printable(' · '.join(parts))


def table(reports: Sequence[Report], nothing: str | None = None) -> Any:
    """Return what rich shows: a column a camera, or what is waited for."""
    from rich.text import Text

    if nothing is not None:
        return Text(printable(f'waiting: {nothing}'), style='yellow')
    states = [report.status or (_UNKNOWN, '') for report in reports]
    good = all(level in ('OK', _UNKNOWN) for level, _ in states)
    rows: list[Sequence[object]] = [
        ['model', *(report.model or None for report in reports)],
        ['in → out, Hz', *(f'{_rate(r.rate_in)} → {_rate(r.rate_out)}' for r in reports)],
        ['ms (p50 / p90 / p99)'],
        ['end to end, received here', *(_summary(r) for r in reports)],
        *(
            [quantity, *(_stage(r, quantity) for r in reports)]
            for quantity in QUANTITIES
            if any(quantity in report.stages for report in reports)
        ),
        [],
        ['frames sent', *(r.sent for r in reports)],
        ['detections received', *(r.received for r in reports)],
        ['dropped', *(None if r.drops is None else _drops(r.drops) for r in reports)],
        ['lost after the node', *(r.loss_out for r in reports)],
        ['lost before the node', *(r.loss_in for r in reports)],
    ]
    if any(report.lost_on_the_way for report in reports):
        rows.append(['… by the middleware', *(r.lost_on_the_way for r in reports)])
    if any(report.invalid_stamps for report in reports):
        rows.append(['invalid stamps', *(r.invalid_stamps for r in reports)])
    rows += [[], ['node', *(f'{level} {text}' for level, text in states)]]
    if any(report.watch for report in reports):
        rows.append(['certificate', *(r.watch or '' for r in reports)])
    if any(report.trouble for report in reports):
        rows.append(['nothing arrives', *(r.trouble or '' for r in reports)])
    content = Table([('', ''), *((report.namespace, 'd') for report in reports)], rows)
    return content.to_rich(
        {**_STYLES, 'node': 'green' if good else 'yellow'},
        title='perception',
        title_justify='left',
        caption=_CAPTION,
        caption_justify='left',
    )


_STYLES = {
    'model': 'bold',
    'end to end, received here': 'bold',
    'invalid stamps': 'yellow',
    'nothing arrives': 'red',
}
_CAPTION = 'stages: the node’s own; end to end: header stamp → here; Ctrl-C ends'


def _summary(report: Report) -> str:
    e2e = report.e2e_receive
    return _UNKNOWN if e2e is None else f'{e2e.p50:.1f} / {e2e.p90:.1f} / {e2e.p99:.1f}'


def _stage(report: Report, quantity: str) -> str:
    values = report.stages.get(quantity)
    if values is None:
        return _UNKNOWN
    return ' / '.join(f'{values[p]:.2f}' if p in values else _UNKNOWN for p in _PERCENTILES)


def _drops(drops: dict[str, int]) -> str:
    counted = [f'{count} {reason}' for reason, count in drops.items() if count]
    return ', '.join(counted) or '0'


def _rate(value: float | None) -> str:
    return _UNKNOWN if value is None else f'{value:.1f}'


def _count(value: int | None) -> str:
    return _UNKNOWN if value is None else str(value)
