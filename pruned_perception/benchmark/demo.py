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

"""The demonstration: a simulated robot, live; then the same frames to the dense and a small model.

1. *live*: robot, perception node (dense), monitor and recorder, all at once.
2. *replay*, once per model: the recorded images at their recorded pace, restamped at publication,
   to a perception node, with the monitor beside it and no renderer.

Every part is a process of its own that talks over DDS. What is measured is what the monitor, an
outside subscriber, saw; the node's own stage times are joined to it by stamp.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruned_perception import __version__
from pruned_perception.benchmark.accuracy import accuracy, boxes_in_bag, boxes_in_records
from pruned_perception.benchmark.bag import bag_sha256, bag_topics, read_bag, stamp_of
from pruned_perception.benchmark.children import Child, Children
from pruned_perception.benchmark.environment import environment
from pruned_perception.benchmark.results import (
    Frames,
    last_totals,
    published_stamps,
    read_frames,
    run_section,
)
from pruned_perception.benchmark.session import private_domain
from pruned_perception.bundle import Bundle, Family, load_family, resolve_model
from pruned_perception.errors import UserError
from pruned_perception.nodes import transport
from pruned_perception.nodes.up import module_command, node_command

NAMESPACE = '/robot'
IMAGE, CAMERA_INFO = f'{NAMESPACE}/image_raw', f'{NAMESPACE}/camera_info'
GROUND_TRUTH, DETECTIONS = f'{NAMESPACE}/ground_truth', f'{NAMESPACE}/detections'
LIVE = 'live'
BAG, RAW, LATENCY = 'bag', 'raw', 'latency.json'
"""Names in the output folder."""

_RECORDED = 'recorded.json'
_LAST_WINDOW_S = 1.6  # the node's metrics and diagnostics come once a second
_BYTES_PER_SECOND = 640 * 480 * 3 * 30

Tell = Callable[[str, float | None, str], None]
"""Called with what goes on, the share of it that is done (None: not known) and a remark."""


@dataclass(frozen=True)
class Settings:
    """What to demonstrate, where to, and for how long.

    `robot` is the command of the simulated robot, without its ROS arguments; `start_timeout_s`
    how long to wait for the first detections.
    """

    output: Path
    model: str = 'package://pruned_perception/models/warehouse'
    member: str = ''  # compared with the dense one; '' = the smallest
    seconds: float = 30.0
    robot: Sequence[str] = tuple(module_command('nodes.simulated_robot'))
    start_timeout_s: float = 60.0


@dataclass(frozen=True)
class Run:
    """One run: its frames, and the published boxes by the recorded stamp (ns)."""

    frames: Frames
    boxes: dict[int, list[list[Any]]]


@dataclass(frozen=True)
class Demonstration:
    """What a demonstration left in its folder, for the summary and the report.

    `document` is the content of latency.json; `truth` the ground truth by stamp (ns).
    """

    folder: Path
    document: dict[str, Any]
    runs: dict[str, Run]
    truth: dict[int, list[list[Any]]]

    @property
    def replays(self) -> list[dict[str, Any]]:
        """Return the document's sections of the replays."""
        return [section for section in self.document['runs'] if section['name'] != LIVE]


