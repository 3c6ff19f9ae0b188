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

"""The detector as the robot runs it, everything constant folded into its convolutions, and back."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from pruned_perception.pruning.lowrank.factorisation import Factored
from pruned_perception.training.detector.network import LOG_PIXELS, ConvBlock, Detector, Head

PIXEL = 1 / 255  # the detector takes colours in 0…1, the robot has bytes


class Deployed(nn.Module):
    """The detector as the robot runs it: uint8 (1, H, W, 3) RGB → predictions (1, N, 4 + C).

    Everything that is constant is folded into the convolutions: batch norms, the scaling 1/255
    (exact, since no mean is subtracted that zero padding would get wrong), the strides (as
    logarithms, into the biases of the box outputs), and the order of the image's axes.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = folded(detector)
        first = _first(self.detector)
        first.conv = interleaved(first.conv, PIXEL)
        _add_to_distances(self.detector, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the predictions of one image."""
        _, height, width, _ = image.shape
        raw = self.detector(image.reshape(1, 1, height, 3 * width).float())
        return torch.cat((raw[..., :4].clamp(*LOG_PIXELS).exp(), raw[..., 4:].sigmoid()), dim=-1)


def undeployed(deployed: Deployed) -> Detector:
    """Return the detector inside, for images (B, 3, H, W) in 0…1 again, batch norms folded."""
    plain = copy.deepcopy(deployed.detector)
    first = _first(plain)
    first.conv = planar(first.conv, PIXEL)
    _add_to_distances(plain, -1)
    return plain


def folded(detector: Detector) -> Detector:
    """Return a copy in eval mode whose batch norms are folded into their convolutions."""
    plain = copy.deepcopy(detector).eval()
    for module in plain.modules():
        if isinstance(module, ConvBlock):
            assert isinstance(module.norm, nn.BatchNorm2d)
            if isinstance(module.conv, Factored):
                module.conv[1] = fuse_conv_bn_eval(module.conv.both[1], module.norm)
            else:
                module.conv = fuse_conv_bn_eval(module.conv, module.norm)
            module.norm = nn.Identity()
    return plain


@torch.no_grad()
def interleaved(conv: nn.Conv2d, scale: float) -> nn.Conv2d:
    """Return `conv` for images (1, 1, H, 3W) whose colours alternate, as cameras store them.

    Three pixels of three channels are nine neighbours in a row: the same products and sums
    without the transposition, which would cost a small net 5 % of its time. Values are scaled.
    """
    outputs, channels, height, width = conv.weight.shape
    assert not isinstance(conv.padding, str)
    (stride_y, stride_x), (pad_y, pad_x) = conv.stride, conv.padding
    row = nn.Conv2d(
        1,
        outputs,
        (height, channels * width),
        (stride_y, channels * stride_x),
        (pad_y, channels * pad_x),
        device=conv.weight.device,
    )
    row.weight.copy_(scale * conv.weight.permute(0, 2, 3, 1).reshape(row.weight.shape))
    assert row.bias is not None
    if conv.bias is None:
        row.bias.zero_()
    else:
        row.bias.copy_(conv.bias)
    return row


@torch.no_grad()
def planar(row: nn.Conv2d, scale: float, channels: int = 3) -> nn.Conv2d:
    """Return the convolution on planes (B, `channels`, H, W) that `interleaved` was given."""
    outputs, _, height, length = row.weight.shape
    assert not isinstance(row.padding, str)
    assert row.bias is not None
    (stride_y, stride_x), (pad_y, pad_x) = row.stride, row.padding
    width = length // channels
    conv = nn.Conv2d(
        channels,
        outputs,
        (height, width),
        (stride_y, stride_x // channels),
        (pad_y, pad_x // channels),
        device=row.weight.device,
    )
    weight = row.weight.reshape(outputs, height, width, channels).permute(0, 3, 1, 2)
    conv.weight.copy_(weight / scale)
    assert conv.bias is not None
    conv.bias.copy_(row.bias)
    return conv


def _first(detector: Detector) -> ConvBlock:
    first = detector.get_submodule('backbone.0.0')
    assert isinstance(first, ConvBlock)
    return first


@torch.no_grad()
def _add_to_distances(detector: Detector, times: int) -> None:
    """Add `times` the logarithm of each level's stride to its log-distances."""
    for head, stride in zip(detector.heads, detector.strides, strict=True):
        assert isinstance(head, Head)
        assert head.box_output.bias is not None
        head.box_output.bias += times * math.log(stride)
