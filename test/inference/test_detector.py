from __future__ import annotations

import numpy as np
import pytest
from tiny_detector import LABELS, square_image

from pruned_perception.inference import Detector


@pytest.mark.parametrize('label', LABELS)
def test_a_square_is_found_where_it_is(tiny_bundle, label):
    image = square_image(label, left=200, top=160, side=120)
    detections, times = Detector(tiny_bundle).detect(image, 'rgb')
    assert [LABELS[i] for i in detections.class_ids] == [label]
    np.testing.assert_allclose(detections.boxes, [[200, 160, 320, 280]], atol=0.01)
    assert 0.97 < detections.scores[0] < 0.99
    assert times.preprocess > 0
    assert times.inference > 0
    assert times.postprocess > 0
