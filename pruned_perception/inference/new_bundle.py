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

"""A bundle of an ONNX detector that somebody has: what the graph says, and what must be said."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pruned_perception import __version__
from pruned_perception.bundle import SCHEMA_VERSION, Bundle, write_bundle
from pruned_perception.bundle.manifest import Cost, InputSpec
from pruned_perception.errors import UserError
from pruned_perception.inference import decoders, recognition
from pruned_perception.inference.conventions import labels_in, preparation
from pruned_perception.inference.cost import onnx_cost
from pruned_perception.inference.detector import Detector
from pruned_perception.inference.engine import create_session
from pruned_perception.inference.graph import black, first_run, suggested_constants
from pruned_perception.inference.runs import TIME_LIMIT_S

_TYPES = {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32', 'tensor(float16)': 'float16'}


def create_bundle(
    onnx: str | os.PathLike[str],
    model: bytes,
    folder: str | os.PathLike[str],
    *,
    labels: Sequence[str] | None,
    decoder: str | None = None,
    name: str | None = None,
    outputs: Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    size: tuple[int, int] | None = None,
    constants: Mapping[str, Any] | None = None,
    prepared: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    parent: Bundle | None = None,
    pruning: Mapping[str, Any] | None = None,
    time_limit_s: float = TIME_LIMIT_S,
) -> Bundle:
    """Write the bundle of an ONNX file, once a run of it has gone through the decoder.

    Args:
        onnx: the file, for messages.
        model: its content; tensors that were in other files are put in.
        folder: of the bundle; what is there is replaced.
        labels: in the order of their ids; None: those in the file's metadata.
        decoder: what the outputs mean; None: what they show, see `recognition`.
        name: of the bundle; the folder's by default.
        outputs: in the order of the decoder; by default all, in the order in which they fit.
        parameters: of the decoder.
        size: height and width of the input, where the graph leaves them open.
        constants: values of inputs beside the image; by default by their names.
        prepared: fields of `conventions.USUAL`; what is None or missing is as the authors of the
            decoder's kind of network do it.
        provenance: data and licences.
        parent: the dense bundle that it was pruned from, with which it makes a family.
        pruning: by which plan, as plain data.
        time_limit_s: for loading, and for each run.

    Raises:
        UserError: the file is no detector that can be run so; nothing is written.
    """
    onnx, folder = Path(onnx), Path(folder)
    session = create_session(model, name=str(onnx), time_limit_s=time_limit_s)
    graph = _graph_input(onnx, session, size, constants or {})
    if labels is None:
        labels = labels_in(session.get_modelmeta().custom_metadata_map)
        if labels is None:
            raise UserError(
                f'{onnx}: does not name its classes; give a text file with a name on each line, in '
                'the order of their ids'
            )
    output: dict[str, Any] = {
        'names': list(outputs or [node.name for node in session.get_outputs()]),
        'decoder': decoder,
        'parameters': dict(parameters or {}),
    }
    whose: Mapping[str, Any] = {}
    if decoder is None:
        output, whose = _recognised(onnx, session, graph, len(labels), output, time_limit_s)
    if graph['dtype'] == 'uint8':  # such a graph scales by itself
        whose = {**whose, 'mean': (0.0, 0.0, 0.0), 'std': (1.0, 1.0, 1.0)}
    said = preparation(output['decoder'], prepared or {}, whose)
    picture = ('color', 'resize', 'align', 'pad_value', 'mean', 'std')
    manifest = {
        'schema_version': SCHEMA_VERSION,
        'name': name or folder.resolve().name,
        'input': {**graph, **{field: said[field] for field in picture}},
        'output': output,
        'labels': list(labels),
        'thresholds': {field: said[field] for field in ('score', 'iou', 'max_detections')},
        'cost': {'parameters': 0, 'macs': 0},
        'parent': None if parent is None else {'name': parent.name, 'sha256': parent.sha256},
        'pruning': None if pruning is None else dict(pruning),
        'certificate': None,
        'evaluation': [],
        'latency': [],
        'provenance': {
            'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'tool': f'pruned_perception {__version__}',
            **(provenance or {}),
        },
    }
    with TemporaryDirectory() as trial:  # nothing is left, or replaced, where it does not run
        try:
            bundle = write_bundle(trial, model, manifest)
            Detector(bundle, time_limit_s=time_limit_s).self_check()
            cost = onnx_cost(model, lambda session: black(session, bundle.input))
        except UserError as error:
            raise UserError(str(error).replace(trial, str(folder))) from error
    if parent is not None:
        _check_child(onnx, manifest, cost, parent)
    manifest['cost'] = asdict(cost)
    return write_bundle(folder, model, manifest)


def _check_child(onnx: Path, manifest: Mapping[str, Any], cost: Cost, parent: Bundle) -> None:
    """Raise UserError where both could not be members of a family."""
    if tuple(manifest['labels']) != parent.labels:
        raise UserError(f'{onnx}: its labels are not those of the parent {parent.path}')
    if cost.macs > parent.cost.macs:
        raise UserError(
            f'{onnx}: takes {cost.macs / 1e6:.0f} MMAC, more than the {parent.cost.macs / 1e6:.0f} '
            f'of the parent {parent.path}'
            + ('' if parent.cost.macs else ', whose were never counted: make that bundle again')
        )


def _graph_input(
    onnx: Path, session: Any, size: tuple[int, int] | None, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return name, shape, dtype and layout of the image, and the values of other inputs."""
    nodes = session.get_inputs()
    images = [node for node in nodes if node.type in _TYPES and len(node.shape) in (3, 4)]
    if len(images) != 1:
        have = ', '.join(f'{node.name} {node.type} {node.shape}' for node in nodes)
        raise UserError(
            f'{onnx}: one input, an image, is needed: float, float16 or uint8, [1, 3, H, W], '
            f'[1, H, W, 3], [3, H, W] or [H, W, 3]; it has {have}'
        )
    [node] = images
    shape = list(node.shape)
    layout = ('NHWC' if shape[-1] == 3 else 'NCHW')[4 - len(shape) :]
    height, width = layout.index('H'), layout.index('W')
    if size is not None:
        shape[height], shape[width] = size
    elif not (isinstance(shape[height], int) and isinstance(shape[width], int)):
        raise UserError(f'{onnx}: input {node.name} is {shape}; give its size, --size H W')
    if 'N' in layout and not isinstance(shape[0], int):
        shape[0] = 1
    shape[layout.index('C')] = 3
    others = [each for each in nodes if each is not node]
    found = {'name': node.name, 'shape': shape, 'dtype': _TYPES[node.type], 'layout': layout}
    constants = _constants(onnx, others, (shape[height], shape[width]), given)
    return {**found, **({'constants': constants} if others else {})}


