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

"""Frames compared with the dense net beside the node: evidence against a certificate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_detector import square_image
from watched_family import certificate, write_family

from pruned_perception.bundle import Bundle, load_member
from pruned_perception.errors import UserError
from pruned_perception.inference import Detector
from pruned_perception.inference.detections import Detections
from pruned_perception.inference.evidence import DriveEvidence, longest_sample
from pruned_perception.nodes import diagnostics, drive_log, shadow
from pruned_perception.nodes.shadow import Shadow, claim_of

OK, WARN = diagnostics.OK, diagnostics.WARN
AT_ONCE = 'import pruned_perception.nodes.shadow_process as p; p.be_idle = lambda: None; p.main()'
IMAGE = square_image('red', 80, 40, 120)


class Wall:
    """A clock that stands still until it is told to go on."""

    now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    clock = Wall()
    monkeypatch.setattr(drive_log, 'wall_seconds', clock)
    return clock


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the dense net run at ordinary priority: here others may want every processor."""
    monkeypatch.setattr(shadow, 'COMMAND', (sys.executable, '-c', AT_ONCE))


@pytest.fixture
def family(tmp_path: Path) -> Path:
    return write_family(tmp_path / 'family')


@contextmanager
def driving(member: Bundle, file: Path | str, share: float = 1.0) -> Iterator[Callable[[], Shadow]]:
    """Yield a function that drives past one image and returns the shadow."""
    watching = Shadow(member, share, str(file))
    detections, _ = Detector(member).detect(IMAGE, 'rgb')

    def past() -> Shadow:
        before = watching.state().compared
        watching.offer(IMAGE, 'rgb', detections, watching.claim.settings, hurried=False)
        end = time.monotonic() + 120
        while watching.state().compared == before:
            assert time.monotonic() < end, watching.state()
            time.sleep(0.01)
        return watching

    watching.start()
    try:
        yield past
    finally:
        watching.stop()


def test_evidence_grows_over_drives_and_alarms(family: Path, wall: Wall) -> None:
    values = []
    with driving(load_member(family, 'bad'), '') as past:
        for _ in range(4):
            watching = past()
            assert (watching.state().events, watching.state().counts) == (1, 1)
            wall.now += drive_log.GAP_S + 1
            found = watching.state().evidence
            assert found is not None
            values.append(found.value)
        status = diagnostics.watch(watching.state())
    assert values == sorted(values)
    assert values[0] < 100 < values[-1]
    assert status.level == WARN
    assert status.message.startswith('evidence against the certificate: ')
    assert 'of 100 needed (4 drives' in status.message
    assert 'ALARM' in status.message
    assert 'take a larger member' in status.message


def test_a_member_that_shows_the_same_gives_none(family: Path, wall: Wall) -> None:
    with driving(load_member(family, 'good'), '') as past:
        for _ in range(5):
            watching = past()
            wall.now += drive_log.GAP_S + 1
        status = diagnostics.watch(watching.state())
    assert status.level == OK
    assert status.values['evidence'] < 1
    assert status.values['drives'] == 5


def test_the_file_goes_on_across_starts_within_a_drive_and_beyond(
    family: Path, wall: Wall, tmp_path: Path
) -> None:
    bad, file = load_member(family, 'bad'), tmp_path / 'made' / 'evidence.json'
    for pause, drives, counts in ((10, 0, 1), (10, 0, 2), (1e5, 0, 3), (-1e6, 1, 1), (0, 2, 1)):
        with driving(bad, file) as past:
            state = past().state()
            assert state.evidence is not None
            assert (state.evidence.drives, state.counts) == (drives, counts)
        wall.now += pause
    assert [each.name for each in file.parent.iterdir()] == ['evidence.json']


def test_other_edited_and_damaged_files_are_refused_and_stay(
    family: Path, tmp_path: Path, wall: Wall
) -> None:
    good, bad = load_member(family, 'good'), load_member(family, 'bad')
    file = tmp_path / 'evidence.json'
    with driving(bad, file) as past:
        past()
    text = file.read_text()

    def refused(content: str, words: str, member: Bundle = bad) -> None:
        file.write_text(content)
        with pytest.raises(UserError, match=words):
            Shadow(member, 1.0, str(file))
        assert file.read_text() == content

    refused(text, 'another test: certificate', good)
    refused(text[:-40], 'cut off')
    refused('', 'cut off')
    refused('[]', 'not evidence')
    refused('{}', 'edited')
    edited = json.loads(text)
    edited['drive']['events'] = 0
    refused(json.dumps(edited), 'edited')
    with pytest.raises(UserError, match='not a file'):
        Shadow(bad, 1.0, str(tmp_path))
    file.write_text(text)
    Shadow(bad, 1.0, str(file))


def test_a_file_that_another_process_writes_to_is_left_to_it(
    family: Path, tmp_path: Path, wall: Wall
) -> None:
    file = tmp_path / 'evidence.json'
    with driving(load_member(family, 'bad'), file) as past:
        past()
        file.write_text('{"mine": 1}')
        watching = past()
    assert file.read_text() == '{"mine": 1}'
    status = diagnostics.watch(watching.state())
    assert status.level == WARN
    assert 'another process' in status.message


