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

"""The certificate of a pair of bundles: decisions of the exported models, as on the robot."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import shapes
import tiny
import torch

from pruned_perception.bundle import Bundle, load_bundle
from pruned_perception.cli.main import main
from pruned_perception.datasets import DataError, read_dataset
from pruned_perception.datasets.fingerprints import Fingerprints, picture_hash
from pruned_perception.pruning import Macs, PruningError, make_plan, recalibrate
from pruned_perception.pruning.certificate import Certificate
from pruned_perception.training.detector import certification
from pruned_perception.training.detector.certification import (
    certify_bundles,
    certify_unlabelled,
    clusters_of,
    declared_slices,
)
from pruned_perception.training.detector.checkpoint import seen
from pruned_perception.training.detector.network import Detector

LONGEST = {'frames': 4, 'objects': 60, 'detections': 400}


@pytest.fixture(scope='module')
def pair(
    detector: Detector, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Bundle]:
    """Return a parent that surely sees something everywhere, and its pruned child."""
    folder = tmp_path_factory.mktemp('pair')
    seeing = Detector(tiny.ARCHITECTURE)
    seeing.load_state_dict(detector.state_dict())
    seeing.eval()
    for level in range(3):
        with torch.no_grad():
            seeing.get_submodule(f'heads.{level}.class_output').bias += 4.0  # type: ignore[operator]
    plan = make_plan(seeing, (torch.zeros(1, 3, *tiny.SIZE),), budget=Macs(0.7))
    small = recalibrate(plan.apply(seeing), [torch.rand(8, 3, *tiny.SIZE)])
    assert isinstance(small, Detector)
    parent = tiny.bundle(seeing, images, folder / 'dense')
    child = tiny.bundle(small, images, folder / 'small', parent=parent, plan=plan.to_dict())
    return parent, child


@pytest.fixture(scope='module')
def holdout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 48 frames of 12 scenes."""
    folder = tmp_path_factory.mktemp('holdout') / 'set'
    shapes.write_shapes(folder, 48, seed=9)
    return folder


