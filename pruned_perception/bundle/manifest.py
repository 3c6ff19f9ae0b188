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

"""The manifest of a bundle: its JSON Schema, and the contract sections as data classes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pruned_perception.bundle.schema import errors
from pruned_perception.errors import UserError

SCHEMA_VERSION = 1
QUANTIZED_SCHEMA_VERSION = 2
"""Of a manifest with the section `quantization`: installations that do not know it refuse it."""
CONTRACT = (
    'schema_version', 'name', 'onnx', 'input', 'output', 'labels', 'thresholds', 'cost', 'parent',
    'quantization',
)  # fmt: skip
"""What a robot acts on, where it is there; the rest of a manifest is evidence."""


class BundleError(UserError):
    """A bundle or family that must not be used; the text names the file and the field."""


@dataclass(frozen=True)
class InputSpec:
    """What the network takes: one image, resized to `height` × `width` pixels.

    The robot feeds (x − mean) / std per channel, x in 0 … 255, in the order of `color`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal['uint8', 'float32', 'float16']
    layout: Literal['NHWC', 'NCHW', 'HWC', 'CHW']
    color: Literal['rgb', 'bgr']
    resize: Literal['stretch', 'letterbox']
    align: Literal['center', 'top_left']
    pad_value: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    constants: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Values of the graph's other inputs, such as the image's size, by their names."""

    @property
    def batch(self) -> int:
        """How many images a run takes; ours is the first. 1 where there is no such dimension."""
        return self.shape[self.layout.index('N')] if 'N' in self.layout else 1

    @property
    def height(self) -> int:
        """Height of the network's input image, pixels."""
        return self.shape[self.layout.index('H')]

    @property
    def width(self) -> int:
        """Width of the network's input image, pixels."""
        return self.shape[self.layout.index('W')]

    @property
    def channels(self) -> int:
        """Number of colour channels of the network's input image."""
        return self.shape[self.layout.index('C')]


@dataclass(frozen=True)
class OutputSpec:
    """The network's outputs, in the order in which the decoder takes them."""

    names: tuple[str, ...]
    decoder: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Thresholds:
    """Default thresholds of detection: scores and intersection over union in 0 … 1."""

    score: float
    iou: float
    max_detections: int


@dataclass(frozen=True)
class Cost:
    """Parameters, and multiply–accumulate operations for one image."""

    parameters: int
    macs: int


@cache
def schema() -> dict[str, Any]:
    """Return the JSON Schema of manifest.json (draft 2020-12)."""
    return json.loads(Path(__file__).with_name('manifest.schema.json').read_text('utf-8'))


def validate(manifest: object, file: Path) -> dict[str, Any]:
    """Return `manifest` if it keeps the schema; `file` is the name that errors give.

    Raises
    ------
    BundleError
        Not an object, of another schema version, or against the schema; names the first field.

    """
    if not isinstance(manifest, dict):
        raise BundleError(f'{file}: a manifest is a JSON object, not {type(manifest).__name__}')
    _check_version(manifest.get('schema_version'), file)

    found = list(errors(manifest, schema()))
    if found:
        field, message = found[0]
        more = f' (and {len(found) - 1} more)' if len(found) > 1 else ''
        raise BundleError(f'{file}: field {field}: {message}{more}')

    if ('quantization' in manifest) != (manifest['schema_version'] == QUANTIZED_SCHEMA_VERSION):
        raise BundleError(
            f'{file}: field quantization: is there exactly where schema_version is '
            f'{QUANTIZED_SCHEMA_VERSION}; here it is {manifest["schema_version"]}'
        )
    spec = input_spec(manifest)
    if len(spec.shape) != len(spec.layout):
        raise BundleError(
            f'{file}: field input.shape: {list(spec.shape)} has {len(spec.shape)} dimensions, '
            f'layout {spec.layout} has {len(spec.layout)}'
        )
    if spec.channels != 3:
        raise BundleError(
            f'{file}: field input.shape: {list(spec.shape)} has {spec.channels} channels in layout '
            f'{spec.layout}; 3 are needed (is the layout right?)'
        )
    if spec.dtype == 'uint8' and (any(spec.mean) or any(value != 1 for value in spec.std)):
        raise BundleError(
            f'{file}: field input.mean: a uint8 input is fed as it is; mean must be [0, 0, 0] and '
            'std [1, 1, 1] (fold the normalisation into the graph, or use a float32 input)'
        )
    labels = manifest['labels']
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise BundleError(f'{file}: field labels: {twice!r} is there more than once')
    recorded = manifest.get('contract_sha256')
    if recorded is not None and recorded != contract_sha256(manifest):
        raise BundleError(
            f'{file}: altered: the SHA-256 of its fields {", ".join(CONTRACT)} is '
            f'{contract_sha256(manifest)}, but contract_sha256 says {recorded}; fetch the bundle '
            'again (or, after a change of your own, take contract_sha256 out)'
        )
    return manifest


def contract_sha256(manifest: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the contract's fields, as JSON with sorted keys and no spaces."""
    contract = {name: manifest[name] for name in CONTRACT if name in manifest}
    text = json.dumps(contract, sort_keys=True, separators=(',', ':'), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_version(version: object, file: Path) -> None:
    known = (SCHEMA_VERSION, QUANTIZED_SCHEMA_VERSION)
    if version in known and not isinstance(version, bool):
        return
    if isinstance(version, int) and version > max(known):
        raise BundleError(
            f'{file}: field schema_version: {version} is newer than {max(known)}, the newest '
            'that this installation reads; update pruned_perception'
        )
    raise BundleError(
        f'{file}: field schema_version: {version!r} is none of {known}; is this the manifest '
        'of a pruned_perception bundle?'
    )


def input_spec(manifest: Mapping[str, Any]) -> InputSpec:
    """Return the section `input` of a valid manifest."""
    section = dict(manifest['input'])
    for key in ('shape', 'mean', 'std'):
        section[key] = tuple(section[key])
    constants = section.pop('constants', [])
    return InputSpec(
        **section, constants={each['name']: tuple(each['values']) for each in constants}
    )


def output_spec(manifest: Mapping[str, Any]) -> OutputSpec:
    """Return the section `output` of a valid manifest."""
    section = manifest['output']
    return OutputSpec(tuple(section['names']), section['decoder'], section['parameters'])
