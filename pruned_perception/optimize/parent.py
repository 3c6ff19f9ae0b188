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

"""The detector that somebody brings, as a bundle: the family's dense member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pruned_perception._io import errors_of_writing, replacing
from pruned_perception.bundle import Bundle, load_member, resolve_model, write_bundle
from pruned_perception.bundle.manifest import BundleError
from pruned_perception.errors import UserError
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.new_bundle import create_bundle
from pruned_perception.pruning.graph.cost import count
from pruned_perception.training.exporting import onnx_bytes
from pruned_perception.training.onnx_import import OnnxNetwork
from pruned_perception.training.onnx_import.external import model_of
from pruned_perception.training.onnx_import.task import import_bundle_network
from pruned_perception.training.task import Task, load_function, load_weights

DENSE = 'dense'


def import_detector(
    detector: str,
    family: Path,
    *,
    labels: Sequence[str] | None = None,
    weights: Path | None = None,
    described: Mapping[str, Any] | None = None,
) -> tuple[Bundle, OnnxNetwork]:
    """Return the family's dense bundle, written there, and its network in PyTorch.

    Args:
        detector: a bundle, a family (its dense member) or FAMILY/MEMBER; an ONNX file; or
            `package.module:function`, which returns a module or a `Task`.
        family: folder of the family.
        labels: of an ONNX file or a module.
        weights: state dict of a module.
        described: what `inference.new_bundle.create_bundle` takes beside that.

    Raises:
        UserError: no detector, or one that cannot run, or not be imported; names operator and node.
    """
    described = dict(described or {})
    folder = family / DENSE
    path = Path(detector).expanduser()
    if path.suffix == '.onnx' and not path.is_dir():
        _no_weights(weights)
        bundle = create_bundle(path, model_of(path), folder, labels=labels, name=DENSE, **described)
    elif ':' in detector and not path.exists() and '://' not in detector:
        file = family / '.optimize' / 'parent.onnx'
        model = _exported(detector, weights, described.pop('size', None))
        with errors_of_writing(file), replacing(file) as temporary:
            temporary.write_bytes(model)
        bundle = create_bundle(detector, model, folder, labels=labels, name=DENSE, **described)
    else:
        _no_weights(weights)
        if labels is not None or any(described.values()):
            raise UserError(
                f'{detector}: a bundle says itself what its outputs and labels mean; leave out '
                '--names, --decoder and the like, or give the ONNX file'
            )
        bundle = _copied(_load(detector), folder)
    network = import_bundle_network(bundle)
    cost = count(network.module, network.example_inputs)
    bundle = write_bundle(
        folder,
        bundle.onnx_bytes,
        {**bundle.manifest, 'cost': {'parameters': cost.parameters, 'macs': cost.macs}},
    )
    Detector(bundle)  # runs, and its outputs are what the decoder takes
    return bundle, network


def _load(detector: str) -> Bundle:
    path = resolve_model(detector)
    try:
        return load_member(path)
    except BundleError:
        if path.exists() or not path.parent.is_dir():
            raise
        return load_member(path.parent, path.name)


def _copied(bundle: Bundle, folder: Path) -> Bundle:
    """Return a bundle as the dense one of a family of its own."""
    provenance = dict(bundle.manifest['provenance'])
    if bundle.manifest['parent'] is not None:
        provenance['made_of'] = bundle.manifest['parent']
    return write_bundle(
        folder,
        bundle.onnx_bytes,
        {
            **bundle.manifest,
            'name': DENSE,
            'parent': None,
            'pruning': None,
            'certificate': None,
            'latency': [],
            'provenance': provenance,
        },
    )


def _exported(name: str, weights: Path | None, size: tuple[int, int] | None) -> bytes:
    """Return the ONNX file of what a function returns."""
    made = load_function(name, 'detector')()
    if isinstance(made, Task):
        module, inputs = made.model, tuple(made.example_inputs)
    elif isinstance(made, nn.Module):
        if size is None:
            raise UserError(f'{name}: returns a module; give the size of its images, --size H W')
        module, inputs = made, (torch.zeros(1, 3, *size),)
    else:
        raise UserError(f'{name}: returned {type(made).__name__}; a module or a Task is needed')
    if weights is not None:
        load_weights(module, weights)
    module.eval()
    try:
        with torch.no_grad():
            found = module(*inputs)
        outputs = [found] if isinstance(found, torch.Tensor) else list(found)
        names = [f'output{index}' for index in range(len(outputs))]
        return onnx_bytes(module, inputs, ['images'], names)
    except UserError:
        raise
    except Exception as error:  # anything that a user's network, or the exporter, raises
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f'{name}: cannot be exported to ONNX: {first}; export it yourself and give that file'
        ) from error


def _no_weights(weights: Path | None) -> None:
    if weights is not None:
        raise UserError(f'--weights {weights}: belongs to package.module:function')
