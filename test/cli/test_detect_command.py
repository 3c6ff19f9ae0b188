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

"""`pruned-perception detect`, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from stuck_networks import write_stuck_bundle
from tiny_detector import square_image, write_tiny_bundle

from pruned_perception.cli.main import main
from pruned_perception.inference import cameras

FIELDS = ['source', 'index', 'stamp', 'width', 'height', 'detections', 'timings_ms']
FIELDS += ['execution_provider', 'nodes', 'passed_over']


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Return a folder of two images, one in a sub-folder: a red square and nothing."""
    folder = tmp_path / 'pictures'
    (folder / 'sub').mkdir(parents=True)
    square = square_image('red', left=200, top=160, side=120)[..., ::-1]
    assert cv2.imwrite(str(folder / 'a.png'), square)
    assert cv2.imwrite(str(folder / 'sub' / 'b.png'), np.zeros((240, 320, 3), np.uint8))
    return folder


def detect(source, bundle, *options) -> int:
    return main(['detect', str(source), '--model', str(bundle.path), *map(str, options)])


def json_lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_is_one_object_a_frame_with_exactly_these_fields(pictures, tiny_bundle, capsys):
    assert detect(pictures, tiny_bundle, '--json') == 0
    captured = capsys.readouterr()
    first, second = json_lines(captured.out)
    assert list(first) == list(second) == FIELDS
    assert first['source'] == str(pictures / 'a.png')
    assert (first['index'], first['stamp']) == (0, None)
    assert (first['width'], first['height']) == (640, 480)
    (found,) = first['detections']
    assert list(found) == ['label', 'class_id', 'score', 'bbox']
    assert (found['label'], found['class_id']) == ('red', 0)
    assert found['score'] == pytest.approx(0.98, abs=0.01)
    assert found['bbox'] == pytest.approx([200, 160, 120, 120], abs=0.1)
    assert list(first['timings_ms']) == ['preprocess', 'inference', 'postprocess']
    assert all(value > 0 for value in first['timings_ms'].values())
    assert first['execution_provider'] == 'cpu'
    assert first['nodes'] is None or first['nodes']['cpu'] > 1  # before ONNX Runtime 1.24: None
    assert second['source'] == str(pictures / 'sub' / 'b.png')
    assert (second['width'], second['height'], second['detections']) == (320, 240, [])
    assert captured.err == ''


def test_without_json_there_is_a_line_a_frame_and_a_summary(pictures, tiny_bundle, capsys):
    assert detect(pictures, tiny_bundle) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f'{pictures / "a.png"} #0  640×480')
    assert lines[0].endswith('red 0.98 at (200, 160) 120×120')
    assert lines[1].endswith('nothing found')
    assert lines[2] == '2 frames, 1 detections: 1 red'
    assert [line.split()[0] for line in lines[3:6]] == ['preprocess', 'inference', 'postprocess']
    assert lines[6].split()[:2] == ['execution', 'cpu']


def test_an_execution_provider_that_is_not_there_is_refused(pictures, tiny_bundle, capsys):
    assert detect(pictures, tiny_bundle, '--execution-provider', 'cuda') == 1
    error = capsys.readouterr().err
    assert 'cuda: not there' in error
    assert 'name it last: cuda, cpu' in error


def test_where_it_runs_is_said_where_it_is_not_what_was_asked_for(pictures, tiny_bundle, capsys):
    assert detect(pictures, tiny_bundle, '--execution-provider', 'cuda, cpu') == 0
    assert 'tiny: execution provider cpu in place of cuda: not there' in capsys.readouterr().err


def test_the_score_threshold_is_the_users(pictures, tiny_bundle, capsys):
    assert detect(pictures, tiny_bundle, '--json', '--score-threshold', 0.99) == 0
    assert [line['detections'] for line in json_lines(capsys.readouterr().out)] == [[], []]


@pytest.mark.parametrize('value', ['1.5', '-0.1', 'nan', 'high'])
def test_a_score_threshold_out_of_range_is_refused(pictures, tiny_bundle, capsys, value):
    with pytest.raises(SystemExit) as stop:
        detect(pictures, tiny_bundle, f'--score-threshold={value}')
    assert stop.value.code == 2
    assert '--score-threshold' in capsys.readouterr().err


def test_a_damaged_image_is_reported_counted_and_the_others_go_on(pictures, tiny_bundle, capsys):
    (pictures / 'a0.jpg').write_bytes(b'nonsense')
    assert detect(pictures, tiny_bundle, '--json') == 1
    captured = capsys.readouterr()
    assert [line['index'] for line in json_lines(captured.out)] == [0, 2]
    reported, counted = captured.err.splitlines()
    assert str(pictures / 'a0.jpg') in reported
    assert counted == '1 of 3 frames not used'


