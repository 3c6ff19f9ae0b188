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

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import shapes

torch = pytest.importorskip('torch', reason="the off-line stage needs torch: extra 'train'")

import tiny  # noqa: E402

from pruned_perception.training.detector.network import Detector  # noqa: E402


@pytest.fixture(scope='session')
def shapes_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data sets `train` and `validation` of coloured shapes."""
    root = tmp_path_factory.mktemp('shapes')
    shapes.write_shapes(root / 'train', 120, seed=1)
    shapes.write_shapes(root / 'validation', 40, seed=2)
    return root


@pytest.fixture(scope='session')
def images() -> np.ndarray:
    """Return three images (3, H, W, 3) of noise at the tiny detector's input size."""
    return np.random.default_rng(0).integers(0, 256, (3, *tiny.SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope='session')
def detector() -> Detector:
    """Return a net with statistics unlike an untrained one's, so that folding has work to do."""
    torch.manual_seed(0)
    model = Detector(tiny.ARCHITECTURE)
    model.train()
    with torch.no_grad():
        for _ in range(30):
            model(torch.rand(4, 3, *tiny.SIZE))
        for name, tensor in model.named_parameters():
            if name.endswith(('norm.bias', 'class_output.weight')):
                tensor += 0.3 * torch.randn_like(tensor)
    return model.eval()
