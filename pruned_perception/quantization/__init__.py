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

"""Networks in 8 bits: calibrated, with sensitive layers left in float, checked against the float.

frames → ranges → QDQ graph → which layers to leave in float → bundle that checks itself at load.
Off-line: needs the package `onnx`.
"""

from pruned_perception.quantization.bundles import FLOAT_SHARE, QuantizationRecord, quantize_bundle
from pruned_perception.quantization.errors import QuantizationError
from pruned_perception.quantization.schemes import SCHEMES, Scheme, saturates, scheme_for_here

__all__ = [
    'FLOAT_SHARE',
    'SCHEMES',
    'QuantizationError',
    'QuantizationRecord',
    'Scheme',
    'quantize_bundle',
    'saturates',
    'scheme_for_here',
]
