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

"""The model bundle, the one thing that the off-line stage and the robot share.

A bundle is a folder `model.onnx` + `manifest.json`; a family is a folder of bundles with one
parent and one label set. Loading verifies schema and hash before anything else sees a byte.
"""

from pruned_perception.bundle import signature
from pruned_perception.bundle.bundle import (
    MANIFEST,
    MOST_MODEL_BYTES,
    Bundle,
    Family,
    is_family,
    load_bundle,
    load_family,
    load_member,
    member_names,
    record_evidence,
    write_bundle,
)
from pruned_perception.bundle.manifest import (
    QUANTIZED_SCHEMA_VERSION,
    SCHEMA_VERSION,
    BundleError,
    Cost,
    InputSpec,
    OutputSpec,
    Thresholds,
)
from pruned_perception.bundle.resolve import resolve_model, shipped_families

__all__ = [
    'MANIFEST',
    'MOST_MODEL_BYTES',
    'QUANTIZED_SCHEMA_VERSION',
    'SCHEMA_VERSION',
    'Bundle',
    'BundleError',
    'Cost',
    'Family',
    'InputSpec',
    'OutputSpec',
    'Thresholds',
    'is_family',
    'load_bundle',
    'load_family',
    'load_member',
    'member_names',
    'record_evidence',
    'resolve_model',
    'shipped_families',
    'signature',
    'write_bundle',
]