def test_the_command_records_what_it_certifies(
    pair: tuple[Bundle, Bundle], holdout: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(pair[0].path.parent, tmp_path / 'family')
    dense, small = (tmp_path / 'family' / each.name for each in pair)
    arguments = ['certify', '--parent', str(dense), '--child', str(small)]
    arguments += ['--holdout', str(holdout), '--longest', '4', '60', 'disc=30']
    arguments += ['detections=400']
    assert main([*arguments, '--out', str(tmp_path / 'c.json'), '--record', '--json']) == 0
    printed = json.loads(capsys.readouterr().out)
    bundle = load_bundle(small)
    assert (
        bundle.manifest['certificate'] == printed == json.loads((tmp_path / 'c.json').read_text())
    )
    assert bundle.sha256 == pair[1].sha256
    assert load_bundle(dense).manifest['certificate'] is None
    certificate = Certificate.from_dict(printed)
    assert (certificate.frames, len(certificate.drives)) == (48, 12)
    assert certificate.unit == 'layout'
    assert list(certificate.statements) == [
        'missed', 'invented', 'gained', 'lost', 'changed', 'negative_flips',
    ]  # fmt: skip
    assert certificate.headline.rate
    assert certificate.slices['disc'].longest == 30
    assert certificate.holdout_sha256 == read_dataset(holdout).digest
    assert certificate.record['child'] == {'name': 'small', 'sha256': pair[1].sha256}
    assert certificate.unchecked == ('the training of dense', 'the training of small')
    assert list(certificate.slices) == ['below 48 px', 'dark', 'disc', 'square', 'triangle']

    words = 'of the objects that the dense network finds (score ≥ 0.4, IoU ≥ 0.5, no dead-band)'
    page = tmp_path / 'page.html'
    assert main(['pruning-report', str(small), '--out', str(page)]) == 0
    assert words in page.read_text(encoding='utf-8')
    capsys.readouterr()
    assert main(['bundle', 'show', str(small)]) == 0
    assert words in capsys.readouterr().out

    shapes.write_shapes(tmp_path / 'more', 12, seed=10)
    arguments[arguments.index(str(holdout))] = str(tmp_path / 'more')
    assert main([*arguments, '--add', '--record', '--json']) == 0
    both = Certificate.from_dict(json.loads(capsys.readouterr().out))
    assert (both.frames, len(both.drives)) == (60, 15)
    assert load_bundle(small).manifest['certificate'] == json.loads(json.dumps(both.to_dict()))
    assert main([*arguments, '--add', str(tmp_path / 'c.json'), '--json']) == 0
    assert Certificate.from_dict(json.loads(capsys.readouterr().out)) == both
    assert main([*arguments, '--add']) == 1
    assert '12 of the 12 frames' in capsys.readouterr().err


def test_the_same_decisions_change_nothing(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    parent, child = pair
    twin = dataclasses.replace(
        parent, manifest={**child.manifest, 'onnx': {**parent.manifest['onnx'], 'sha256': '0' * 64}}
    )
    certificate = certify_bundles(parent, twin, holdout, longest=LONGEST)
    for name in ('missed', 'gained', 'lost', 'changed', 'negative_flips'):
        assert certificate.statements[name].rate == 0
    assert certificate.headline.bound is not None
    assert 0 < certificate.headline.bound < 1


def test_the_band_is_of_frames_alone(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    found = [
        certify_bundles(*pair, holdout, longest=LONGEST, dead_band=band).statements
        for band in (0.0, 0.1, 0.39)
    ]
    rates = [each['changed'].rate for each in found]
    assert rates[0] >= rates[1] >= rates[2]
    assert rates[0] > rates[2]
    for name in ('missed', 'invented', 'gained', 'lost'):
        assert len({each[name] for each in found}) == 1
    assert 'no dead-band' in found[1]['missed'].terms
    assert 'dead-band ±0.1' in found[1]['changed'].terms


def test_drives_longer_than_declared_are_refused(
    pair: tuple[Bundle, Bundle], holdout: Path, capsys: pytest.CaptureFixture
) -> None:
    for longest, name in (
        ({**LONGEST, 'frames': 3}, 'changed: layout 0 has 4 frames, declared are at most 3'),
        ({**LONGEST, 'objects': 5}, r'missed: layout \d+ has \d+ objects'),
        ({'frames': 4}, r'declare the objects of the longest layout'),
    ):
        with pytest.raises(PruningError, match=name):
            certify_bundles(*pair, holdout, longest=longest)
    arguments = ['certify', '--parent', str(pair[0].path), '--child', str(pair[1].path)]
    for words in (['4', '60', '7'], ['4', 'many'], ['0']):
        assert main([*arguments, '--holdout', str(holdout), '--longest', *words]) == 1
        assert 'give frames and objects of the longest drive' in capsys.readouterr().err


def test_slices_that_show_nothing_stay_declared(
    pair: tuple[Bundle, Bundle], holdout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certification, 'DARK', 0)
    certificate = certify_bundles(*pair, holdout, longest=LONGEST)
    assert certificate.slices['dark'].bound is None
    assert 'nothing to judge by' in certificate.to_text()
    assert certificate.slices['disc'].confidence == pytest.approx(1 - 0.05 / 5)


def test_another_parents_child_is_refused(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    parent, child = pair
    manifest = {**child.manifest, 'parent': {'name': 'other', 'sha256': 'f' * 64}}
    with pytest.raises(PruningError, match='its parent is other'):
        certify_bundles(
            parent, dataclasses.replace(child, manifest=manifest), holdout, longest=LONGEST
        )
    orphan = {**parent.manifest, 'parent': None}
    with pytest.raises(PruningError, match='is the same model as'):
        certify_bundles(
            parent, dataclasses.replace(parent, manifest=orphan), holdout, longest=LONGEST
        )


def test_thresholds_that_differ_must_be_settled(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    parent, child = pair
    other = dataclasses.replace(child, thresholds=dataclasses.replace(child.thresholds, score=0.3))
    with pytest.raises(PruningError, match=r'0\.4 of dense, 0\.3 of small.*--score-threshold'):
        certify_bundles(parent, other, holdout, longest=LONGEST)
    certificate = certify_bundles(parent, other, holdout, longest=LONGEST, score_threshold=0.35)
    assert certificate.record['score_threshold'] == 0.35


def copied(
    holdout: Path, folder: Path, *, order: list[int] | None = None, drive: str | None = None
) -> Path:
    """Return a copy of a data set, of some frames in some order, hardly compressed."""
    content = json.loads((holdout / 'annotations.json').read_text())
    images = [content['images'][k] for k in (order or range(len(content['images'])))]
    (folder / 'images').mkdir(parents=True)
    for number, each in enumerate(images):
        pixels = cv2.imread(str(holdout / each['file_name']))
        each['file_name'] = f'images/other{number}.png'
        if drive is not None:
            each['layout'] = f'{drive} {each["layout"]}'
        cv2.imwrite(str(folder / each['file_name']), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    kept = {each['id'] for each in images}
    content['images'] = images
    content['annotations'] = [x for x in content['annotations'] if x['image_id'] in kept]
    (folder / 'annotations.json').write_text(json.dumps(content))
    return folder


def having_seen(bundle: Bundle, **sets: Path) -> Bundle:
    """Return the bundle as if it had been made with these data sets."""
    recorded = seen({}, **{name: read_dataset(each) for name, each in sets.items()})
    provenance = {**bundle.manifest['provenance'], 'seen': recorded}
    return dataclasses.replace(bundle, manifest={**bundle.manifest, 'provenance': provenance})


@pytest.mark.parametrize('use', ['training', 'validation', 'calibration'])
@pytest.mark.parametrize('whose', [0, 1])
def test_what_was_fitted_chosen_or_stopped_on_cannot_certify(
    pair: tuple[Bundle, Bundle], holdout: Path, use: str, whose: int
) -> None:
    both = list(pair)
    both[whose] = having_seen(pair[whose], **{use: holdout})
    with pytest.raises(PruningError, match=f'48 of the 48 frames .* are in the {use} data'):
        certify_bundles(*both, holdout, longest=LONGEST)


def test_the_test_set_in_the_manifest_cannot_certify(
    pair: tuple[Bundle, Bundle], holdout: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(pair[0].path.parent, tmp_path / 'family')
    dense, small = (tmp_path / 'family' / each.name for each in pair)
    assert main(['evaluate', str(holdout), '--model', str(small), '--record', '--resamples', '0',
                 '--data-name', 'halls']) == 0  # fmt: skip
    capsys.readouterr()
    other = copied(holdout, tmp_path / 'other', order=[7, 3])  # other annotations: other SHA-256
    arguments = [
        'certify',
        '--parent',
        str(dense),
        '--child',
        str(small),
        '--longest',
        '4',
        '60',
        'detections=400',
    ]
    assert main([*arguments, '--holdout', str(other)]) == 1
    assert '2 of the 2 frames of the hold-out are in the evaluation on halls' in (
        capsys.readouterr().err
    )


def test_an_old_manifest_knows_its_sets_by_their_annotations(
    pair: tuple[Bundle, Bundle], holdout: Path
) -> None:
    parent, child = pair
    used = {'annotations_sha256': read_dataset(holdout).digest}
    for section, changed in (
        ('training', {'provenance': {'training': used}}),
        ('evaluation', {'evaluation': [used]}),
    ):
        old = dataclasses.replace(child, manifest={**child.manifest, **changed})
        with pytest.raises(PruningError, match=f'names it under {section}.*never share frames'):
            certify_bundles(parent, old, holdout, longest=LONGEST)


@pytest.mark.parametrize(
    ('order', 'count'),
    [(list(range(47, -1, -1)), 48), (list(range(47)), 47), ([5, 40], 2)],
    ids=['another order', 'one frame fewer', 'a few'],
)
def test_order_names_files_and_number_make_no_difference(
    pair: tuple[Bundle, Bundle], holdout: Path, tmp_path: Path, order: list[int], count: int
) -> None:
    parent, child = pair
    trained = having_seen(child, training=holdout)
    other = copied(holdout, tmp_path / 'other', order=order)
    with pytest.raises(PruningError, match=f'{count} of the {count} frames'):
        certify_bundles(parent, trained, other, longest=LONGEST)


def test_other_frames_of_a_drive_that_was_trained_on_cannot_certify(
    pair: tuple[Bundle, Bundle], holdout: Path, tmp_path: Path
) -> None:
    parent, child = pair
    odd, even = (
        copied(holdout, tmp_path / name, order=order, drive='hall')
        for name, order in (('odd', list(range(1, 48, 2))), ('even', list(range(0, 24, 2))))
    )
    trained = having_seen(child, training=odd)
    with pytest.raises(PruningError, match=r'hall 0, hall 1, hall 2 and 3 more of the hold-out'):
        certify_bundles(parent, trained, even, longest=LONGEST)
    elsewhere = copied(holdout, tmp_path / 'new', order=list(range(0, 24, 2)), drive='yard')
    found = certify_bundles(parent, trained, elsewhere, longest=LONGEST)
    assert found.unseen == ('the training data',)


def test_other_labels_are_refused(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    shapes.write_shapes(tmp_path / 'set', 2, seed=0)
    file = tmp_path / 'set' / 'annotations.json'
    file.write_text(file.read_text().replace('"triangle"', '"hexagon"'))
    with pytest.raises(DataError, match=r'hexagon.*are not those of dense \(disc, square, tri'):
        certify_bundles(*pair, tmp_path / 'set', longest=LONGEST)
    parent, child = pair
    other = dataclasses.replace(child, labels=('disc', 'square', 'hexagon'))
    with pytest.raises(PruningError, match=r'its labels .*hexagon.*are not those of dense'):
        certify_bundles(parent, other, tmp_path / 'set', longest=LONGEST)


def test_a_unit_is_named_as_the_hold_out_names_it(
    pair: tuple[Bundle, Bundle], holdout: Path, tmp_path: Path
) -> None:
    venues = Path(shutil.copytree(holdout, tmp_path / 'venues'))
    file = venues / 'annotations.json'
    file.write_text(file.read_text().replace('"layout"', '"venue"'))
    assert certify_bundles(*pair, venues, longest=LONGEST).unit == 'venue'
    assert certify_bundles(*pair, venues, longest=LONGEST, unit='hall').unit == 'hall'


def test_slices_are_the_frames_that_they_say(tmp_path: Path) -> None:
    images = [{'id': n, 'file_name': f'{n}.png', 'width': 99, 'height': 99} for n in range(4)]
    boxes = [(0, 0, [0, 0, 47, 10], 0), (1, 1, [0, 0, 48, 48], 0), (2, 1, [0, 0, 5, 5], 1)]
    annotations = [
        {'id': k, 'image_id': image, 'category_id': label, 'bbox': box, 'iscrowd': crowd}
        for k, (image, label, box, crowd) in enumerate(boxes)
    ]
    categories = [{'id': 0, 'name': 'cat'}, {'id': 1, 'name': 'dog'}]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (tmp_path / 'annotations.json').write_text(json.dumps(content))
    notes = read_dataset(tmp_path)
    found = declared_slices(
        notes.boxes, notes.class_ids, notes.labels, np.array([75.0, 74.9, 200.0, 0.0])
    )
    assert {name: [each.tolist() for each in own] for name, own in found.items()} == {
        'below 48 px': [[True], [False], [True], []],
        'dark': [[False], [True], [False], []],
        'cat': [[True], [False], [False], []],
        'dog': [[False], [True], [True], []],
    }
    assert clusters_of(notes) is None  # no scene is named: each image is its own
    assert clusters_of(dataclasses.replace(notes, groups=('a', 'a', 'b', 'c'))) is not None


def test_without_labels_the_parents_detections_are_the_yardstick(
    pair: tuple[Bundle, Bundle], holdout: Path
) -> None:
    notes = read_dataset(holdout)
    hashes = Fingerprints.of((picture_hash(each) for each in notes.images()), notes.groups)
    terms = {'longest': {'frames': 4, 'objects': 400}, 'unit': 'layout'}
    found = certify_unlabelled(
        *pair, notes.images(), drives=notes.groups, holdout=hashes, used={}, **terms
    )
    labelled = certify_bundles(*pair, holdout, longest=LONGEST)
    assert list(found.statements) == ['lost', 'added', 'changed']
    lost = labelled.statements['lost']
    assert (found.headline.events, found.headline.counts) == (lost.events, lost.counts)
    assert sum(lost.events) > 0
    assert found.statements['changed'].events == labelled.statements['changed'].events
    assert sum(sum(found.slices[label].counts) for label in notes.labels) == sum(lost.counts)
    assert Certificate.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    with pytest.raises(PruningError, match='48 of the 48 frames of the hold-out are in the frames'):
        certify_unlabelled(
            *pair, notes.images(), drives=notes.groups, holdout=hashes,
            used={'the frames fitted to': hashes}, **terms,
        )  # fmt: skip
