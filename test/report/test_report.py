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

"""The page about a pruned network says what is known, marks what is vacuous, and stands alone."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import networks
import numpy as np
import pytest
import torch
from tiny_detector import square_image, tiny_onnx, write_tiny_bundle

from pruned_perception.bundle import load_family
from pruned_perception.datasets.fingerprints import Fingerprints
from pruned_perception.inference.sources import Frame
from pruned_perception.pruning import (
    Macs,
    PruningError,
    allocate,
    estimate_sensitivity,
    make_plan,
    predict,
)
from pruned_perception.pruning.certificate import (
    Certificate,
    certify_counts,
    read_certificate,
)
from pruned_perception.pruning.measurement import measure_errors
from pruned_perception.pruning.plan import bound_text
from pruned_perception.report.before_after import most_different
from pruned_perception.report.findings import Accuracy, Against, Findings, against
from pruned_perception.report.page import _up, render, write_report

VOID = {'meta', 'img', 'br', 'line', 'rect', 'circle', 'polyline'}


class Page(HTMLParser):
    """Elements, attributes and text of a page whose tags match."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.attributes if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r'\s+', ' ', ' '.join(self.texts))


def cells_of(image: dict[str, str | None]) -> np.ndarray:
    """Return the colours (channels, 3), r, g, b, of a row of channels."""
    source = image['src']
    assert source is not None
    data = base64.b64decode(source.partition('base64,')[2])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[0, :, ::-1].astype(int)


@pytest.fixture(scope='module')
def known() -> Findings:
    """Return all that can be known of a pruned concatenating network."""
    torch.manual_seed(0)
    model = networks.Concatenation().eval()
    images = [torch.rand(16, 3, 16, 16) for _ in range(2)]
    found = estimate_sensitivity(model, images, example_inputs=networks.INPUT)
    plan = allocate(found, Macs(0.2), round_to=4)
    changed, ones = np.zeros(300, int), np.ones(300, int)
    changed[:30] = 1
    return Findings(
        'concatenation',
        plan,
        measured=measure_errors(model, plan, images),
        sensitivity=found,
        curves=tuple(predict(found, selection=each) for each in ('deterministic', 'random')),
        certificate=certify_counts(
            {'missed': (changed, 3 * ones), 'changed': (changed, ones)},
            clusters=np.repeat(np.arange(20), 15),
            longest={'frames': 15, 'objects': 45},
            terms={'objects': 'score ≥ 0.4', 'frames': 'dead-band ±0.1'},
            slices={'dark & wet': (changed, 2 * ones)},
            holdout=Fingerprints(),
            used={},
        ),
    )


def test_the_page_is_whole_and_fetches_nothing(known: Findings) -> None:
    page = Page(render(known))
    assert not page.of('script')
    assert not page.of('link')
    for _, attributes in page.attributes:
        for name in ('src', 'href', 'action', 'data'):
            assert (attributes.get(name) or 'data:').startswith('data:')
    assert 'url(' not in render(known)
    assert all(image['alt'] for image in page.of('img'))
    assert all(picture['role'] == 'img' and picture['aria-label'] for picture in page.of('svg'))
    assert all('scope' in cell for cell in page.of('th'))


def test_a_row_for_each_layer_has_its_figures(known: Findings) -> None:
    text = Page(render(known)).text
    layers = {each.layer: each for each in known.layers()}
    assert set(layers) == {'left.0', 'right.0', 'merge.0', 'head'}
    merge = layers['merge.0']
    assert set(merge.reads) == {'left.0', 'right.0'}
    assert merge.channels == 80
    assert merge.kept == len(known.plan.kept['left.0']) + len(known.plan.kept['right.0'])
    for each in layers.values():
        assert each.total is not None
        assert each.mean is not None
        assert f'{each.layer} {" + ".join(each.reads)} {each.channels} {each.total:.2f}' in text
        assert f'{each.mean:.1%} {each.largest:.1%}' in text


def test_bounds_are_sums_of_what_is_cut_and_hold_on_the_calibration_set(known: Findings) -> None:
    assert known.sensitivity is not None
    for layer in known.layers():
        parts = [each for each in known.sensitivity.consumers if each.layer == layer.layer]
        cut = sum(
            value
            for part in parts
            for index, value in enumerate(part.values)
            if index not in known.plan.kept[part.group]
        )
        assert layer.bound == pytest.approx(cut)
        assert layer.largest is not None
        assert layer.largest <= layer.bound + 1e-5