def demonstrate(settings: Settings, tell: Tell) -> Demonstration:
    """Run everything; writes the bag, logs, raw records and latency.json to the output folder.

    Raises:
        UserError: the output folder cannot be written or the disk is too full, there is no such
            model, a process ended early, or detections did not arrive.
    """
    family = load_family(resolve_model(settings.model))
    dense = family.member()
    small = family.member(settings.member) if settings.member else family.in_float[-1]
    raw = _prepare(settings)
    bag = settings.output / BAG
    with Children(raw, _environment()) as children:
        stage = _Stage(settings, family, raw, children, tell)
        totals = {LIVE: stage.live(dense, bag)}
        for member in dict.fromkeys((dense.name, small.name)):
            totals[member] = stage.replay(family.member(member), bag)
    tell('accuracy against the ground truth', None, '')
    runs = {name: _read_run(raw, name) for name in totals}
    truth = boxes_in_bag(bag, GROUND_TRUTH)
    sections = []
    for name, run in runs.items():
        section = run_section(
            name,
            run.frames,
            totals[name],
            clock='system' if name == LIVE else 'restamped',
            description='renderer and recorder beside the node' if name == LIVE else 'no renderer',
            **(_sent_live(raw, bag) if name == LIVE else _sent_by_player(raw, name)),
        )
        # Replays are judged on the frames that all of them answered: the same for each.
        stamps = set(run.boxes).intersection(
            *(other.boxes for key, other in runs.items() if LIVE not in (name, key))
        )
        bundle = dense if name == LIVE else family.member(name)
        metrics = accuracy(
            truth,
            run.boxes,
            family.labels,
            score_threshold=bundle.thresholds.score,
            stamps=stamps,
        )
        sections.append({**section, 'accuracy': metrics.to_dict()})
    document = _document(settings, family, bag, sections)
    (settings.output / LATENCY).write_text(json.dumps(document, indent=2) + '\n')
    return Demonstration(settings.output, document, runs, truth)