def test_annotated_frames_lie_as_the_images_do(pictures, tiny_bundle, tmp_path, capsys):
    out = tmp_path / 'out' / 'annotated'
    assert detect(pictures, tiny_bundle, '--annotate', out) == 0
    files = sorted(str(file.relative_to(out)) for file in out.rglob('*') if file.is_file())
    assert files == ['a.png.png', 'sub/b.png.png']
    before, after = (cv2.imread(str(file)) for file in (pictures / 'a.png', out / 'a.png.png'))
    assert after.shape == before.shape
    changed = np.argwhere((before != after).any(axis=2))
    assert len(changed) > 0
    # The box's outline, and its label above it.
    assert (changed.min(axis=0) >= [130, 195]).all()
    assert (changed.max(axis=0) <= [285, 330]).all()


def test_one_image_is_annotated_too(pictures, tiny_bundle, tmp_path, capsys):
    assert detect(pictures / 'a.png', tiny_bundle, '--annotate', tmp_path / 'out') == 0
    assert [file.name for file in (tmp_path / 'out').iterdir()] == ['a.png.png']


def test_annotations_never_go_among_the_images(pictures, tiny_bundle, capsys):
    assert detect(pictures, tiny_bundle, '--annotate', pictures / 'out') == 1
    assert 'give another folder' in capsys.readouterr().err
    assert not (pictures / 'out').exists()


def test_an_unwritable_folder_is_named(pictures, tiny_bundle, tmp_path, capsys):
    (tmp_path / 'file').write_text('in the way')
    assert detect(pictures, tiny_bundle, '--annotate', tmp_path / 'file' / 'out') == 1
    assert f'--annotate {tmp_path / "file" / "out"}: ' in capsys.readouterr().err


def test_a_member_of_a_family_is_chosen(pictures, tiny_family, capsys):
    arguments = ['detect', str(pictures), '--model', str(tiny_family), '--json', '--member']
    scores = {}
    for member in ('dense', 'small'):
        assert main([*arguments, member]) == 0
        first = json_lines(capsys.readouterr().out)[0]
        scores[member] = first['detections'][0]['score']
    assert scores['dense'] > scores['small'] + 0.01
    assert main([*arguments, 'huge']) == 1
    assert "no member 'huge' in this family; it has dense, small" in capsys.readouterr().err


@pytest.mark.parametrize(
    ('model', 'message'),
    [('nowhere', 'nowhere: no such bundle'), ('package://other/x', 'sourced?')],
)
def test_a_missing_model_is_one_line_without_a_traceback(pictures, capsys, model, message):
    assert main(['detect', str(pictures), '--model', model]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('pruned-perception: error: ')
    assert message in line


def test_a_bar_on_a_terminal_leaves_standard_output_alone(pictures, tiny_bundle):
    pty = pytest.importorskip('pty')
    leader, follower = pty.openpty()
    code = 'import sys; from pruned_perception.cli.main import main; sys.exit(main(sys.argv[1:]))'
    command = [sys.executable, '-c', code, 'detect', str(pictures), '--json']
    process = subprocess.Popen(
        [*command, '--model', str(tiny_bundle.path)],
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**os.environ, 'TERM': 'xterm'},
        text=True,
    )
    os.close(follower)
    out, _ = process.communicate(timeout=60)
    shown = b''
    try:
        while chunk := os.read(leader, 4096):
            shown += chunk
    except OSError:  # the other end is closed: all was read
        pass
    os.close(leader)
    assert process.returncode == 0
    assert [line['index'] for line in json_lines(out)] == [0, 1]
    assert b'detecting in' in shown


