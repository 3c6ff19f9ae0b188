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

"""The network that these tests quantise."""

from __future__ import annotations

import pytest
from layered_network import layered_onnx
from tiny_detector import write_tiny_bundle

from pruned_perception.bundle import Bundle

pytest.importorskip('onnx', reason="quantisation needs onnx: extra 'train'")


@pytest.fixture(scope='session')
def layered(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Write the bundle of a network of four layers. Do not change its files."""
    return write_tiny_bundle(
        tmp_path_factory.mktemp('layered') / 'layered', name='layered', onnx=layered_onnx()
    )
