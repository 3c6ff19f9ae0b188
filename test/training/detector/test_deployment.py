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

import numpy as np
import tiny
import torch

from pruned_perception.training.detector.deployment import (
    Deployed,
    folded,
    interleaved,
    planar,
    undeployed,
)
from pruned_perception.training.detector.network import Detector, decode, grid


def test_interleaved_convolution_equals_the_one_on_planes() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
    image = torch.rand(1, 9, 14, 3)
    with torch.no_grad():
        planes = conv(image.permute(0, 3, 1, 2) / 2)
        row = interleaved(conv, 0.5)(image.reshape(1, 1, 9, 42))
    torch.testing.assert_close(row, planes, atol=1e-6, rtol=1e-5)


def test_planar_undoes_interleaved() -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(3, 8, (3, 5), stride=(2, 1), padding=(1, 2))
    back = planar(interleaved(conv, 0.5), 0.5)
    assert repr(back) == repr(conv)
    assert torch.equal(back.weight, conv.weight)
    assert torch.equal(back.bias, conv.bias)


def test_deployed_on_bytes_equals_the_detector_on_colours(
    detector: Detector, images: np.ndarray
) -> None:
    image = torch.from_numpy(images[:1])
    _, strides = grid(*tiny.SIZE)
    with torch.no_grad():
        wanted = decode(detector(image.permute(0, 3, 1, 2) / 255), strides)
        torch.testing.assert_close(Deployed(detector)(image), wanted, atol=1e-3, rtol=1e-4)


def test_undeployed_is_the_folded_detector(detector: Detector) -> None:
    deployed = Deployed(detector)
    before = deployed.state_dict()
    found, wanted = undeployed(deployed).state_dict(), folded(detector).state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=1e-6, msg=name)
    for name, tensor in deployed.state_dict().items():
        assert torch.equal(tensor, before[name])
