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

"""A family that the command made, from a bundle and six drives without labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from latency_tables import arithmetic_table
from optimizing import SHORT, Place

from pruned_perception.bundle import load_bundle, load_family
from pruned_perception.cli.main import main
from pruned_perception.datasets.fingerprints import Fingerprints, picture_hash
from pruned_perception.images import read_image
from pruned_perception.optimize import run
from pruned_perception.pruning.certificate import read_certificate

ASKED = ('--macs', '0.6', *SHORT)


@pytest.fixture(scope='module')
def family(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make it from the ONNX file, whose decoder is recognised."""
    out = tmp_path_factory.mktemp('made') / 'family'
    detector = ['optimize', str(place.onnx), '--names', str(place.names)]
    detector += ['--parameter', 'strides=[8]', '--decoder', 'anchor_free']
    detector += ['--score-threshold', '0.5', '--iou-threshold', '0.3']
    detector += ['--images', str(place.drives)]
    assert main([*detector, *ASKED, '--out', str(out)]) == 0
    return out


def test_members_go_back_to_the_file_that_was_given(family, place):
    dense, member = load_family(family).members
    assert (dense.name, member.name) == ('dense', 'macs60')
    assert dense.onnx_bytes == place.onnx.read_bytes()
    assert member.manifest['parent'] == {'name': 'dense', 'sha256': dense.sha256}
    assert member.input == dense.input
    assert member.output == dense.output
    assert 0 < member.cost.macs <= 0.6 * dense.cost.macs


def test_nothing_that_certifies_was_fitted_to_or_chosen_by(family, place):
    member = load_bundle(family / 'macs60')
    certificate = read_certificate(member.manifest['certificate'])
    assert len(certificate.drives) == 2
    assert certificate.frames == 24
    seen = member.manifest['provenance']['seen']
    used = Fingerprints.from_dict(seen['optimising']) | Fingerprints.from_dict(seen['choosing'])
    assert not certificate.holdout.shared(used)[0]
    for drive in place.drives.iterdir():
        hashes = {picture_hash(read_image(each)) for each in drive.iterdir()}
        certifies = any(each.endswith(drive.name) for each in certificate.drives)
        assert hashes <= (certificate.holdout.pictures if certifies else used.pictures)


def test_the_certificate_is_of_the_parents_detections(family):
    certificate = read_certificate(load_bundle(family / 'macs60').manifest['certificate'])
    findings = json.loads((family / '.optimize' / 'findings.json').read_text())
    lost, shown = findings['members'][1]['lost']
    assert (sum(certificate.headline.events), sum(certificate.headline.counts)) == (lost, shown)
    assert shown == 24  # a square in each frame
    first, *others = certificate.to_text().splitlines()
    assert first.startswith('Of a new drive this says next to nothing: 2 drives')
    assert any(line.startswith('Does not show at most') for line in others)


def test_the_page_shows_failures_certificate_and_how_to_run_it(family):
    page = (family / 'report.html').read_text()
    for text in ('Where they differ', 'proven at 95%', 'What recovered what', 'member:='):
        assert text in page
    assert 'src="data:image/jpeg;base64,' in page
    assert 'src="http' not in page
    assert '<script' not in page
    assert 'report-macs60.html' in page
    assert (family / 'report-macs60.html').is_file()


def test_the_same_command_finds_all_done_and_another_one_is_refused(family, place, capsys):
    before = {file: file.stat().st_mtime_ns for file in family.rglob('model.onnx')}
    detector = [
        'optimize', str(place.onnx), '--names', str(place.names), '--parameter', 'strides=[8]',
        '--decoder', 'anchor_free', '--score-threshold', '0.5', '--iou-threshold', '0.3',
        '--images', str(place.drives),
    ]  # fmt: skip
    assert main([*detector, *ASKED, '--out', str(family), '--json']) == 0
    out = capsys.readouterr().out
    assert [row['name'] for row in json.loads(out)['members']] == ['dense', 'macs60']
    assert {file: file.stat().st_mtime_ns for file in family.rglob('model.onnx')} == before
    assert main([*detector, '--macs', '0.4', *SHORT, '--out', str(family)]) == 1
    assert 'another job (budgets: [' in capsys.readouterr().err


