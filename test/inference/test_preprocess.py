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

"""Placement and tensor, against the plain formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruned_perception.bundle import InputSpec
from pruned_perception.inference.errors import ImageError
from pruned_perception.inference.preprocess import Preprocessor, boxes_to_source, place


def make_spec(**changes) -> InputSpec:
    spec = {
        'name': 'image',
        'height': 48,
        'width': 64,
        'dtype': 'float32',
        'layout': 'NCHW',
        'color': 'rgb',
        'resize': 'letterbox',
        'align': 'center',
        'pad_value': 114,
        'mean': (0.0, 0.0, 0.0),
        'std': (1.0, 1.0, 1.0),
        **changes,
    }
    height, width = spec.pop('height'), spec.pop('width')
    shape = (1, 3, height, width) if spec['layout'] == 'NCHW' else (1, height, width, 3)
    return InputSpec(shape=shape, **spec)


specs = st.builds(
    make_spec,
    height=st.integers(1, 80),
    width=st.integers(1, 80),
    dtype=st.sampled_from(['float32', 'uint8']),
    layout=st.sampled_from(['NCHW', 'NHWC']),
    color=st.sampled_from(['rgb', 'bgr']),
    resize=st.sampled_from(['stretch', 'letterbox']),
    align=st.sampled_from(['center', 'top_left']),
)
sides = st.integers(1, 300)
unit = st.floats(0, 1, width=32)


@given(specs, sides, sides, st.lists(st.tuples(unit, unit, unit, unit), max_size=4))
def test_boxes_return_to_where_they_came_from(spec, height, width, corners):
    source = np.array(corners, np.float32).reshape(-1, 4) * [width, height, width, height]
    at = place(spec, height, width)
    scale = np.array([at.scale_x, at.scale_y] * 2)
    offset = np.array([at.offset_x, at.offset_y] * 2)
    there = (source * scale + offset).astype(np.float32)
    back = boxes_to_source(there, at, height, width)
    tolerance = 1e-4 * max(height, width) / min(at.scale_x, at.scale_y, 1)
    np.testing.assert_allclose(back, source, atol=tolerance)
    assert back.dtype == np.float32


@given(specs, sides, sides)
def test_the_image_lies_inside_the_input_and_keeps_its_shape(spec, height, width):
    at = place(spec, height, width)
    assert 1 <= at.width <= spec.width
    assert 1 <= at.height <= spec.height
    assert 0 <= at.offset_x <= spec.width - at.width
    assert 0 <= at.offset_y <= spec.height - at.height
    if spec.resize == 'stretch':
        assert (at.width, at.height) == (spec.width, spec.height)
    else:
        # One side fills the input, the other is right to half a pixel (or is a single one).
        assert at.width == spec.width or at.height == spec.height
        scale = min(spec.width / width, spec.height / height)
        assert abs(at.width - width * scale) <= 0.5 or at.width == 1
        assert abs(at.height - height * scale) <= 0.5 or at.height == 1
        if spec.align == 'center':
            assert abs(2 * at.offset_x + at.width - spec.width) <= 1
            assert abs(2 * at.offset_y + at.height - spec.height) <= 1
        else:
            assert (at.offset_x, at.offset_y) == (0, 0)


def test_boxes_are_clipped_to_the_image():
    at = place(make_spec(resize='stretch'), 480, 640)
    boxes = np.array([[-10, -10, 1000, 1000], [np.inf, 0, np.inf, 1]], np.float32)
    clipped = boxes_to_source(boxes, at, 480, 640)
    np.testing.assert_allclose(clipped, [[0, 0, 640, 480], [640, 0, 640, 10]])


@given(specs, sides, sides, st.sampled_from(['rgb', 'bgr', 'gray']), st.integers(0, 255))
def test_one_colour_fills_its_place_and_the_border_the_rest(spec, height, width, order, level):
    channels = np.array([level, 255 - level, 7], np.uint8)
    if order == 'gray':
        image, rgb = np.full((height, width), level, np.uint8), np.full(3, level)
    else:
        image = np.broadcast_to(channels, (height, width, 3)).copy()
        rgb = channels if order == 'rgb' else channels[::-1]
    tensor, at = Preprocessor(spec)(image, order)
    assert tensor.shape == spec.shape
    assert tensor.dtype == spec.dtype
    seen = tensor[0] if spec.layout == 'NHWC' else tensor[0].transpose(1, 2, 0)
    wanted = np.full((spec.height, spec.width, 3), spec.pad_value)
    inside = wanted[at.offset_y : at.offset_y + at.height, at.offset_x : at.offset_x + at.width]
    inside[:] = rgb if spec.color == 'rgb' else rgb[::-1]
    np.testing.assert_array_equal(seen, wanted)


@pytest.mark.parametrize('layout', ['NCHW', 'NHWC'])
def test_normalisation_is_per_channel_in_the_order_of_the_network(layout):
    mean, std = (103.5, 116.3, 123.7), (57.4, 57.1, 58.4)
    spec = make_spec(layout=layout, color='bgr', mean=mean, std=std, resize='stretch')
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    tensor, _ = Preprocessor(spec)(image, 'rgb')
    wanted = (image[..., ::-1].astype(np.float64) - mean) / std
    seen = tensor[0] if layout == 'NHWC' else tensor[0].transpose(1, 2, 0)
    np.testing.assert_allclose(seen, wanted, atol=1e-5)


def test_a_network_of_bytes_gets_the_canvas_without_a_copy():
    preprocess = Preprocessor(make_spec(dtype='uint8', layout='NHWC', resize='stretch'))
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    first, _ = preprocess(image, 'rgb')
    second, _ = preprocess(255 - image, 'rgb')
    assert first is second
    np.testing.assert_array_equal(second[0], 255 - image)


def test_the_border_of_another_shape_of_image_leaves_no_trace():
    spec = make_spec()
    preprocess = Preprocessor(spec)
    wide = np.full((10, 100, 3), 200, np.uint8)
    tall = np.full((100, 10, 3), 100, np.uint8)
    preprocess(wide, 'rgb')
    reused, _ = preprocess(tall, 'rgb')
    fresh, _ = Preprocessor(spec)(tall, 'rgb')
    np.testing.assert_array_equal(reused, fresh)


def test_padded_rows_are_taken_as_they_are():
    padded = np.random.default_rng(0).integers(0, 256, (96, 128 + 5, 3), np.uint8)
    for order in ('rgb', 'bgr'):
        spec = make_spec(color='rgb')
        a, _ = Preprocessor(spec)(padded[:, :128], order)
        b, _ = Preprocessor(spec)(padded[:, :128].copy(), order)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ('image', 'order', 'message'),
    [
        (np.zeros((4, 4, 3), np.float32), 'rgb', 'uint8'),
        (np.zeros((4, 4), np.uint8), 'rgb', r'\(height, width, 3\)'),
        (np.zeros((4, 4, 4), np.uint8), 'bgr', r'\(height, width, 3\)'),
        (np.zeros((4, 4, 3), np.uint8), 'gray', r'\(height, width\)'),
        (np.zeros((4, 4, 3), np.uint8), 'hsv', 'rgb, bgr, gray'),
        (np.zeros((0, 0, 3), np.uint8), 'rgb', '0 × 0 pixels'),
        (np.zeros((1, 40_000, 3), np.uint8), 'rgb', '40000 × 1 pixels'),
    ],
)
def test_what_is_no_image_is_refused(image, order, message):
    with pytest.raises(ImageError, match=message):
        Preprocessor(make_spec())(image, order)


@given(
    st.sampled_from(['uint8', 'float32', 'float16']),
    st.sampled_from(['NCHW', 'NHWC', 'CHW', 'HWC']),
    st.sampled_from([1, 4]),
    st.sampled_from(['stretch', 'letterbox']),
    st.booleans(),
)
def test_every_layout_type_and_batch_holds_the_same_image(dtype, layout, batch, resize, normalise):
    """As one float32 image, channels first, has it; of a batch it is the first, others black."""
    scaling = {'mean': (1.0, 2.0, 3.0), 'std': (2.0, 4.0, 8.0)} if normalise else {}
    scaling = {} if dtype == 'uint8' else scaling
    sizes = {'N': batch, 'C': 3, 'H': 12, 'W': 20}
    spec = make_spec(dtype=dtype, layout='NCHW', resize=resize, **scaling)
    spec = replace(spec, layout=layout, shape=tuple(sizes[each] for each in layout))
    plain = replace(spec, dtype='float32', layout='NCHW', shape=(1, 3, 12, 20))
    assert (spec.height, spec.width, spec.channels) == (12, 20, 3)
    random = np.random.default_rng(0)
    one, other = Preprocessor(plain), Preprocessor(spec)
    for size in ((30, 50), (12, 20), (7, 41)):
        image = random.integers(0, 256, (*size, 3), np.uint8)
        wanted, (tensor, _) = one(image, 'bgr')[0][0], other(image, 'bgr')
        assert tensor.shape == spec.shape
        assert tensor.dtype == dtype
        first, rest = (tensor[0], tensor[1:]) if 'N' in layout else (tensor, np.zeros(1))
        first = first.transpose(2, 0, 1) if layout[-1] == 'C' else first
        np.testing.assert_allclose(first, wanted, rtol=1e-3)
        assert not rest.any()