def load_demonstration(folder: Path) -> Demonstration:
    """Read what `demonstrate` left in `folder`.

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        document = json.loads((folder / LATENCY).read_text())
        names = [section['name'] for section in document['runs']]
        runs = {name: _read_run(folder / RAW, name) for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f'{folder} holds no whole demonstration: {error}') from error
    return Demonstration(folder, document, runs, boxes_in_bag(folder / BAG, GROUND_TRUTH))


def _read_run(raw: Path, name: str) -> Run:
    records = raw / f'{name}.detections.jsonl'
    boxes = boxes_in_records(records)
    if name != LIVE:
        recorded = dict(_played(raw, name)['stamps'])
        boxes = {recorded[stamp]: each for stamp, each in boxes.items() if stamp in recorded}
    return Run(read_frames(records, raw / f'{name}.timings.jsonl'), boxes)


def _played(raw: Path, name: str) -> dict[str, Any]:
    played: dict[str, Any] = json.loads((raw / f'{name}.stamps.json').read_text())
    return played


def _sent_by_player(raw: Path, name: str) -> dict[str, Any]:
    played = _played(raw, name)
    return {
        'sent': played['sent'][IMAGE],
        'played_s': played['seconds'],
        'behind_ms': played['behind_ms'],
    }


def _sent_live(raw: Path, bag: Path) -> dict[str, Any]:
    """Count the frames from the first to the last published one: recorded, published, or both.

    Node and recorder meet the robot one after the other; this is where both were there.
    """
    published = published_stamps(raw / f'{LIVE}.timings.jsonl')
    recorded = {stamp_of(record.data) for record in read_bag(bag, [IMAGE])}
    first, last = min(published), max(published)
    return {'sent': len(published | {stamp for stamp in recorded if first <= stamp <= last})}


def _prepare(settings: Settings) -> Path:
    """Create the output folder and one for raw records and logs in it; remove an older bag."""
    raw = settings.output / RAW
    try:
        shutil.rmtree(raw, ignore_errors=True)
        raw.mkdir(parents=True)
        (settings.output / '.writable').touch()
        (settings.output / '.writable').unlink()
        shutil.rmtree(settings.output / BAG, ignore_errors=True)
        free = shutil.disk_usage(settings.output).free
    except OSError as error:
        raise UserError(
            f'cannot write to {settings.output}: {error.strerror}; give another --output'
        ) from error
    needed = int(settings.seconds * _BYTES_PER_SECOND)
    if free < needed:
        raise UserError(
            f'{settings.output} has {free >> 20} MiB free, and a bag of {settings.seconds:g} s can '
            f'take {needed >> 20} MiB: give another --output or fewer --seconds'
        )
    return raw


def _environment() -> dict[str, str]:
    """Return the environment of all processes: a ROS domain of their own on this machine only."""
    ours = {**os.environ, **private_domain()}
    ours.update(transport.environment(ours))
    ours['PYTHONUNBUFFERED'] = '1'
    root = str(Path(__file__).resolve().parents[2])
    ours['PYTHONPATH'] = os.pathsep.join(filter(None, [root, ours.get('PYTHONPATH')]))
    return ours


class _Stage:
    """Starts the processes of a run and collects what they wrote."""

    def __init__(
        self, settings: Settings, family: Family, raw: Path, children: Children, tell: Tell
    ) -> None:
        self._settings = settings
        self._family = family
        self._raw = raw
        self._children = children
        self._tell = tell

    def live(self, bundle: Bundle, bag: Path) -> dict[str, Any]:
        """Robot, node, monitor and recorder at once, while the bag is recorded."""
        title = f'live: simulated robot → {bundle.name}'
        self._tell(title, None, 'starting')
        topics = (IMAGE, CAMERA_INFO, GROUND_TRUTH, DETECTIONS)
        recorded = self._raw / _RECORDED
        recorder = self._cli('recorder', 'record', '-o', bag, '--json', *topics, out=recorded)
        monitor, node = self._monitor(LIVE), self._node(LIVE, bundle)
        robot = self._children.start(
            'robot', [*self._settings.robot, '--ros-args', '-r', f'__ns:={NAMESPACE}']
        )
        alive = (recorder, monitor, node, robot)
        self._wait_for_detections(LIVE, title, alive)
        self._watch(LIVE, title, self._settings.seconds, alive)
        self._children.stop(robot)
        self._watch(LIVE, title, _LAST_WINDOW_S, (recorder, monitor, node))
        self._children.stop(recorder, monitor)
        self._children.stop(node)
        present = bag_topics(bag)
        frames = present[IMAGE].count if IMAGE in present else 0
        if not frames or GROUND_TRUTH not in present:
            raise UserError(
                f'the recording has {frames} images and no ground truth:\n{recorder.last_lines()}'
            )
        return self._totals(LIVE)

    def replay(self, bundle: Bundle, bag: Path) -> dict[str, Any]:
        """Play the recorded images to a node of `bundle`, with new stamps."""
        title = f'replay → {bundle.name}'
        self._tell(title, None, 'starting')
        stamps = self._raw / f'{bundle.name}.stamps.json'
        monitor, node = self._monitor(bundle.name), self._node(bundle.name, bundle)
        player = self._cli(
            f'player-{bundle.name}',
            *('play', bag, '--topics', IMAGE, CAMERA_INFO, '--new-stamps', '--stamps', stamps),
            *(
                '--wait-for',
                f'{IMAGE}=1',
                f'{CAMERA_INFO}=1',
                '--timeout',
                str(self._settings.start_timeout_s),
            ),
        )
        expected = time.monotonic() + self._settings.seconds
        while player.alive:
            left = max(0.0, expected - time.monotonic()) / self._settings.seconds
            self._tell(title, 1 - left, self._last_line(bundle.name))
            time.sleep(0.25)
            monitor.require_alive()
            node.require_alive()
        if player.process.returncode:
            player.require_alive()
        self._watch(bundle.name, title, _LAST_WINDOW_S, (monitor, node))
        self._children.stop(monitor)
        self._children.stop(node)
        return self._totals(bundle.name)

    def _node(self, run: str, bundle: Bundle) -> Child:
        parameters = {
            'model': str(self._family.path),
            'member': bundle.name,
            'timings_file': str(self._timings(run)),
        }
        command = node_command('perception_node', NAMESPACE, parameters)
        return self._children.start(f'node-{run}', command)

    def _monitor(self, run: str) -> Child:
        return self._cli(
            f'monitor-{run}',
            *('monitor', NAMESPACE, '--json', '--records', self._records(run)),
            out=self._output(run),
        )

    def _cli(self, name: str, *arguments: str | Path, out: Path | None = None) -> Child:
        return self._children.start(name, [*module_command('cli.main'), *arguments], out)

    def _records(self, run: str) -> Path:
        return self._raw / f'{run}.detections.jsonl'

    def _timings(self, run: str) -> Path:
        return self._raw / f'{run}.timings.jsonl'

    def _output(self, run: str) -> Path:
        return self._raw / f'{run}.monitor.jsonl'

    def _wait_for_detections(self, run: str, title: str, alive: Sequence[Child]) -> None:
        end = time.monotonic() + self._settings.start_timeout_s
        while time.monotonic() < end:
            self._tell(title, None, self._last_line(run) or 'starting')
            for child in alive:
                child.require_alive()
            if (self._last_report(run) or {}).get('received'):
                return
            time.sleep(0.2)
        raise self._silence(run)

    def _watch(self, run: str, title: str, seconds: float, alive: Sequence[Child]) -> None:
        start = time.monotonic()
        while (gone := time.monotonic() - start) < seconds:
            self._tell(title, gone / seconds, self._last_line(run))
            for child in alive:
                child.require_alive()
            time.sleep(min(0.25, seconds - gone))

    def _last_report(self, run: str) -> dict[str, Any] | None:
        """Return the newest report of the monitor that is whole."""
        output = self._output(run)
        lines = output.read_bytes().splitlines(keepends=True) if output.exists() else []
        whole = [line for line in lines if line.endswith(b'\n')]
        reports = json.loads(whole[-1]).get('cameras') if whole else None
        return reports[0] if reports else None

    def _last_line(self, run: str) -> str:
        report = self._last_report(run)
        if report is None or not report['received']:
            return ''
        e2e = report['e2e_receive']
        latency = f', end to end p50 {e2e["p50"]:.1f} ms, p99 {e2e["p99"]:.1f} ms' if e2e else ''
        return f'{report["received"]} frames, {report["rate_out"]:.1f} Hz{latency}'

    def _silence(self, run: str) -> UserError:
        report = self._last_report(run) or {}
        reason = report.get('trouble') or 'the monitor saw none'
        return UserError(
            f'no detections arrived in the run "{run}": {reason} (logs and records: {self._raw})'
        )

    def _totals(self, run: str) -> dict[str, Any]:
        totals = last_totals(self._output(run), NAMESPACE)
        if not totals['received']:
            raise self._silence(run)
        return totals


def _engine_alone(member: Bundle, dense: str) -> dict[str, Any] | None:
    """Return what the manifest records of a run beside the dense member's, by turns on one thread.

    The median in ms, and how many times as fast; None where it records nothing.
    """
    for record in member.manifest['latency']:
        if record.get('compared_with') == dense and record.get('speedup'):
            return {'p50_ms': record['latency_ms']['p50'], 'speedup': record['speedup']}
    return None


def _document(
    settings: Settings, family: Family, bag: Path, sections: list[dict[str, Any]]
) -> dict[str, Any]:
    topics = bag_topics(bag)
    recorded = json.loads((settings.output / RAW / _RECORDED).read_text())['topics']
    return {
        'schema_version': 1,
        'created': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
        'tool': f'pruned_perception {__version__}',
        'command': 'pruned-perception demo',
        'environment': environment(),
        'configuration': {
            'seconds': settings.seconds,
            'threads': 1,
            'image': '640x480 rgb8',
            'transport': transport.user_settings(os.environ)
            or ('config/fastdds.xml' if transport.profile() else 'middleware default'),
            'measured_by': 'an outside subscriber (pruned-perception monitor)',
        },
        'input': {
            'bag_sha256': bag_sha256(bag),
            'topics': {topic.name: topic.count for topic in topics.values()},
            # By gaps in the publishers' sequence numbers; null where there are no such numbers.
            'lost_while_recording': {name: each['lost'] for name, each in recorded.items()},
        },
        'labels': list(family.labels),
        'models': [
            {
                'member': member.name,
                'onnx_sha256': member.sha256,
                'macs': member.cost.macs,
                'parameters': member.cost.parameters,
                'engine_alone': _engine_alone(member, family.member().name),
            }
            for member in family.members
            if any(section['name'] == member.name for section in sections)
        ],
        'runs': sections,
    }