def test_only_bounds_of_one_and_more_are_called_vacuous(known: Findings) -> None:
    layers = known.layers()
    vacuous = sum(each.vacuous for each in layers)
    assert 0 < vacuous < len(layers)
    rows = re.findall(r'<tr>.*?</tr>', render(known), re.S)
    for each in layers:
        (row,) = [row for row in rows if f'row">{each.layer}<' in row and 'class="kept"' in row]
        assert ('vacuous' in row) == each.vacuous
    assert f'vacuous in {vacuous} of {len(layers)}' in render(known)


def test_the_heat_map_shows_each_channel_kept_or_cut(known: Findings) -> None:
    page = Page(render(known))
    for image, layer in zip(page.of('img'), known.layers(), strict=True):
        colors = cells_of(image)
        blue = colors[:, 2] > colors[:, 0]
        assert len(colors) == layer.channels
        assert blue.sum() == layer.kept
        ordered = sorted(layer.cells, key=lambda cell: -cell[0])
        assert blue.tolist() == [kept for _, kept in ordered]
        brightness = colors.sum(1)
        for kind in (blue, ~blue):  # the more sensitive, the darker
            assert (np.diff(brightness[kind]) >= 0).all()
        alt = image['alt']
        assert alt is not None
        assert alt.startswith(f'{layer.layer}: {layer.kept} of {layer.channels} channels kept')


def test_the_curves_carry_the_plans_real_size(known: Findings) -> None:
    page = render(known)
    share = known.plan.macs / known.plan.dense_macs
    assert f'this plan: {share:.1%}' in page
    assert f'this plan: {known.plan.parameters / known.plan.dense_parameters:.1%}' in page
    y = 14 + (1 - share) * 242
    assert f'y1="{y:.1f}" y2="{y:.1f}" stroke="var(--ink)"' in page
    assert page.count('<polyline') == 4


def test_the_certificate_is_in_plain_words(known: Findings) -> None:
    assert isinstance(known.certificate, Certificate)
    page = Page(render(known))
    for line in known.certificate.paragraphs():
        assert line in page.text
    first = known.certificate.headline
    assert f'misses {first.bound_text} of the objects that the dense network finds' in page.text
    assert html.escape('dark & wet') in render(known)
    assert f'4.2% {known.certificate.slices["dark & wet"].bound_text}' not in page.text
    assert f'5.0% {known.certificate.slices["dark & wet"].bound_text}' in page.text


def test_a_former_certificate_is_shown_as_what_it_is(known: Findings) -> None:
    rate = {'frames': 2000, 'clusters': 100, 'rate': 0.0615, 'bound': 0.0912}
    record = {'score_threshold': 0.4, 'dead_band': 0.1, 'iou_threshold': 0.5}
    former = read_certificate(
        {
            'unit': 'layout', 'confidence': 0.95, 'changed': rate, 'negative_flips': None,
            'slices': {}, 'record': record,
        }
    )  # fmt: skip
    text = Page(render(dataclasses.replace(known, certificate=former))).text
    assert 'frames only an earlier kind of certificate, with a dead-band' in text
    assert 'dead-band of ±0.1' in text


def test_what_is_not_known_is_said_to_be_missing() -> None:
    model = networks.Residual().eval()
    plan = make_plan(model, networks.INPUT, budget=Macs(0.5))
    page = Page(render(Findings('residual', plan)))
    assert 'There is none yet' in page.text
    assert 'it needs sensitivities' in page.text
    assert not page.of('img')
    assert not page.of('svg')
    for name, why in plan.not_pruned.items():
        assert f'{name} : {why}' in page.text


def test_of_random_selection_the_bound_is_that_of_the_plan(known: Findings) -> None:
    assert known.sensitivity is not None
    plan = allocate(known.sensitivity, Macs(0.6), selection='random')
    drawn = dataclasses.replace(known, plan=plan, measured=None)
    layers = {each.layer: each for each in drawn.layers()}
    assert layers['head'].bound == plan.errors['merge.0']
    assert layers['merge.0'].bound == plan.errors['left.0'] + plan.errors['right.0']
    assert 'Bernstein' in render(drawn)


