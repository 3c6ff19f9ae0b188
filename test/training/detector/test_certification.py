"""The certificate of a pair of bundles: decisions of the exported models, as on the robot."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import shapes
import tiny
import torch

from pruned_perception.bundle import Bundle, load_bundle
from pruned_perception.cli.main import main
from pruned_perception.datasets import DataError, read_dataset
from pruned_perception.pruning import Macs, PruningError, make_plan, recalibrate
from pruned_perception.pruning.certificate import Certificate
from pruned_perception.training.detector import certification
from pruned_perception.training.detector.certification import (
    certify_bundles,
    clusters_of,
    declared_slices,
)
from pruned_perception.training.detector.network import Detector


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
    arguments += ['--holdout', str(holdout), '--out', str(tmp_path / 'c.json')]
    assert main([*arguments, '--record', '--json']) == 0
    printed = json.loads(capsys.readouterr().out)
    bundle = load_bundle(small)
    assert (
        bundle.manifest['certificate'] == printed == json.loads((tmp_path / 'c.json').read_text())
    )
    assert bundle.sha256 == pair[1].sha256
    assert load_bundle(dense).manifest['certificate'] is None
    certificate = Certificate.from_dict(printed)
    assert (certificate.frames, certificate.clusters) == (48, 12)
    assert certificate.for_new_venues
    assert certificate.unit == 'layout'
    assert certificate.negative_flips is not None
    assert certificate.changed.rate > 0
    assert certificate.holdout_sha256 == read_dataset(holdout).digest
    assert certificate.record['child'] == {'name': 'small', 'sha256': pair[1].sha256}
    assert certificate.record['trained_on'] == ['abc']
    assert {'dark', 'a box below 48 px', 'with disc'} <= set(certificate.slices)

    page = tmp_path / 'page.html'
    assert main(['pruning-report', str(small), '--out', str(page)]) == 0
    assert 'frames of new layouts like these' in page.read_text(encoding='utf-8')


def test_the_same_decisions_change_nothing(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    parent, child = pair
    twin = dataclasses.replace(
        parent, manifest={**child.manifest, 'onnx': {**parent.manifest['onnx'], 'sha256': '0' * 64}}
    )
    certificate = certify_bundles(parent, twin, holdout)
    assert certificate.changed.rate == 0
    assert certificate.negative_flips is not None
    assert certificate.negative_flips.rate == 0
    assert 0 < certificate.changed.bound < 1


def test_a_wider_dead_band_lets_more_pass(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    rates = [
        certify_bundles(*pair, holdout, dead_band=band).changed.rate for band in (0.0, 0.1, 0.39)
    ]
    assert rates[0] >= rates[1] >= rates[2]
    assert rates[0] > rates[2]


def test_slices_without_a_frame_are_named_and_left_out(
    pair: tuple[Bundle, Bundle], holdout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certification, 'DARK', 0)
    certificate = certify_bundles(*pair, holdout)
    assert certificate.record['slices_without_frames'] == ['dark']
    assert 'dark' not in certificate.slices


def test_another_parents_child_is_refused(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    parent, child = pair
    manifest = {**child.manifest, 'parent': {'name': 'other', 'sha256': 'f' * 64}}
    with pytest.raises(PruningError, match='its parent is other'):
        certify_bundles(parent, dataclasses.replace(child, manifest=manifest), holdout)
    orphan = {**parent.manifest, 'parent': None}
    with pytest.raises(PruningError, match='is the same model as'):
        certify_bundles(parent, dataclasses.replace(parent, manifest=orphan), holdout)


def test_thresholds_that_differ_must_be_settled(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    parent, child = pair
    other = dataclasses.replace(child, thresholds=dataclasses.replace(child.thresholds, score=0.3))
    with pytest.raises(PruningError, match=r'0\.4 of dense, 0\.3 of small.*--score-threshold'):
        certify_bundles(parent, other, holdout)
    certificate = certify_bundles(parent, other, holdout, score_threshold=0.35)
    assert certificate.record['score_threshold'] == 0.35


def test_training_data_cannot_certify(pair: tuple[Bundle, Bundle], holdout: Path) -> None:
    parent, child = pair
    training = {'annotations_sha256': read_dataset(holdout).digest}
    manifest = {**child.manifest, 'provenance': {'training': training}}
    with pytest.raises(PruningError, match=r"record\['trained_on'\].*never share frames"):
        certify_bundles(parent, dataclasses.replace(child, manifest=manifest), holdout)


def test_other_labels_are_refused(pair: tuple[Bundle, Bundle], tmp_path: Path) -> None:
    shapes.write_shapes(tmp_path / 'set', 2, seed=0)
    file = tmp_path / 'set' / 'annotations.json'
    file.write_text(file.read_text().replace('"triangle"', '"hexagon"'))
    with pytest.raises(DataError, match=r'hexagon.*are not those of dense \(disc, square, tri'):
        certify_bundles(*pair, tmp_path / 'set')
    parent, child = pair
    other = dataclasses.replace(child, labels=('disc', 'square', 'hexagon'))
    with pytest.raises(PruningError, match=r'its labels .*hexagon.*are not those of dense'):
        certify_bundles(parent, other, tmp_path / 'set')


def test_a_unit_is_named_as_the_hold_out_names_it(
    pair: tuple[Bundle, Bundle], holdout: Path, tmp_path: Path
) -> None:
    venues = Path(shutil.copytree(holdout, tmp_path / 'venues'))
    file = venues / 'annotations.json'
    file.write_text(file.read_text().replace('"layout"', '"venue"'))
    assert certify_bundles(*pair, venues).unit == 'venue'
    assert certify_bundles(*pair, venues, unit='hall').unit == 'hall'


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
    found = declared_slices(notes, np.array([75.0, 74.9, 200.0, 0.0]))
    assert {name: chosen.tolist() for name, chosen in found.items()} == {
        'a box below 48 px': [True, False, False, False],
        'dark': [False, True, False, True],
        'with cat': [True, False, False, False],
        'with dog': [False, True, False, False],
    }
    assert clusters_of(notes) is None  # no scene is named: each image is its own
    assert clusters_of(dataclasses.replace(notes, groups=('a', 'a', 'b', 'c'))) is not None