def test_members_in_8_bits_join_where_they_are_faster_and_alike(
    place, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(run, 'WORTH', 0.0)  # which machine this is, is not the question
    asked = ['optimize', str(place.dense), '--images', str(place.drives)]
    assert main([*asked, '--out', str(tmp_path / 'family')]) == 0
    names = [each.name for each in load_family(tmp_path / 'family').members]
    assert names == ['dense', 'dense-int8']
    assert 'INT8 of the parent alone' in capsys.readouterr().out
    assert 'In 8 bits' in (tmp_path / 'family' / 'report.html').read_text()
    monkeypatch.setattr(run, 'WORTH', 1e9)
    assert main([*asked, '--out', str(tmp_path / 'other')]) == 0
    assert [each.name for each in load_family(tmp_path / 'other').members] == ['dense']


def test_milliseconds_by_the_table_of_another_machine(place, tmp_path, capsys):
    table = arithmetic_table(load_bundle(place.dense))
    (tmp_path / 'robot.json').write_text(json.dumps(table.to_dict()))
    asked = ['optimize', str(place.dense), '--images', str(place.drives), *SHORT]
    asked += [
        'recovery',
        'certificate',
        'report',
        '--budget-ms',
        '5',
        '--speedup',
        '2',
        '--table',
        str(tmp_path / 'robot.json'),
    ]
    assert main([*asked, '--out', str(tmp_path / 'family')]) == 0
    printed = capsys.readouterr().out
    assert 'for another machine, by its table: processor a robot, not' in printed
    assert 'ms, by the table' in printed
    members = load_family(tmp_path / 'family').members
    predicted = {each.name: each.manifest['pruning'].get('predicted_ms') for each in members[1:]}
    assert predicted['5ms'] <= 5
    assert predicted['x2'] <= 4  # the table's network takes 8 ms
    assert predicted['x2'] < predicted['5ms']


def test_with_labels_the_certificate_is_of_true_objects(place, tmp_path, capsys):
    """Of the same drives, and of boxes: what the parent finds and the member misses."""
    files = sorted(place.drives.rglob('*.png'))
    images, annotations = [], []
    for number, file in enumerate(files):
        picture = read_image(file)
        rows, columns = np.nonzero(picture.max(2) == 255)
        images.append({
            'id': number, 'file_name': f'{file.parent.name}/{file.name}',
            'drive': file.parent.name, 'height': picture.shape[0], 'width': picture.shape[1],
        })  # fmt: skip
        annotations.append({
            'id': number, 'image_id': number, 'iscrowd': 0,
            'category_id': 1 + (2 - int(picture[rows[0], columns[0]].argmax())),
            'bbox': [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1,
                     int(np.ptp(rows)) + 1],
        })  # fmt: skip
    labels = load_bundle(place.dense).labels
    categories = [{'id': 1 + k, 'name': name} for k, name in enumerate(labels)]
    notes = tmp_path / 'notes'
    shutil.copytree(place.drives, notes / 'images')
    content = {'images': images, 'categories': categories, 'annotations': annotations}
    (notes / 'annotations.json').write_text(json.dumps(content))
    asked = ['optimize', str(place.dense), '--images', str(notes / 'images'), *ASKED]
    asked = [*asked, 'recovery', 'report', '--labels', str(notes), '--json']
    assert main([*asked, '--out', str(tmp_path / 'family')]) == 0
    rows = json.loads(capsys.readouterr().out)['members']
    assert rows[0]['ap50'] == 1
    certificate = read_certificate(
        load_bundle(tmp_path / 'family' / 'macs60').manifest['certificate']
    )
    assert certificate.headline.verb == 'misses'
    assert sum(certificate.headline.counts) == 24  # a square in each frame of two drives
    assert len(certificate.drives) == 2
    assert rows[1]['certified'] == certificate.headline.bound


LESSONS = """
import torch
from pruned_perception.training.recipe import Recipe
from pruned_perception.training.task import Task


def lessons(network):
    return Task(
        model=network, example_inputs=(), calibration=(),
        training=lambda seed: iter(lambda: torch.rand(1, 96, 128, 3), None),
        step=lambda network, batch: sum(each.square().mean() for each in network(batch)),
        recipe=Recipe(optimiser='adamw', learning_rate=1e-3),
    )
"""


def test_members_are_taught_by_the_users_own_training(place, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'own_lessons.py').write_text(LESSONS)
    asked = ['optimize', str(place.dense), '--images', str(place.drives), *ASKED, 'report']
    asked += ['--minutes', '0.01', '--out', 'family', '--training']
    assert main([*asked, 'own_lessons:absent']) == 1
    assert "--training 'own_lessons:absent': cannot be imported" in capsys.readouterr().err
    assert not (tmp_path / 'family').exists()
    assert main([*asked, 'own_lessons:lessons']) == 0
    assert '0.01 minutes of teaching (own_lessons:lessons)' in capsys.readouterr().out
    record = json.loads((tmp_path / 'family/.optimize/members/macs60.json').read_text())
    assert record['taught_by'] == 'own_lessons:lessons'
    assert record['stages'][0]['kept'] == 'taught'
    assert load_bundle(tmp_path / 'family' / 'macs60').manifest['certificate'] is None


def test_of_one_drive_nothing_is_proven_and_that_comes_first(place, tmp_path, capsys):
    asked = ['optimize', str(place.dense), '--images', str(place.one_drive), *ASKED]
    assert main([*asked, '--out', str(tmp_path / 'family'), '--recipe', 'standard']) == 0
    printed = capsys.readouterr().out
    assert 'too few drives (1) to prove anything of drives to come' in printed
    page = (tmp_path / 'family' / 'report.html').read_text()
    assert page.index('Too few drives (1)') < page.index('Members')
    assert load_bundle(tmp_path / 'family' / 'macs60').manifest['certificate'] is None
