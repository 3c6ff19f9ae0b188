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

"""Real third-party ONNX files through our decoders, measured on real labelled images."""

from __future__ import annotations

import pytest
from third_party import coco_images, evaluate, write_third_party

pytest.importorskip('pycocotools', reason='COCO metrics need pycocotools')

# AP50 on these 64 images is 0.53, 0.50 and 0.31 (0.51, 0.46 and 0.32 on all 128); a wrong colour
# order, grid offset or placement costs far more than the margin.
AP50 = {'yolox': 0.49, 'nanodet': 0.46, 'fastestdet': 0.28}


@pytest.mark.shared_data
@pytest.mark.parametrize('name', AP50)
def test_third_party_detector_reaches_its_accuracy(name, shared_data, tmp_path):
    bundle = write_third_party(name, shared_data, tmp_path / name)
    metrics = evaluate(bundle, coco_images(shared_data, 64))
    assert metrics.ap50 >= AP50[name]
    assert metrics.overall.precision >= 0.5
