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

"""Members under corruption: known answers, pairing, resumption, what is certified and refused.

The dense net reports a full-bright square from a mean of 141 grey levels on, the small one from
164: of a square of 255, `dark` leaves 153 at severity 1 (the small one misses it, the dense one
does not) and 102 at severity 2 (both miss it).
"""

from __future__ import annotations

import base64
import dataclasses
import doctest
import json
import re
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_detector import LABELS, square_image, tiny_manifest, write_tiny_bundle

from pruned_perception.bundle import Bundle, load_family
from pruned_perception.cli.main import main
from pruned_perception.datasets import read_dataset
from pruned_perception.datasets.fingerprints import SEEN, fingerprints
from pruned_perception.errors import UserError
from pruned_perception.pruning import PruningError
from pruned_perception.pruning.prune_potential import PrunePotential, certify_potential
from pruned_perception.training.detector import robustness
from pruned_perception.training.detector.robustness import NET, Robustness, measure, spread

LAYOUTS, PER_LAYOUT = 48, 2


@pytest.fixture(scope='module')
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of one square a frame."""
    folder = tmp_path_factory.mktemp('squares')
    (folder / 'images').mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index in range(LAYOUTS * PER_LAYOUT):
        kind, column, row = (int(rng.integers(n)) for n in (3, 12, 8))
        picture = square_image(LABELS[kind], 8 * column, 8 * row, 24, height=96, width=128)
        cv2.imwrite(str(folder / 'images' / f'{index}.png'), picture[..., ::-1])
        images.append(
            {
                'id': index,
                'file_name': f'{index}.png',
                'height': 96,
                'width': 128,
                'layout': index // PER_LAYOUT,
            }
        )
        box = {'id': index + 1, 'image_id': index, 'category_id': kind, 'iscrowd': 0, 'area': 576}
        annotations.append({**box, 'bbox': [8 * column, 8 * row, 24, 24]})
    categories = [{'id': k, 'name': name} for k, name in enumerate(LABELS)]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folder / 'annotations.json').write_text(json.dumps(content))
    return folder


@pytest.fixture(scope='module')
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('family')
    thresholds = {**tiny_manifest()['thresholds'], 'score': 0.6}
    dense = write_tiny_bundle(folder / 'dense', name='dense', macs=2000, thresholds=thresholds)
    write_tiny_bundle(
        folder / 'small',
        name='small',
        macs=1000,
        gain=90.0,
        parent={'name': 'dense', 'sha256': dense.sha256},
        thresholds=thresholds,
    )
    return folder


@pytest.fixture(scope='module')
def members(family: Path) -> tuple[Bundle, ...]:
    return load_family(family).members


@pytest.fixture(scope='module')
def found(
    members: tuple[Bundle, ...], frames: Path, tmp_path_factory: pytest.TempPathFactory
) -> Robustness:
    out = tmp_path_factory.mktemp('out')
    return measure(members, frames, out, names=('dark', 'jpeg'), severities=(1, 2))


def test_known_answers(found: Robustness) -> None:
    assert (found.frames, found.layouts, found.objects) == (96, 48, 96)
    assert found.missed['clean'] == {'dense': 0, 'small': 0}
    assert found.missed['dark-1'] == {'dense': 0, 'small': 1}
    assert found.missed['dark-2'] == {'dense': 1, 'small': 1}
    assert found.ap50['clean'] == pytest.approx({'dense': 1, 'small': 1})
    assert found.loss['dark-1']['small'].value == 1
    assert found.excess['dark-1']['small'] == robustness.Loss(1, 1, 1)
    assert found.excess['dark-2']['small'].value == 0
    assert found.distance['clean']['small']['equal'] == 1
    assert 0 < found.distance['clean']['small']['outputs'] < 1
    # noise moves the dense net further, the louder it is
    assert found.distance['uniform-8']['dense']['outputs'] > 0
    assert (
        found.distance['uniform-32']['dense']['outputs']
        > found.distance['uniform-8']['dense']['outputs']
    )


def test_what_is_certified(found: Robustness) -> None:
    assert found.certified('clean') == ('small', None, None)
    assert found.certified('jpeg') == ('small', None, None)
    assert found.certified('dark') == ('dense', None, None)
    assert {name: found.measured(name) for name in found.potential} == {
        'clean': 'small',
        'jpeg': 'small',
        'dark': 'dense',
    }
    assert found.entry('small', 'x')['prune_potential']['certified'] == {
        'clean': True,
        'dark': [],
        'jpeg': [1, 2],
    }


def test_a_member_may_be_certified_up_to_a_severity(found: Robustness) -> None:
    one = dataclasses.replace(found, potential={'dark': PrunePotential(1, (4.0, 0.0))})
    assert one.certified('dark') == ('dense', 'small', 1)
    assert one.entry('small', 'x')['prune_potential']['certified'] == {'dark': [1]}


def test_a_loss_at_one_severity_alone_is_not_certified_away() -> None:
    # Clean and at severity 1 nothing is lost; at severity 2 a tenth of the layouts lose everything.
    margin, layouts, worlds = 0.1, 60, 500
    rng = np.random.default_rng(0)
    nothing = np.zeros(layouts)
    wrong = believed = 0
    for _ in range(worlds):
        collapse = (rng.random(layouts) < margin).astype(float)
        chains = {'clean': [nothing], 'dark': [nothing, collapse], 'fog': [nothing, nothing]}
        potential = certify_potential(chains, margin=margin)
        assert potential['fog'].certified == 2
        wrong += potential['dark'].certified == 2
        believed += collapse.mean() < margin
    assert wrong <= 0.05 * worlds
    assert believed > 0.3 * worlds  # what is measured would be wrong that often


def test_few_layouts_certify_nothing(
    members: tuple[Bundle, ...], frames: Path, tmp_path: Path
) -> None:
    few = measure(members, frames, tmp_path, names=('jpeg',), severities=(1,), images=20)
    assert (few.frames, few.layouts) == (20, 20)
    assert few.certified('clean')[0] == 'dense'
    assert few.measured('clean') == 'small'


def test_partings_are_what_the_dense_net_finds_and_the_member_misses(found: Robustness) -> None:
    assert found.partings
    assert {each.condition.key for each in found.partings} == {'dark-1'}
    for each in found.partings:
        assert (each.member, each.lost, each.gained) == ('small', (0,), 0)
        assert (len(each.dense), len(each.pruned)) == (1, 0)


def test_an_interrupted_measurement_goes_on_and_ends_alike(
    members: tuple[Bundle, ...], frames: Path, found: Robustness, tmp_path: Path
) -> None:
    def interrupt(what: str, done: int, total: int, left: float | None) -> None:
        if what == 'dark-2' and done > 200:
            raise KeyboardInterrupt

    kinds = {'names': ('dark', 'jpeg'), 'severities': (1, 2)}
    with pytest.raises(KeyboardInterrupt):
        measure(members, frames, tmp_path, **kinds, progress=interrupt)
    kept = {file.stem for file in (tmp_path / 'conditions').iterdir()}
    assert kept == {'clean', 'dark-1'}
    fresh: Counter[str] = Counter()
    again = measure(
        members, frames, tmp_path, **kinds, progress=lambda what, *_: fresh.update([what])
    )
    assert set(fresh) == {'dark-2', 'jpeg-1', 'jpeg-2', 'uniform-8', 'uniform-32'}
    assert again.to_dict() == found.to_dict()


def test_a_folder_of_another_run_is_refused(
    members: tuple[Bundle, ...], frames: Path, tmp_path: Path
) -> None:
    kinds = {'names': ('jpeg',), 'severities': (1,), 'images': 4}
    measure(members, frames, tmp_path, **kinds)
    with pytest.raises(UserError, match=r'another run \(other seed\)'):
        measure(members, frames, tmp_path, **kinds, seed=1)
    with pytest.raises(UserError, match='other frames'):
        measure(members, frames, tmp_path, **{**kinds, 'images': 5})
    # more of the same is no other run
    measure(members, frames, tmp_path, **{**kinds, 'severities': (1, 2)})


@pytest.mark.parametrize('damage', ['cut', 'edited', 'other'])
def test_a_damaged_result_is_named(
    members: tuple[Bundle, ...], frames: Path, tmp_path: Path, damage: str
) -> None:
    kinds = {'names': ('jpeg',), 'severities': (1,), 'images': 4}
    measure(members, frames, tmp_path, **kinds)
    file = tmp_path / 'conditions' / 'jpeg-1.json'
    content = json.loads(file.read_text())
    content['missed']['small'][0] = 7  # of one object
    file.write_text(
        {'cut': file.read_text()[:40], 'edited': json.dumps(content), 'other': '[]'}[damage]
    )
    with pytest.raises(UserError, match=r'jpeg-1\.json'):
        measure(members, frames, tmp_path, **kinds)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 80))
def test_frames_are_spread_over_layouts(sizes: list[int], count: int) -> None:
    groups = [str(k) for k, size in enumerate(sizes) for _ in range(size)]
    chosen = spread(groups, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(groups))
    taken = Counter(groups[index] for index in chosen)
    for k, size in enumerate(sizes):  # as many of each, as far as it has them
        assert taken[str(k)] >= min(size, max(taken.values()) - 1)


def test_examples_in_the_documentation_hold() -> None:
    tested = doctest.testmod(robustness)
    assert (tested.attempted, tested.failed) == (1, 0)


def test_the_command_writes_page_pictures_json_and_the_manifests(
    family: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, out = tmp_path / 'family', tmp_path / 'out'
    shutil.copytree(family, mine)
    command = ['evaluate', str(frames), '--model', str(mine), '--data-name', 'squares']
    command += ['--out', str(out), '--severities', '1', '--record', '--corruptions', 'dark', 'jpeg']
    assert main(command) == 0
    text = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines()]
    assert ['dark', 'dense', 'dense'] in rows
    assert ['jpeg', 'small', 'small'] in rows
    assert ['dark 1', '0.0', '+100.0 [+100.0, +100.0]'] in rows
    assert 'on average over new layouts like these' in text
    assert 'score ≥ 0.6' in text
    page = (out / 'index.html').read_text()
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(pictures) == 2
    assert 'dark 1: small misses 1 that dense finds' in page
    for each in pictures:
        data = np.frombuffer(base64.b64decode(each), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert picture.shape[1] == 2 * 640 + 6
        for half in (picture[30:, :640], picture[30:, 646:]):  # what is missed has its frame
            assert ((half[..., [0, 2]] > 180).all(-1) & (half[..., 1] < 100)).any()
    result = json.loads((out / 'robustness.json').read_text())
    assert result['certified'] == {'clean': 'small', 'dark': 'dense', 'jpeg': 'small'}

    for bundle in load_family(mine).members:
        (entry,) = bundle.manifest['evaluation']
        assert (entry['net'], entry['data'], entry['frames']) == (NET, 'squares', 96)
        assert set(entry['conditions']) == {'clean', 'dark', 'jpeg'}
        assert entry['conditions']['dark']['1']['missed'] == float(bundle.name == 'small')
    # again, from what is there: nothing changes, and nothing is there twice
    assert main([*command, '--json']) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == result
    assert len(load_family(mine).member('small').manifest['evaluation']) == 1


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (['--corruptions', 'snow'], 'there are noise, blur, motion, dark, glare, jpeg, fog'),
        (['--corruptions', '--margin', '0'], 'margin must be in'),
        (['--corruptions', '--confidence', '1'], 'confidence must be in'),
        (['--corruptions', '--member', 'dense'], 'what others are compared with'),
        (['--corruptions', '--member', 'tiny'], 'it has dense, small'),
        ([], '--out goes with --corruptions'),
    ],
)
def test_bad_options_are_refused_before_anything_runs(
    family: Path,
    frames: Path,
    tmp_path: Path,
    change: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / 'out'
    assert main(['evaluate', str(frames), '--model', str(family), '--out', str(out), *change]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize('severity', ['0', '6'])
def test_severities_are_1_to_5(severity: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(['evaluate', 'frames', '--model', 'family', '--corruptions', '--severities', severity])
    assert end.value.code == 2
    assert f'--severities: {severity} is ' in capsys.readouterr().err


def test_without_a_folder_or_a_family_it_is_refused(
    family: Path, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ['evaluate', str(frames), '--corruptions', '--model']
    assert main([*command, str(family)]) == 1
    assert '--out FOLDER' in capsys.readouterr().err
    assert main([*command, str(family / 'small'), '--out', str(tmp_path / 'out')]) == 1
    assert 'give the family' in capsys.readouterr().err


def test_frames_that_a_member_was_trained_on_are_refused(
    members: tuple[Bundle, ...], frames: Path, found: Robustness, tmp_path: Path
) -> None:
    digest = found.record['annotations_sha256']
    provenance = {**members[1].manifest['provenance'], 'training': {'annotations_sha256': digest}}
    trained = dataclasses.replace(
        members[1], manifest={**members[1].manifest, 'provenance': provenance}
    )
    with pytest.raises(PruningError, match='small was trained on these frames'):
        measure((members[0], trained), frames, tmp_path / 'out')


def test_frames_of_a_part_that_a_member_was_trained_on_are_refused_too(
    members: tuple[Bundle, ...], frames: Path, tmp_path: Path
) -> None:
    """The part has annotations of its own, so that no hash of these tells."""
    part = fingerprints(read_dataset(frames).subset([0, 1]))
    provenance = {**members[1].manifest['provenance'], SEEN: {'training': part.to_dict()}}
    trained = dataclasses.replace(
        members[1], manifest={**members[1].manifest, 'provenance': provenance}
    )
    with pytest.raises(PruningError, match='frames of the hold-out are in the training data'):
        measure((members[0], trained), frames, tmp_path / 'out')


def test_other_thresholds_are_refused(
    members: tuple[Bundle, ...], frames: Path, tmp_path: Path
) -> None:
    thresholds = dataclasses.replace(members[1].thresholds, score=0.3)
    other = dataclasses.replace(members[1], thresholds=thresholds)
    with pytest.raises(PruningError, match=r'0\.6 of dense, 0\.3 of small'):
        measure((members[0], other), frames, tmp_path / 'out')
