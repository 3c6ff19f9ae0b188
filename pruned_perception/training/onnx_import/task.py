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

"""The ONNX detector of a bundle as a task, and what was made of it as a bundle again."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from pruned_perception import __version__
from pruned_perception.bundle import Bundle, write_bundle
from pruned_perception.inference.preprocess import Preprocessor
from pruned_perception.inference.sources import UnreadableFrame, open_source
from pruned_perception.pruning.errors import PruningError
from pruned_perception.pruning.graph.cost import count
from pruned_perception.training.onnx_import.batch_norms import folded
from pruned_perception.training.onnx_import.builder import OnnxImportError
from pruned_perception.training.onnx_import.export import export_onnx
from pruned_perception.training.onnx_import.network import OnnxNetwork, import_onnx
from pruned_perception.training.task import Task

BATCH = 8
IMAGES = 256


def import_bundle_network(bundle: Bundle) -> OnnxNetwork:
    """Return the network of a bundle; raises OnnxImportError naming the file."""
    name = bundle.input.name
    try:
        return import_onnx(
            bundle.onnx_bytes, shapes={name: bundle.input.shape}, outputs=bundle.output.names
        )
    except OnnxImportError as error:
        text = str(error).removeprefix('the model: ')
        raise OnnxImportError(f'{bundle.onnx_path}: {text}') from error


def bundle_task(
    bundle: Bundle, calibration: str | os.PathLike[str] | None, images: int = IMAGES
) -> Task:
    """Return the task of a bundle's network: to be measured and pruned, without labels.

    Args:
        bundle: of any detector; its manifest says how images become inputs.
        calibration: an image, folder of images, video or bag; None for no calibration set.
        images: how many of its frames are used, from all over it.
    """
    network = import_bundle_network(bundle)
    frames = () if calibration is None else Images(bundle, calibration, images, network.one_batch)
    return Task(
        model=network.module,
        example_inputs=network.example_inputs,
        calibration=frames,
    )


def file_task(path: str | os.PathLike[str], calibration: str | os.PathLike[str] | None) -> Task:
    """Return the task of an ONNX file without a bundle, which nobody knows the images' scaling of.

    Args:
        path: the file.
        calibration: .npz file with an array (images, …) for each input, by name; or None.
    """
    network = import_onnx(path)
    batches: list[tuple[Tensor, ...]] = []
    if calibration is not None:
        arrays = _arrays(Path(calibration), [port.name for port in network.inputs])
        size = 1 if network.one_batch else BATCH
        for start in range(0, len(arrays[0]), size):
            batches.append(tuple(each[start : start + size] for each in arrays))
    return Task(
        model=network.module, example_inputs=network.example_inputs, calibration=tuple(batches)
    )


class Images:
    """The frames of a source as batches of a bundle's input; read once, then kept."""

    def __init__(
        self,
        bundle: Bundle,
        source: str | os.PathLike[str],
        images: int = IMAGES,
        one_batch: str | None = None,
    ) -> None:
        """Take the bundle, the source and how many frames; `one_batch`: see `OnnxNetwork`."""
        self.bundle, self.source, self.images = bundle, Path(source), images
        self.size = 1 if one_batch else BATCH
        self._batches: list[Tensor] = []

    def __iter__(self) -> Iterator[Tensor]:
        """Yield batches; raises PruningError where no frame can be read."""
        if not self._batches:
            self._batches = list(self._read())
        return iter(self._batches)

    def _read(self) -> Iterator[Tensor]:
        prepare = Preprocessor(self.bundle.input)
        opened = open_source(self.source)
        count = opened.count
        wanted = None
        if count is not None and count > self.images:
            wanted = set(np.linspace(0, count - 1, self.images).round().astype(int).tolist())
        found, reason = [], 'it is empty'
        for frame in opened.frames:
            if wanted is not None and frame.index not in wanted:
                continue
            if isinstance(frame, UnreadableFrame):
                reason = frame.reason
                continue
            found.append(torch.from_numpy(prepare(frame.image, frame.order)[0].copy()))
            if len(found) == self.images:
                break
        if not found:
            raise PruningError(f'{self.source}: no frame that can be read: {reason}')
        stacked = torch.cat(found)
        yield from stacked.split(self.size)


def export_bundle_network(
    bundle: Bundle,
    module: fx.GraphModule,
    plans: Sequence[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    *,
    name: str,
    inputs: Tensor | None = None,
) -> Bundle:
    """Write the bundle of what was made of another bundle's network; decoder and labels stay.

    Args:
        bundle: the parent.
        module: made of its network by `plans`.
        plans: in order, as plain data; the last one becomes the manifest's pruning record.
        folder: of the new bundle.
        name: of the new bundle.
        inputs: (images, …) on which ONNX Runtime is compared with PyTorch.

    Raises:
        OnnxExportError: ONNX Runtime computes something else.
    """
    network = import_bundle_network(bundle)
    data = export_onnx(network, module, None if inputs is None else (inputs,))
    cost = count(folded(module), network.example_inputs)
    *earlier, last = plans or (None,)
    manifest = {
        **{key: value for key, value in bundle.manifest.items() if key != 'onnx'},
        'name': name,
        'cost': {'parameters': cost.parameters, 'macs': cost.macs},
        'parent': {'name': bundle.name, 'sha256': bundle.sha256},
        'pruning': last,
        'certificate': None,
        'evaluation': [],
        'latency': [],
        'provenance': {
            **bundle.manifest['provenance'],
            'created': datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
            'tool': f'pruned_perception {__version__}',
            'earlier_plans': [*bundle.manifest['provenance'].get('earlier_plans', ()), *earlier],
        },
    }
    return write_bundle(folder, data, manifest)


def _arrays(path: Path, names: Sequence[str]) -> list[Tensor]:
    if path.suffix != '.npz':
        raise PruningError(
            f'{path}: an ONNX file does not say how images become its inputs; give a .npz file '
            f'with {", ".join(names)}, or make a bundle of it (`pruned-perception bundle create`) '
            'and give that with the images'
        )
    try:
        with np.load(path, allow_pickle=False) as content:
            missing = [name for name in names if name not in content]
            if missing:
                raise PruningError(f'{path}: has no array {missing[0]!r}, an input of the network')
            return [torch.from_numpy(content[name]) for name in names]
    except (OSError, ValueError) as error:
        if isinstance(error, PruningError):
            raise
        raise PruningError(f'{path}: cannot be read as .npz: {error}') from error
