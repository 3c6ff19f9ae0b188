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

"""Bundles in 8 bits: what they compute, what they record, where they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from layered_network import layered_onnx, pictures
from tiny_detector import square_image, write_tiny_bundle

from pruned_perception.bundle import (
    Bundle,
    BundleError,
    load_bundle,
    load_family,
    write_bundle,
)
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.errors import InferenceError
from pruned_perception.inference.reference import packed, sampled
from pruned_perception.quantization import (
    QuantizationError,
    QuantizationRecord,
    bundles,
    quantize_bundle,
)

Made = tuple[Bundle, QuantizationRecord]


@pytest.fixture(scope='module')
def made(layered: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp('int8') / 'layered-int8'
    return quantize_bundle(layered, pictures(12), folder, held_out=pictures(6, seed=1))


def test_a_quantised_detector_still_finds_the_squares(tiny_bundle: Bundle, tmp_path: Path) -> None:
    images = [square_image(c, x, 120, 120)[..., ::-1] for c in ('red', 'blue') for x in (80, 240)]
    bundle, record = quantize_bundle(tiny_bundle, images, tmp_path / 'q', held_out=images[1:])

    found, _ = Detector(bundle).detect(images[0])

    assert [bundle.labels[k] for k in found.class_ids] == ['red']
    np.testing.assert_allclose(found.boxes[0], (80, 120, 200, 240), atol=1)
    assert (record.shown, record.lost, record.invented) == (3, 0, 0)
    assert record.agreement == 1


def test_the_layers_are_in_8_bits_and_the_answers_near(layered: Bundle, made: Made) -> None:
    bundle, record = made
    kinds = [node.op_type for node in onnx.load_from_string(bundle.onnx_bytes).graph.node]
    in_8_bits = record.layers - len(record.float_layers)

    assert record.layers == 4
    assert in_8_bits >= 1
    assert kinds.count('DequantizeLinear') > 2 * in_8_bits  # activations, weights, biases
    assert 0 < record.divergence < 0.1
    assert 0 < record.output_error < 0.1
    assert record.held_out_images == 6


def test_what_follows_the_last_layer_stays_in_float(layered: Bundle, tmp_path: Path) -> None:
    bundle, record = quantize_bundle(
        layered,
        pictures(4),
        tmp_path / 'q',
        held_out=pictures(1, seed=1),
        float_share=0,
        leading_float=0,
    )
    graph = onnx.load_from_string(bundle.onnx_bytes).graph
    made_by = {value: node.op_type for node in graph.node for value in node.output}
    (concat,) = (node for node in graph.node if 'predictions' in node.output)

    assert record.float_layers == ()
    assert {made_by[value] for value in concat.input} == {'Mul', 'Sigmoid'}


def test_a_layer_that_does_not_bear_8_bits_is_left_in_float(tmp_path: Path) -> None:
    hard = write_tiny_bundle(tmp_path / 'hard', name='hard', onnx=layered_onnx(outlier=300))
    held = pictures(4, seed=1)
    _, all_8_bits = quantize_bundle(hard, pictures(8), tmp_path / 'a', held_out=held, float_share=0)
    _, mixed = quantize_bundle(hard, pictures(8), tmp_path / 'b', held_out=held, float_share=0.5)

    assert mixed.float_layers
    assert mixed.divergence < all_8_bits.divergence / 2


def test_layers_at_the_start_stay_in_float_where_that_is_asked_for(
    layered: Bundle, tmp_path: Path
) -> None:
    held = pictures(1, seed=1)
    bundle, record = quantize_bundle(
        layered, pictures(4), tmp_path / 'q', held_out=held, float_share=0, leading_float=2
    )
    nodes = onnx.load_from_string(bundle.onnx_bytes).graph.node
    kinds = [node.op_type for node in nodes]
    layers = tuple(node.name for node in nodes if node.op_type == 'Conv')

    assert record.leading_float == 2
    assert record.float_layers == layers[:2]
    assert bundle.manifest['quantization']['calibration']['leading_float'] == 2
    assert kinds.index('QuantizeLinear') > kinds.index('Conv')
    for number, words in ((-1, 'must be 0 or more'), (4, 'has 4 layers, of which one')):
        with pytest.raises(QuantizationError, match=f'leading_float.*{words}'):
            quantize_bundle(
                layered, pictures(4), tmp_path / 'no', held_out=held, leading_float=number
            )


@pytest.mark.parametrize(('faster', 'wanted'), [((), 0), ((1,), 1), ((1, 2), 2), ((2,), 0)])
def test_layers_at_the_start_stay_in_float_as_long_as_that_is_faster(
    layered: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faster: tuple[int, ...],
    wanted: int,
) -> None:
    trials = iter((1, 2))

    def durations(calls: list, *, rounds: int, runs: int, **_) -> np.ndarray:
        ms = [2.0, 1.0 if next(trials) in faster else 2.0]
        return np.broadcast_to(np.reshape(ms, (2, 1, 1)), (2, rounds, runs))

    monkeypatch.setattr(bundles, 'by_turns', durations)
    _, record = quantize_bundle(
        layered, pictures(4), tmp_path / 'q', held_out=pictures(1, seed=1), float_share=0
    )
    assert record.leading_float == len(record.float_layers) == wanted


def test_the_manifest_says_how_it_was_made(layered: Bundle, made: Made) -> None:
    bundle, record = made
    section = bundle.manifest['quantization']

    assert bundle.manifest['schema_version'] == 2
    assert bundle.name == 'layered-int8'
    assert bundle.manifest['parent'] == {'name': 'layered', 'sha256': layered.sha256}
    assert section['source'] == {'name': 'layered', 'sha256': layered.sha256}
    assert section['scheme'] == record.scheme
    assert section['made_on']['saturates'] == record.saturates
    assert section['float_layers'] == list(record.float_layers)
    assert 'calibration in 8 bits' in bundle.manifest['provenance']['seen']


def test_a_processor_that_computes_something_else_is_caught_at_load(
    made: Made, tmp_path: Path
) -> None:
    bundle, _ = made
    other = json.loads(json.dumps(bundle.manifest))
    (entry,) = other['quantization']['check']
    picture_there = sampled(np.zeros((1, 192, 7), np.float32))
    entry['values'] = packed(picture_there)
    other['quantization']['made_on'].update(processor='Elsewhere', arithmetic='AVX2')
    Detector(bundle)  # where it was made it loads

    moved = write_bundle(tmp_path / 'moved', bundle.onnx_bytes, other)

    with pytest.raises(InferenceError, match=r'something else on this processor.*Elsewhere, AVX2'):
        Detector(moved)


def test_the_check_cannot_be_loosened_unnoticed(made: Made, tmp_path: Path) -> None:
    bundle, _ = made
    write_bundle(tmp_path / 'q', bundle.onnx_bytes, bundle.manifest)
    file = tmp_path / 'q' / 'manifest.json'
    content = json.loads(file.read_text())
    content['quantization']['check'][0]['tolerance'] = 1e9
    file.write_text(json.dumps(content))

    with pytest.raises(BundleError, match='contract_sha256'):
        load_bundle(tmp_path / 'q')


@pytest.mark.parametrize('drop', [True, False])
def test_the_schema_version_tells_older_readers(made: Made, tmp_path: Path, drop: bool) -> None:
    """An installation from before refuses 2; so the section is never without it, nor it without."""
    bundle, _ = made
    content = dict(bundle.manifest)
    if drop:
        del content['quantization']
    else:
        content['schema_version'] = 1

    with pytest.raises(BundleError, match='field quantization'):
        write_bundle(tmp_path / 'q', bundle.onnx_bytes, content)


def test_a_member_in_8_bits_joins_the_family_of_its_parent(
    layered: Bundle, made: Made, tmp_path: Path
) -> None:
    for bundle in (made[0], layered):
        write_bundle(tmp_path / bundle.name, bundle.onnx_bytes, bundle.manifest)

    family = load_family(tmp_path)

    assert [each.name for each in family.members] == ['layered', 'layered-int8']
    assert family.member().name == 'layered'


def test_frames_that_are_all_alike_are_refused(layered: Bundle, tmp_path: Path) -> None:
    same = pictures(1) * 5
    with pytest.raises(QuantizationError, match='all 5 calibration images are the same'):
        quantize_bundle(layered, same, tmp_path / 'q', held_out=pictures(2))
    with pytest.raises(QuantizationError, match='no held-out image'):
        quantize_bundle(layered, pictures(2), tmp_path / 'q', held_out=[])
    assert not (tmp_path / 'q').exists()


def test_a_network_in_8_bits_is_not_quantised_again(made: Made, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match=r'model\.onnx: is quantised already'):
        quantize_bundle(made[0], pictures(2), tmp_path / 'q', held_out=pictures(1))


def test_an_unknown_scheme_is_named(layered: Bundle, tmp_path: Path) -> None:
    with pytest.raises(QuantizationError, match="'u4s4'; there are u8s8, u8s7"):
        quantize_bundle(layered, pictures(2), tmp_path / 'q', held_out=pictures(1), scheme='u4s4')


def test_agreement_without_objects_is_unknown(made: Made) -> None:
    assert replace(made[1], shown=0, lost=0).agreement is None
    assert bundles.FLOAT_SHARE < 1
