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

"""What cannot be optimised is refused before the work, with what would help."""

from __future__ import annotations

import errno
import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from latency_tables import arithmetic_table
from optimizing import SHORT
from tiny_detector import HEIGHT, WIDTH

from pruned_perception.bundle import load_bundle
from pruned_perception.optimize import job
from pruned_perception.training.label_free import prediction


def test_no_budget_and_nothing_else_to_do(place, command, tmp_path):
    code, text = command(place.dense, '--images', place.drives, '--out', tmp_path / 'f', *SHORT)
    assert code == 1
    assert 'say how small or fast' in text


@pytest.mark.parametrize(
    ('budget', 'reason'),
    [
        (('--macs', '1.5'), '--macs 1.5: must be in (0, 1]'),
        (('--speedup', '0.5'), '--speedup 0.5: must be ≥ 1'),
        (('--budget-ms', '0'), '--budget-ms 0: must be > 0'),
        (('--macs', '0.5', '0.5'), 'the same one is there twice'),
        (('--macs', '0.5', '--minutes', '-1'), '--minutes -1: must be > 0'),
    ],
)
def test_budgets_that_are_none(place, command, tmp_path, budget, reason):
    code, text = command(place.dense, '--images', place.drives, *budget, '--out', tmp_path / 'f')
    assert code == 1
    assert reason in text
    assert not (tmp_path / 'f').exists()


def test_a_budget_below_the_fastest_member(place, command, tmp_path):
    code, text = command(
        place.dense, '--images', place.drives, '--budget-ms', '0.000001', *SHORT,
        '--out', tmp_path / 'f',
    )  # fmt: skip
    assert code == 1
    assert 'not reachable on this machine' in text
    assert 'the smallest network of this kind takes' in text


def test_images_in_which_the_parent_sees_nothing(place, command, tmp_path):
    noise = np.random.default_rng(0)
    (tmp_path / 'dark').mkdir()
    for index in range(40):
        picture = noise.integers(0, 60, (HEIGHT, WIDTH, 3), np.uint8)
        cv2.imwrite(str(tmp_path / 'dark' / f'{index:02}.png'), picture)
    code, text = command(
        place.dense, '--images', tmp_path / 'dark', '--macs', '0.6', *SHORT, '--out', tmp_path / 'f'
    )
    assert code == 1
    assert 'another domain' in text
    assert 'finds something in 0 of' in text


def test_too_few_frames_and_frames_that_are_all_alike(place, command, tmp_path):
    (tmp_path / 'few').mkdir()
    for index, file in enumerate(sorted(place.one_drive.iterdir())[:5]):
        shutil.copy(file, tmp_path / 'few' / f'{index}.png')
    (tmp_path / 'still').mkdir()
    noise = np.random.default_rng(0)
    picture = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for index in range(30):
        picture[0, 0] = noise.integers(0, 256, 3)
        cv2.imwrite(str(tmp_path / 'still' / f'{index:02}.png'), picture)
    for name, reason in (('few', '5 frames; at least 24'), ('still', 'all frames show the')):
        code, text = command(
            place.dense,
            '--images',
            tmp_path / name,
            '--macs',
            '0.6',
            '--out',
            tmp_path / f'f{name}',
        )
        assert code == 1
        assert reason in text


def test_too_few_drives_for_the_bound_that_is_asked_for(place, command, tmp_path):
    code, text = command(
        place.dense, '--images', place.drives, '--macs', '0.6', '--at-most', '0.05', *SHORT,
        '--out', tmp_path / 'f',
    )  # fmt: skip
    assert code == 1
    assert 'drives that nothing was chosen on' in text
    assert '2 are set aside of these images, by which at best 80.4% can be' in text


def test_a_folder_of_something_else_and_a_full_disk(place, command, tmp_path, monkeypatch):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('42')
    asked = (place.dense, '--images', place.drives, '--macs', '0.6', *SHORT, '--out')
    code, text = command(*asked, tmp_path / 'mine')
    assert code == 1
    assert 'is there already, and not of this command' in text
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(job.shutil, 'disk_usage', lambda path: usage._replace(free=10**6))
    code, text = command(*asked, tmp_path / 'full')
    assert code == 1
    assert 'make room, or choose another folder' in text


def test_a_disk_that_fills_while_it_works(place, command, tmp_path, monkeypatch):
    """One clear line wherever that is; with room again, the same command goes on."""
    asked = (place.dense, '--images', place.drives, '--macs', '0.6', *SHORT, '--out')
    place_file, room = os.replace, [0]

    def filling(*paths, **options):
        room[0] -= 1
        if room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return place_file(*paths, **options)

    for files in (2, 4, 3):  # that are written before the disk is full
        room[0] = files
        monkeypatch.setattr(os, 'replace', filling)
        code, text = command(*asked, tmp_path / 'f')
        monkeypatch.undo()
        assert code == 1, text
        assert 'No space left on device' in text
        assert 'Traceback' not in text
    code, text = command(*asked, tmp_path / 'f')
    assert code == 0, text
    assert (tmp_path / 'f' / 'macs60' / 'model.onnx').is_file()


def test_a_bag_without_images(place, command, tmp_path):
    rosbag2 = pytest.importorskip('rosbags.rosbag2', reason='reading bags needs rosbags')
    typesys = pytest.importorskip('rosbags.typesys')
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    with rosbag2.Writer(tmp_path / 'bag', version=9) as writer:
        kind = 'std_msgs/msg/String'
        topic = writer.add_connection('/chatter', kind, typestore=store)
        writer.write(topic, 1, store.serialize_cdr(store.types[kind]('hello'), kind))
    code, text = command(
        place.dense, '--images', tmp_path / 'bag', '--macs', '0.6', '--out', tmp_path / 'f'
    )
    assert code == 1
    assert 'no topic of type sensor_msgs/msg/Image' in text