def _constants(
    onnx: Path, nodes: Sequence[Any], size: tuple[int, int], given: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the values of the graph's inputs beside the image, given or by their names."""
    unknown = sorted(set(given) - {node.name for node in nodes})
    if unknown:
        raise UserError(f'{onnx}: --constant {unknown[0]}: it has no such input')
    found = []
    for node in nodes:
        values = given.get(node.name, suggested_constants(node, size))
        if values is None:
            raise UserError(
                f'{onnx}: beside the image it takes {node.name}, {node.type} {node.shape}: '
                f'say its value, --constant {node.name}=[…], such that boxes come back in pixels '
                f'of the input, which is {size[0]} high and {size[1]} wide'
            )
        found.append({'name': node.name, 'values': values if type(values) is list else [values]})
    return found


def _recognised(
    onnx: Path,
    session: Any,
    graph_input: Mapping[str, Any],
    classes: int,
    output: Mapping[str, Any],
    time_limit_s: float,
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the section `output` for a decoder that the graph's outputs show, and `prepared`."""
    constants = {each['name']: each['values'] for each in graph_input.get('constants', ())}
    spec = InputSpec(
        **{**graph_input, 'shape': tuple(graph_input['shape']), 'constants': constants},
        color='rgb',
        resize='stretch',
        align='center',
        pad_value=0,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    try:
        outputs = first_run(session, output['names'], spec, str(onnx), time_limit_s)
    except ValueError as error:
        raise UserError(f'{onnx}: --constant: {error}') from error
    graph = recognition.Graph(
        tuple(
            recognition.Output(name, array.shape, array.dtype.kind in 'iu')
            for name, array in outputs.items()
        ),
        tuple(node.name for node in session.get_inputs()),
        (spec.height, spec.width),
        classes,
        'N' in spec.layout,
    )
    found = recognition.readings(graph)
    if len(found) == 1:
        [reading] = found
        parameters = {**reading.parameters, **output['parameters']}
        section = {
            'names': list(reading.outputs), 'decoder': reading.decoder, 'parameters': parameters
        }  # fmt: skip
        return section, reading.prepared
    shapes = ', '.join(f'{each.name} {each.shape}' for each in graph.outputs)
    start = f'{onnx}: outputs {shapes}, with {classes} labels'
    if not found:
        raise UserError(
            f'{start}, are none of the kinds that are known: say --decoder, one of '
            f'{", ".join(decoders.names())} (docs/bundle.md); or are the labels not those of this '
            'network?'
        )
    lines = '\n'.join(f'  {_options(each)}   {each.whose}' for each in found)
    raise UserError(f'{start}, may mean several things. Whose network is it?\n{lines}')


def _options(reading: recognition.Reading) -> str:
    """Return a reading as options of the command line."""
    words = ['--decoder', reading.decoder]
    for name, value in reading.parameters.items():
        words += ['--parameter', shlex.quote(f'{name}={json.dumps(value)}')]
    if len(reading.outputs) > 1:
        words += ['--outputs', *map(shlex.quote, reading.outputs)]
    return ' '.join(words)
