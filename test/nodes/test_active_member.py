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

"""A node that changes its model while it runs: by hand, by its budget, and by what fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('vision_msgs', reason='needs the interface packages')

from ros_harness import LATCHED, balanced, image_message, values
from std_msgs.msg import String
from stuck_networks import ALWAYS, failing_onnx, stuck_onnx
from tiny_detector import square_image, tiny_onnx, write_tiny_bundle
from vision_msgs.msg import LabelInfo

OK, WARN = 0, 1
NEVER, GENEROUS = 1e-6, 1e6  # budgets, ms

pytestmark = pytest.mark.ros


def red() -> np.ndarray:
    return square_image('red', 80, 40, 120)


def family(folder: Path, *, small: dict[str, Any], **dense: Any) -> Path:
    """Write a family of `dense` and `small`; the keywords are those of write_tiny_bundle."""
    first = write_tiny_bundle(folder / 'dense', name='dense', macs=2000, **dense)
    parent = {'name': first.name, 'sha256': first.sha256}
    write_tiny_bundle(folder / 'small', name='small', macs=1000, parent=parent, **small)
    return folder


def active(observer: Any) -> list[Any]:
    return observer.collect(String, 'perception_node/active_model', LATCHED)


def running(messages: list[Any]) -> str:
    return json.loads(messages[-1].data)['model'] if messages else ''


def detect_until(observer: Any, camera: Any, condition: Any, what: str) -> None:
    """Send images until `condition()` holds."""
    observer.wait(lambda: observer.detect(camera, image_message(red())) and condition(), what)


def test_a_member_is_pinned_by_hand_while_the_node_is_active(
    observer: Any, perception: Any, tiny_family: Path
) -> None:
    perception(model=str(tiny_family))
    models, camera = active(observer), observer.camera()
    detect_until(observer, camera, lambda: running(models) == 'dense', 'the dense one')
    assert not observer.set(active_member='huge').successful
    assert observer.set(active_member='small').successful
    detect_until(observer, camera, lambda: running(models) == 'small', 'the small one')
    since = json.loads(models[-1].data)['since']
    stamps = [each.header.stamp for each in observer.detections]
    assert since in [{'sec': each.sec, 'nanosec': each.nanosec} for each in stamps]
    observer.status('model', 'small is running', OK)
    for name in ('image_input', 'frames', 'latency', 'worker', 'settings'):
        observer.wait(lambda name=name: observer.value(name, 'model') == 'small', name)
    assert observer.set(active_member='').successful
    detect_until(observer, camera, lambda: running(models) == 'dense', 'the dense one again')


def test_every_report_says_how_many_results_which_member_made(
    observer: Any, perception: Any, tiny_family: Path
) -> None:
    perception(model=str(tiny_family))
    camera = observer.camera()
    for _ in range(3):
        observer.detect(camera, image_message(red()))
    observer.wait(
        lambda: any(
            values(e)['results_made_by'].startswith('dense ') for e in observer.history['frames']
        ),
        'the count',
    )


def test_another_bundle_takes_over_while_the_node_is_active(
    observer: Any, perception: Any, tmp_path: Path
) -> None:
    other = write_tiny_bundle(tmp_path / 'other', name='other', labels=['a', 'b', 'c'])
    perception(class_id_format='name')
    models, camera = active(observer), observer.camera()
    labels = observer.collect(LabelInfo, 'label_info', LATCHED)
    detect_until(observer, camera, lambda: running(models) == 'tiny', 'the first')
    assert observer.set(model=str(other.path)).successful
    detect_until(observer, camera, lambda: running(models) == 'other', 'the other')
    assert [each.class_name for each in labels[-1].class_map] == ['a', 'b', 'c']
    [detection] = observer.detect(camera, image_message(red())).detections
    assert detection.results[0].hypothesis.class_id == 'a'
    assert observer.state() == 'active'


def damaged(bundle: Path) -> None:
    file = bundle / 'model.onnx'
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize(
    ('onnx', 'harm', 'words'),
    [
        (None, damaged, 'altered: its SHA-256 is'),
        (tiny_onnx(scale=float('nan')), None, 'holds NaN or infinity'),
        (stuck_onnx(above=ALWAYS), None, 'within 2 s (load_limit_s)'),
        (stuck_onnx(above=ALWAYS, breakable=False), None, 'within 2 s (load_limit_s)'),
    ],
    ids=['damaged', 'nonsense', 'endless', 'unbreakable'],
)
def test_a_bad_bundle_does_not_take_over_and_the_old_one_goes_on(
    observer: Any,
    namespace: str,
    tiny_bundle: Any,
    tmp_path: Path,
    onnx: bytes | None,
    harm: Any,
    words: str,
) -> None:
    from ros_harness import NodeProcess

    unbreakable = onnx is not None and onnx == stuck_onnx(above=ALWAYS, breakable=False)
    bad = write_tiny_bundle(tmp_path / 'bad', name='bad', onnx=onnx)
    if harm is not None:
        harm(bad.path)
    given = {'model': tiny_bundle.path}
    process = NodeProcess(tmp_path / 'log', 'perception_node', namespace, given)
    try:
        models, camera = active(observer), observer.camera()
        detect_until(observer, camera, lambda: running(models) == 'tiny', 'the first')
        if 'load_limit_s' in words:
            assert observer.set(load_limit_s=2.0).successful
        assert observer.set(model=str(bad.path)).successful
        observer.status('model', 'tiny is running; the model is not changed: ', WARN)
        assert words in observer.statuses['model'].message
        for _ in range(5):
            assert observer.detect(camera, image_message(red())).detections
        assert observer.counts().get('error', 0) == 0
        assert running(models) == 'tiny'
        # Back to what runs: nothing is left of it, but for a thread that nothing can end.
        assert observer.set(model=str(tiny_bundle.path)).successful
        observer.history.clear()
        if unbreakable:
            observer.status('model', 'tiny is running; 1 that did not end was left behind', WARN)
        else:
            observer.status('model', 'tiny is running', OK)
        assert process.process.poll() is None
    finally:
        process.kill()


def test_under_a_budget_a_family_runs_its_most_accurate_member(
    observer: Any, perception: Any, tiny_family: Path
) -> None:
    perception(model=str(tiny_family), latency_budget_ms=GENEROUS)
    models, camera = active(observer), observer.camera()
    detect_until(observer, camera, lambda: running(models) == 'dense', 'the dense one')
    observer.status('contract', 'dense runs: the most accurate that keeps', OK)
    assert observer.set(active_member='small').successful  # at once: it is loaded
    detect_until(observer, camera, lambda: running(models) == 'small', 'the small one')
    observer.status('contract', 'small runs, as active_member says', OK)


def test_a_budget_that_no_member_keeps_is_said_and_the_fastest_runs(
    observer: Any, perception: Any, tiny_family: Path
) -> None:
    perception(model=str(tiny_family))
    models, camera = active(observer), observer.camera()
    detect_until(observer, camera, lambda: running(models) == 'dense', 'the dense one')
    assert observer.set(latency_budget_ms=NEVER).successful  # loads the family beside it
    words = 'no member keeps the budget of 1e-06 ms: the fastest'
    detect_until(
        observer,
        camera,
        lambda: any(words in each.message for each in observer.history['contract']),
        words,
    )
    assert observer.set(latency_budget_ms=0.0).successful
    detect_until(observer, camera, lambda: running(models) == 'dense', 'the dense one again')

    def alone() -> bool:
        """Tell whether a report has come, all of whose parts come at once, without a contract."""
        if 'contract' in observer.statuses:
            observer.statuses.clear()
        return 'frames' in observer.statuses

    detect_until(observer, camera, alone, 'one member alone')


def test_members_that_disagree_on_the_input_are_refused_by_name(
    observer: Any, perception: Any, tmp_path: Path
) -> None:
    from rcl_interfaces.msg import Log
    from tiny_detector import tiny_manifest

    logged = observer.collect(Log, '/rosout')
    bgr = {**tiny_manifest()['input'], 'color': 'bgr'}
    folder = family(tmp_path, small={'input': bgr, 'gain': 39.0})
    perception(model=str(folder), latency_budget_ms=30.0, autostart=False)
    assert not observer.transition('configure')
    words = 'field input: not that of dense, so that small cannot take its place'
    observer.wait(lambda: any(words in each.msg for each in logged), words)
    assert observer.set(latency_budget_ms=0.0).successful  # one alone is no trouble
    assert observer.transition('configure')


def test_members_that_disagree_on_labels_are_refused_by_name(
    observer: Any, perception: Any, tmp_path: Path
) -> None:
    from rcl_interfaces.msg import Log

    logged = observer.collect(Log, '/rosout')
    folder = family(tmp_path, small={'labels': ['a', 'b', 'c'], 'gain': 39.0})
    perception(model=str(folder), latency_budget_ms=30.0, autostart=False)
    assert not observer.transition('configure')
    words = 'small/manifest.json: field labels: not those of dense'
    observer.wait(lambda: any(words in each.msg for each in logged), words)


@pytest.mark.parametrize('budget', [0.0, GENEROUS], ids=['by hand', 'under a budget'])
def test_a_member_that_does_not_end_is_left_for_the_other(
    observer: Any, namespace: str, tmp_path: Path, budget: float
) -> None:
    from ros_harness import NodeProcess

    onnx = stuck_onnx(until=250.0)  # it ends on black, white and noise: the self-check passes
    folder = family(tmp_path / 'family', small={}, onnx=onnx)
    given = {'model': folder, 'latency_budget_ms': GENEROUS, 'frame_limit_s': 1.0}
    if not budget:
        given['active_member'] = 'dense'
    process = NodeProcess(tmp_path / 'log', 'perception_node', namespace, given)
    try:
        models, camera = active(observer), observer.camera()
        detect_until(observer, camera, lambda: running(models) == 'dense', 'the dense one')
        camera.publish(image_message(np.full((96, 128, 3), 230, np.uint8)))
        observer.status('contract', 'dense failed and is not used until', WARN)
        detect_until(observer, camera, lambda: running(models) == 'small', 'the small one')
        assert observer.counts()['error'] == 1
        assert balanced(observer.counts())
        assert process.stop() == 0
    finally:
        process.kill()


@pytest.mark.parametrize('crashes', [False, True], ids=['NaN', 'an error of the engine'])
def test_a_member_that_fails_on_images_is_left_for_the_other(tmp_path: Path, crashes: bool) -> None:
    from pruned_perception.bundle import load_family
    from pruned_perception.inference import FrameTimes, InferenceError
    from pruned_perception.nodes.parameters import PERCEPTION_PARAMETERS
    from pruned_perception.nodes.perception import DetectorPipeline

    folder = family(tmp_path, small={}, onnx=failing_onnx(crashes=crashes))
    given = {row.name: row.default for row in PERCEPTION_PARAMETERS}
    given |= {'classes': [''], 'latency_budget_ms': GENEROUS}
    pipeline = DetectorPipeline(load_family(folder).by_accuracy, given)
    pipeline.warm_up()
    assert pipeline.description['model'] == 'dense'
    bright = image_message(np.full((96, 128, 3), 230, np.uint8))
    for _ in range(2):
        with pytest.raises(InferenceError):
            pipeline.run(bright, FrameTimes())
    assert pipeline.run(bright, FrameTimes()).made_by['model'] == 'small'
    contract = pipeline.contract
    assert contract is not None
    assert contract.failures.keys() == {'dense'}


def test_a_deactivation_ends_what_was_being_loaded(
    observer: Any, perception: Any, tiny_bundle: Any, tmp_path: Path
) -> None:
    endless = write_tiny_bundle(tmp_path / 'bad', name='bad', onnx=stuck_onnx(above=ALWAYS))
    perception()
    observer.detect(observer.camera(), image_message(red()))
    assert observer.set(model=str(endless.path)).successful
    assert observer.transition('deactivate')
    assert observer.set(model=str(tiny_bundle.path)).successful
    assert observer.transition('activate')
    observer.status('worker', 'waiting for an image', OK)


def test_the_family_is_ordered_by_measured_accuracy(tmp_path: Path) -> None:
    from pruned_perception.bundle import load_family

    def evaluation(value: float) -> list[dict[str, Any]]:
        entry = {'annotations_sha256': 'ab', 'ap50_95': value}
        return [{**entry, 'net': 'member'}, {**entry, 'net': 'control', 'ap50_95': 0.99}]

    better = {'evaluation': evaluation(0.6), 'gain': 39.0}
    folder = family(tmp_path / 'a', small=better, evaluation=evaluation(0.5))
    assert [each.name for each in load_family(folder).by_accuracy] == ['small', 'dense']
    shutil.rmtree(folder)
    folder = family(tmp_path / 'a', small=better)  # not both were measured: by MACs
    assert [each.name for each in load_family(folder).by_accuracy] == ['dense', 'small']


@pytest.mark.parametrize('by', ['model', 'active_member'])
def test_changes_under_30_hz_mix_no_results_and_leave_none_out(
    context: Any, namespace: str, by: str
) -> None:
    """A short form of `python test/nodes/measure_swaps.py`."""
    from measure_swaps import measure

    found = measure(context, namespace, by=by, swaps=20)
    assert found.swaps == 20
    assert (found.out_of_order, found.mixed, found.counts['error']) == (0, 0, 0)
    assert found.results == found.counts['published']
    # On a busy machine an image may give way to a newer one, changes or not.
    assert found.counts['received'] == found.counts['published'] + found.counts['superseded']