def test_a_topic_on_which_nothing_comes_is_listened_to_again(place, command, tmp_path, monkeypatch):
    recorder = pytest.importorskip('pruned_perception.benchmark.recorder', reason='needs ROS 2')
    listened = []

    def nothing_comes(session, bag, topics, **options):
        listened.append(topics)
        bag.mkdir()
        (bag / 'metadata.yaml').write_text('of an empty bag')
        return {topic: SimpleNamespace(count=0) for topic in topics}

    monkeypatch.setattr(recorder, 'record', nothing_comes)
    monkeypatch.setattr(
        'pruned_perception.benchmark.session.ros_session', lambda name: nullcontext()
    )
    asked = (place.dense, '--images', '/nobody/speaks', '--macs', '0.6', '--out', tmp_path / 'f')
    for _ in range(2):
        code, text = command(*asked)
        assert code == 1
        assert '/nobody/speaks: nothing came on this topic' in text
    assert listened == [['/nobody/speaks']] * 2


def test_tables_that_say_nothing_of_the_budget(place, command, tmp_path):
    table = arithmetic_table(load_bundle(place.dense))
    for name, content in (('whole', table), ('begun', replace(table, complete=False))):
        (tmp_path / f'{name}.json').write_text(json.dumps(content.to_dict()))
    asked = (place.dense, '--images', place.drives, *SHORT, '--out', tmp_path / 'f', '--table')
    for name, budget, reason in (
        ('whole', ('--macs', '0.5'), '--table goes with a budget in time'),
        ('begun', ('--budget-ms', '4'), 'the latency table is unfinished'),
        ('none', ('--budget-ms', '4'), 'none.json: cannot be read'),
        ('whole', ('--budget-ms', '0.01'), 'nearest'),
    ):
        code, text = command(*asked, tmp_path / f'{name}.json', *budget)
        assert code == 1
        assert reason in text


def test_what_a_bundle_says_itself_is_not_said_again(place, command, tmp_path):
    code, text = command(
        place.dense, '--images', place.drives, '--macs', '0.6', '--decoder', 'yolox',
        '--out', tmp_path / 'f',
    )  # fmt: skip
    assert code == 1
    assert 'a bundle says itself' in text


def test_an_onnx_file_without_names_or_of_no_known_detector(place, command, tmp_path):
    asked = (place.onnx, '--images', place.drives, '--macs', '0.6', '--out')
    code, text = command(*asked, tmp_path / 'f')
    assert code == 1
    assert 'does not name its classes' in text
    (tmp_path / 'two.txt').write_text('red\ngreen')
    code, text = command(*asked, tmp_path / 'g', '--names', tmp_path / 'two.txt')
    assert code == 1
    assert 'may mean several things. Whose network is it?' in text
    assert sorted(each.name for each in tmp_path.iterdir()) == ['two.txt']


def test_what_is_no_detector_leaves_no_folder_and_nothing_of_an_older_one(place, command, tmp_path):
    (tmp_path / 'notes.txt').write_text('not a network')
    (tmp_path / 'empty').mkdir()
    for folder in ('new', 'empty'):
        code, text = command(
            tmp_path / 'notes.txt', '--images', place.drives, '--macs', '0.6',
            '--out', tmp_path / folder,
        )  # fmt: skip
        assert code == 1
        assert 'notes.txt' in text
    assert not (tmp_path / 'new').exists()
    assert (tmp_path / 'empty').is_dir()


def test_where_pruning_does_not_pay_it_says_so_before_the_work(
    place, command, tmp_path, monkeypatch
):
    monkeypatch.setattr(prediction, 'MENDABLE', 2.0)
    asked = (place.dense, '--images', place.drives, '--macs', '0.6', *SHORT, '--out')
    code, text = command(*asked, tmp_path / 'f')
    assert code == 1
    assert 'pruning channels so far does not pay with this network' in text
    assert 'agreement, untaught' in text
    assert not (tmp_path / 'f' / 'macs60').exists()
    # What was only foretold does not bind: another job may take its place.
    other = (place.dense, '--images', place.drives, '--macs', '0.8', *SHORT, '--out')
    code, text = command(*other, tmp_path / 'f', '--force')
    assert code == 0
    assert (tmp_path / 'f' / 'macs80' / 'model.onnx').is_file()


def test_labels_that_are_not_the_detectors(place, command, tmp_path):
    coco = {
        'images': [{'id': 0, 'file_name': 'a.png', 'width': WIDTH, 'height': HEIGHT}],
        'categories': [{'id': 1, 'name': 'walrus'}],
        'annotations': [
            {'id': 1, 'image_id': 0, 'category_id': 1, 'bbox': [1, 1, 9, 9], 'iscrowd': 0}
        ],
    }
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'annotations.json').write_text(json.dumps(coco))
    cv2.imwrite(str(tmp_path / 'set' / 'a.png'), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    code, text = command(
        place.dense, '--images', place.drives, '--macs', '0.6', *SHORT,
        '--labels', tmp_path / 'set', '--out', tmp_path / 'f',
    )  # fmt: skip
    assert code == 1
    assert 'its labels (walrus) are not those of' in text