def test_without_a_terminal_the_library_of_the_bar_is_not_loaded(pictures, tiny_bundle):
    code = (
        'import sys\nfrom pruned_perception.cli.main import main\nmain(sys.argv[1:])\n'
        'print([name for name in ("rich", "torch", "rclpy") if name in sys.modules])\n'
    )
    command = [sys.executable, '-c', code, 'detect', str(pictures), '--json']
    done = subprocess.run(
        [*command, '--model', str(tiny_bundle.path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ''
    assert done.stdout.splitlines()[-1] == '[]'


@pytest.mark.shared_data
def test_a_real_robots_bag_and_folder_go_through(shared_data, tiny_bundle, tmp_path, capsys):
    pytest.importorskip('rosbags', reason='reading bags needs rosbags')
    bag = shared_data / 'bags' / 'ubiquity_aruco_images_ros2_mcap'
    assert detect(bag, tiny_bundle, '--json', '--annotate', tmp_path / 'out') == 0
    (line,) = json_lines(capsys.readouterr().out)
    assert (line['width'], line['height']) == (1280, 960)
    assert line['stamp'] == pytest.approx(1491682360.314, abs=0.001)
    assert [file.name for file in (tmp_path / 'out').iterdir()] == [f'{bag.name}_000000.png']

    assert detect(shared_data / 'robocup_msl', tiny_bundle, '--json') == 0
    lines = json_lines(capsys.readouterr().out)
    assert len(lines) == 508
    assert {(line['width'], line['height']) for line in lines} == {(608, 800)}


def test_a_frame_on_which_the_network_fails_does_not_stop_the_others(
    pictures, tiny_bundle, capsys, monkeypatch
):
    """As a NaN of one frame does."""
    from pruned_perception.inference.detector import Detector, InferenceError

    detect_all = Detector.detect

    def fails_on_the_first(self, image, *arguments):
        if image.shape[0] == 480:
            raise InferenceError("model.onnx: output 'predictions' holds NaN or infinity")
        return detect_all(self, image, *arguments)

    monkeypatch.setattr(Detector, 'detect', fails_on_the_first)
    assert detect(pictures, tiny_bundle, '--json') == 1
    captured = capsys.readouterr()
    (line,) = json_lines(captured.out)
    assert line['source'].endswith('b.png')
    assert 'holds NaN' in captured.err
    assert '1 of 2 frames not used' in captured.err


def test_a_frame_on_which_the_network_does_not_end_costs_this_frame(tmp_path, capsys):
    bundle = write_stuck_bundle(tmp_path / 'bundle')
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for name, level in (('a', 0), ('b', 255), ('c', 0)):
        assert cv2.imwrite(str(folder / f'{name}.png'), np.full((96, 128, 3), level, np.uint8))
    assert detect(folder, bundle, '--json', '--time-limit', '1') == 1
    captured = capsys.readouterr()
    names = [Path(line['source']).name for line in json_lines(captured.out)]
    assert names == ['a.png', 'c.png']
    assert 'the run was broken off after 1' in captured.err
    assert '1 of 3 frames not used' in captured.err


@pytest.mark.parametrize('value', ['0', '-1', 'nan', 'inf', 'soon'])
def test_a_time_limit_is_a_time(pictures, tiny_bundle, capsys, value):
    with pytest.raises(SystemExit):
        detect(pictures, tiny_bundle, f'--time-limit={value}')
    assert value in capsys.readouterr().err


def test_candidates_that_were_too_many_are_counted(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('pruned_perception.inference.detector.MOST_CANDIDATES', 10)
    monkeypatch.setattr('pruned_perception.cli.detect.MOST_CANDIDATES', 10)
    bundle = write_tiny_bundle(tmp_path / 'bundle')
    assert detect(pictures, bundle, '--score-threshold', 0) == 0
    assert '2 of 2 frames had more than 10 candidates' in capsys.readouterr().err


def test_annotated_frames_as_a_video(pictures, tiny_bundle, tmp_path, capsys):
    source, out = tmp_path / 'source.avi', tmp_path / 'out.mp4'
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter.fourcc(*'MJPG'), 20, (641, 480))
    for _ in range(13):
        writer.write(square_image('red', left=200, top=160, side=120, width=641)[..., ::-1])
    writer.release()
    assert detect(source, tiny_bundle, '--video', out) == 0
    video = cv2.VideoCapture(str(out))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 13
    assert video.get(cv2.CAP_PROP_FPS) == pytest.approx(20)
    assert (video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)) == (640, 480)
    there, frame = video.read()
    assert there
    assert frame[10, 10].max() < 40
    assert frame[220, 260, 2] > 200  # the square, red


def test_pictures_of_several_sizes_as_a_video(pictures, tiny_bundle, tmp_path, capsys):
    out = tmp_path / 'out.mp4'
    assert detect(pictures, tiny_bundle, '--video', out) == 0
    video = cv2.VideoCapture(str(out))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert video.get(cv2.CAP_PROP_FRAME_WIDTH) == 640


@pytest.mark.parametrize(
    ('source', 'words'),
    [
        ('rtsp://user:secret@127.0.0.1:9/stream', 'no picture within 5 s'),
        ('177', 'no such camera'),
        ('/dev/video177', 'no such camera'),
    ],
)
def test_cameras_that_are_not_there(source, words, tiny_bundle, capsys):
    assert detect(source, tiny_bundle) == 1
    said = capsys.readouterr().err
    assert words in said
    assert 'secret' not in said
    assert ('this opens a network connection, to 127.0.0.1' in said) == source.startswith('rtsp')


class SlowCamera:
    """Gives frames that are numbered by their grey level, then ends."""

    def __init__(self) -> None:
        self.next, self.released, self.ended = 1, False, False
        self.begin = threading.Event()

    def read(self):
        self.begin.wait(10)
        if self.next == 200:
            self.ended = True
            return False, None
        self.next += 1
        return True, np.full((4, 4, 3), self.next, np.uint8)

    def release(self) -> None:
        self.released = True


def test_of_a_cameras_frames_the_newest_is_taken_and_all_ends_with_it():
    camera = SlowCamera()
    frames = cameras._frames('camera', camera, np.zeros((4, 4, 3), np.uint8))
    seen = [next(frames)]
    camera.begin.set()
    while not camera.ended:  # frames come while the first one is in hand
        time.sleep(0.001)
    seen += frames
    assert [frame.index for frame in seen] == [0, 1]
    assert seen[-1].image.max() == 200
    assert camera.released


def test_a_source_is_needed(tiny_bundle, capsys):
    assert main(['detect', '--model', str(tiny_bundle.path)]) == 1
    assert 'or --topic NAME' in capsys.readouterr().err