def comparison(**changes: object) -> dict[str, object]:
    row = {
        'method': 'ours',
        'budget': '0.2 of the MACs',
        'finetuning': '–',
        'seeds': [0, 1],
        'macs_share': 0.6,
        'params_share': 0.5,
        'before': {'mean': 70.0, 'deviation': 1.0},
        'after': {'mean': 71.25, 'deviation': 0.5},
        'test': None,
        'difference': {'mean': 1.5, 'low': -0.5, 'high': 3.5, 'pairs': 2, 'confidence': 0.95},
        'test_difference': None,
        'cpu_seconds': 1.0,
    }
    rows = [
        row,
        {**row, 'method': 'elsewhere', 'budget': '0.3 of the MACs'},
        {**row, 'method': 'parent', 'budget': '–', 'difference': None},
    ]
    table = {'figure': 'accuracy', 'baseline': '<l2>', 'rows': rows, 'cells': 4, 'missing': []}
    return table | changes


def test_baselines_are_shown_at_the_plans_budget(known: Findings) -> None:
    page = Page(render(dataclasses.replace(known, comparison=comparison(missing=['l2-seed1']))))
    assert 'All at 0.2 of the MACs' in page.text
    assert '71.25 ± 0.5 +1.5 -0.5 … +3.5' in page.text
    assert 'elsewhere' not in page.text
    assert 'parent 2' in page.text
    assert 'to <l2>' in page.text
    assert 'Not finished: l2-seed1' in page.text
    elsewhere = {**comparison(), 'rows': comparison()['rows'][1:2]}  # type: ignore[index]
    other = Page(render(dataclasses.replace(known, comparison=elsewhere)))
    assert 'elsewhere 0.3 of the MACs' in other.text


def test_earlier_cuts_are_told_of_and_what_is_left_of_the_first_network(known: Findings) -> None:
    earlier = dataclasses.replace(known.plan, dense_macs=4 * known.plan.macs)
    page = Page(render(dataclasses.replace(known, earlier=(earlier,))))
    (lead,) = [text for text in page.texts if 'This is cut 2' in text]
    assert '25.0% are left' in lead
    assert not any('This is cut' in text for text in Page(render(known)).texts)


def test_something_else_than_a_comparison_is_refused(known: Findings) -> None:
    for wrong in ({}, {'rows': [1]}, comparison(rows=[{'budget': 'x'}])):
        with pytest.raises(PruningError, match='comparison: not the table of a comparison'):
            render(dataclasses.replace(known, comparison=wrong))


def test_names_cannot_break_the_page(known: Findings) -> None:
    name = '<script>alert("x")</script> & co'
    hostile = comparison(figure='<b>', missing=['\x1b[2J$x'])
    page = Page(render(dataclasses.replace(known, name=name, comparison=hostile)))
    assert not page.of('script')
    assert name in page.text
    assert '<b>' in page.text
    assert r'Not finished: \x1b[2J$x.' in page.text
    assert '\x1b' not in page.text


def test_findings_are_plain_data(known: Findings) -> None:
    known = dataclasses.replace(known, earlier=(known.plan,))
    data = json.loads(json.dumps(known.to_dict(), allow_nan=False))
    again = Findings.from_dict(data)
    assert again.to_dict() == known.to_dict()
    assert render(again) == render(known)
    assert known.plan.to_text() in known.to_text()
    assert known.certificate is not None
    assert known.certificate.to_text() in known.to_text()
    with pytest.raises(PruningError, match=r'field Findings\.name is missing'):
        Findings.from_dict({'plan': data['plan']})


def test_sensitivities_of_another_network_are_refused(known: Findings) -> None:
    model = networks.Residual().eval()
    plan = make_plan(model, networks.INPUT, budget=Macs(0.5))
    with pytest.raises(PruningError, match='of another network than the plan'):
        dataclasses.replace(known, plan=plan)


def test_sensitivities_of_the_pruned_network_are_not_those_of_its_plan(known: Findings) -> None:
    torch.manual_seed(0)
    small = known.plan.apply(networks.Concatenation().eval())
    images = [torch.rand(16, 3, 16, 16)]
    found = estimate_sensitivity(small, images, example_inputs=networks.INPUT)
    with pytest.raises(PruningError, match=r'group .* has \d+ channels'):
        dataclasses.replace(known, sensitivity=found)


def test_a_page_that_cannot_be_written_names_the_file(known: Findings, tmp_path: Path) -> None:
    write_report(known, tmp_path / 'new' / 'page.html')
    assert (tmp_path / 'new' / 'page.html').read_text(encoding='utf-8') == render(known)
    with pytest.raises(PruningError, match=r'page\.html.*cannot be written'):
        write_report(known, tmp_path / 'new' / 'page.html' / 'below')


