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

"""ONNX detectors in PyTorch: imported, given batch norms to train with, exported again."""

from pruned_perception.training.onnx_import.batch_norms import folded, with_batch_norms
from pruned_perception.training.onnx_import.builder import OnnxImportError
from pruned_perception.training.onnx_import.export import (
    OnnxExportError,
    disagreement,
    export_onnx,
)
from pruned_perception.training.onnx_import.network import OnnxNetwork, Port, import_onnx

__all__ = [
    'OnnxExportError',
    'OnnxImportError',
    'OnnxNetwork',
    'Port',
    'disagreement',
    'export_onnx',
    'folded',
    'import_onnx',
    'with_batch_norms',
]