def test_what_cannot_be_watched_says_why(family: Path, tmp_path: Path) -> None:
    dense, bad = load_member(family), load_member(family, 'bad')

    def refused(words: str, bundle: Bundle) -> None:
        with pytest.raises(UserError, match=words):
            Shadow(bundle, 1.0, '')

    def with_certificate(data: Any) -> Bundle:
        return replace(bad, manifest={**bad.manifest, 'certificate': data})

    refused('is the dense net itself', dense)
    refused('has no certificate', with_certificate(None))
    refused('earlier kind', with_certificate({'changed': {'bound': 0.1}}))
    refused('no detections that are lost', with_certificate(certificate(dense, bad, kind='added')))
    refused('of other networks', with_certificate(certificate(dense, dense)))
    refused('which networks and thresholds', with_certificate({
        **certificate(dense, bad), 'record': {},
    }))  # fmt: skip
    alone = Path(shutil.copytree(bad.path, tmp_path / 'alone' / 'bad'))
    refused('dense, the parent of bad, cannot be loaded .*: keep both folders', load_member(alone))
    claim = claim_of(bad)
    assert claim.bound == bad.manifest['certificate']['statements']['lost']['bound']
    assert claim.settings.score_threshold == 0.5


def test_frames_are_left_out_that_are_hurried_not_drawn_or_not_as_certified(
    family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = load_member(family, 'bad')
    watching = Shadow(bad, 0.5, '')
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, int))
    settings, asked = watching.claim.settings, []
    monkeypatch.setattr(watching, '_ask', lambda *frame: asked.append(frame) or (0, 1))
    draws = iter([0.6, 0.4, 0.4, 0.4])
    monkeypatch.setattr(watching._random, 'random', lambda: next(draws))
    watching.offer(IMAGE, 'rgb', nothing, settings, False)  # not drawn
    watching.offer(IMAGE, 'rgb', nothing, settings, True)  # a newer one waits
    watching.offer(IMAGE, 'rgb', nothing, settings, False)
    watching.offer(IMAGE, 'rgb', nothing, settings, False)  # the last one is in hand
    assert watching.state().skipped == 2
    watching.offer(IMAGE, 'rgb', nothing, replace(settings, score_threshold=0.7), False)
    assert 'score_threshold 0.7' in watching.state().trouble
    assert watching._frames.qsize() == 1


def test_the_dense_nets_process_takes_idle_time_only() -> None:
    code = (
        'import os; from pruned_perception.nodes.shadow_process import be_idle; be_idle(); '
        'print(os.nice(0), os.sched_getscheduler(0) == os.SCHED_IDLE)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ['19', 'True']


def test_a_dense_net_that_fails_is_named_and_ends_nothing(family: Path, wall: Wall) -> None:
    bad = load_member(family, 'bad')
    watching = Shadow(bad, 1.0, '')
    (family / 'dense' / 'model.onnx').write_bytes(b'altered')
    watching.start()
    detections, _ = Detector(bad).detect(IMAGE, 'rgb')
    watching.offer(IMAGE, 'rgb', detections, watching.claim.settings, False)
    end = time.monotonic() + 120
    while not watching.state().trouble and time.monotonic() < end:
        time.sleep(0.01)
    watching.offer(IMAGE, 'rgb', detections, watching.claim.settings, False)
    assert watching.state().skipped == 1  # not a process for every frame
    watching.stop()
    assert 'the dense net fails' in watching.state().trouble
    assert 'fetch the bundle again' in watching.state().trouble


def test_objects_come_several_at_once() -> None:
    rng = np.random.default_rng(0)
    sizes = 20 * rng.binomial(900, 0.02, 100_000)
    assert sizes.max() <= longest_sample(18_000, 0.02, together=20)
    assert sizes.max() > longest_sample(18_000, 0.02)


def test_evidence_that_cannot_be_gathered_is_a_warning() -> None:
    status = diagnostics.watch(diagnostics.Watch(None, trouble='no family'))
    assert (status.level, status.message) == (
        WARN,
        'the certificate cannot be watched: no family',
    )
    fine = diagnostics.watch(diagnostics.Watch(DriveEvidence('a', 0.1, 10)))
    assert fine.level == OK
    assert fine.message.startswith('evidence against the certificate: 1.0 of 100 needed')


@pytest.mark.ros
def test_the_node_watches_and_keeps_the_evidence(
    observer: Any, perception: Any, family: Path, tmp_path: Path, wall: Wall
) -> None:
    from ros_harness import image_message

    file = tmp_path / 'evidence.json'
    perception(model=str(family), member='bad', watch_share=1.0, watch_file=str(file))
    camera = observer.camera()
    observer.detect(camera, image_message(IMAGE))
    observer.wait(lambda: observer.value('watch', 'drive_lost') == '1', 'the comparison')
    observer.status('watch', 'evidence against the certificate: 1.0 of 100 needed', OK)
    assert observer.transition('deactivate')
    assert json.loads(file.read_text())['drive']['events'] == 1
    wall.now += drive_log.GAP_S + 1
    assert observer.transition('activate')
    observer.status('watch', '(1 drive, 100.0% of 1', OK)
    observer.wait(camera.get_subscription_count, 'the subscription')
    observer.detect(camera, image_message(IMAGE))
    observer.wait(lambda: observer.value('watch', 'compared_frames') == '2', 'the comparison')


@pytest.mark.ros
def test_a_node_that_cannot_watch_says_so_and_detects(
    observer: Any, perception: Any, tiny_bundle: Bundle
) -> None:
    from ros_harness import image_message

    perception(watch_share=0.02)
    observer.status('watch', 'cannot be watched', WARN)
    assert observer.detect(observer.camera(), image_message(IMAGE)).detections


@pytest.mark.ros
def test_without_a_share_nothing_is_loaded(
    observer: Any, perception: Any, family: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ros_harness import image_message

    monkeypatch.setattr(shadow, 'Shadow', None)  # would fail
    shutil.rmtree(family / 'dense')
    node = perception(model=str(family / 'bad'))
    observer.detect(observer.camera(), image_message(IMAGE))
    observer.status('settings', 'all classes')
    assert 'watch' not in observer.statuses
    assert node._pipeline.watch is None