def test_what_users_judge_by_comes_first_and_against_the_dense_network(known: Findings) -> None:
    beside = Against(
        'mother', 120_000_000, 1_000_000_000, 50_000, 400_000, 2**20, 2**23, 3.25, 7.5,
        (7.25, 7.75), 'a processor',
        Accuracy('new halls', 600, 0.8125, (0.8, 0.825), 0.84375, None),
    )  # fmt: skip
    earlier = dataclasses.replace(known.plan, dense_macs=4 * known.plan.macs)
    page = Page(render(dataclasses.replace(known, earlier=(earlier,), against=beside)))
    start = page.text.index('12.0% of the MACs 120 M for the 1.00 G of mother')
    assert start < page.text.index('A row for each layer')
    assert '12.5% of the parameters 50,000 for 400,000; 1.00 MiB for 8.00' in page.text
    assert '7.50 × as fast as mother [7.25, 7.75]: 3.2 ms a run, the engine alone' in page.text
    assert 'AP50 0.812 [0.800, 0.825] mother: 0.844; new halls, 600 frames' in page.text
    first = Page(render(dataclasses.replace(known, earlier=(earlier,)))).text
    assert '25.0% of the MACs' in first  # of the first network, not of the last cut's


def test_what_is_recorded_beside_the_dense_bundle_is_found(tiny_family: Path) -> None:
    dense, small = load_family(tiny_family).members
    found = against(small, dense)
    assert (found.dense, found.macs, found.dense_macs) == ('dense', 1000, 2000)
    assert found.speedup is None
    assert found.accuracy is None


def test_columns_without_anything_in_them_are_folded(known: Findings) -> None:
    plan = known.plan
    errors = {name: 3.0 if index else 0.0 for index, name in enumerate(plan.kept)}
    bare = Findings('bare', dataclasses.replace(plan, errors=errors))
    page = Page(render(bare))
    head = ' '.join(each for each in page.texts if each in ('a priori', 'measured', 'kept'))
    assert head == 'kept'
    assert 'A-priori bounds say nothing here' in page.text
    assert page.text.count('3.00') == len(plan.kept) - 1


def test_bars_are_long_where_a_layer_is_easily_compressed(known: Findings) -> None:
    rows = re.findall(r'<tr><th scope="row">(.*?)<.*?width:([\d.]+)%', render(known), re.S)
    widths = dict(rows)
    for each in known.layers():
        assert each.total is not None
        wanted = 100 * max(0.0, 1 - each.total / each.channels)
        assert float(widths[each.layer]) == pytest.approx(wanted, abs=0.06)


def test_bounds_are_rounded_up_and_never_below_themselves(known: Findings) -> None:
    for bound in (0.95466, 0.951, 0.29, 0.3, 1e-4, 7.0):
        shown = _up(bound)
        assert float(shown) >= bound
        assert float(shown) < bound + 0.01
        assert float(bound_text(bound).split()[0]) >= bound - 1e-12
    errors = dict.fromkeys(known.plan.kept, 0.95466)
    plan = dataclasses.replace(known.plan, errors=errors)
    text = Page(render(Findings('close', plan))).text
    assert '≤ 0.955' in text
    assert '0.96' in text


def test_frames_that_differ_most_are_shown_first(tiny_family: Path, tmp_path: Path) -> None:
    dense = write_tiny_bundle(tmp_path / 'dense', name='dense', macs=2000)
    parent = {'name': 'dense', 'sha256': dense.sha256}
    # Its boxes are too small to be the same objects.
    small = write_tiny_bundle(
        tmp_path / 'small', name='small', macs=1000, parent=parent, onnx=tiny_onnx(scale=0.2)
    )
    pictures = [
        square_image('red', left=200, top=160, side=120),
        np.zeros((480, 640, 3), np.uint8),
        square_image('red', left=200, top=160, side=120)
        + square_image('blue', left=400, top=160, side=120),
    ]
    frames = [Frame(f'/a/{k}.png', k, None, each, 'rgb') for k, each in enumerate(pictures)]
    pairs = most_different(dense, small, frames, 2)
    assert [(each.name, each.lost) for each in pairs] == [('2.png #2', 2), ('0.png #0', 1)]
    assert all(each.gained >= each.lost for each in pairs)
    data = base64.b64decode(pairs[0].address.partition('base64,')[2])
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (480, 2 * 640 + 8, 3)
    assert picture[220, 260, 2] > 200  # red is red
    known_page = render(
        Findings('with', make_plan(networks.Residual().eval(), networks.INPUT, budget=Macs(0.5))),
        pairs,
    )
    assert '2 of the dense network’s detections missing' in Page(known_page).text
