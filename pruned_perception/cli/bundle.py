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

"""`pruned-perception bundle`: show or verify a bundle or family, or make one of an ONNX file."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pruned_perception import __version__
from pruned_perception.bundle import (
    MANIFEST,
    MOST_MODEL_BYTES,
    SCHEMA_VERSION,
    Bundle,
    is_family,
    load_bundle,
    load_family,
    resolve_model,
    signature,
    write_bundle,
)
from pruned_perception.bundle.reading import read_file
from pruned_perception.cli.arguments import add_time_limit, at_least, fraction
from pruned_perception.cli.output import say
from pruned_perception.datasets import read_labels
from pruned_perception.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    actions = parser.add_subparsers(dest='action', metavar='ACTION', required=True)
    for action, text in (
        ('show', 'Print what a bundle, or each member of a family, is and can.'),
        ('verify', 'Check schema, hash, shapes and scores; runs the network.'),
    ):
        each = actions.add_parser(action, help=text, description=text)
        each.add_argument('path', help='bundle or family: a path or package://PACKAGE/PATH')
        each.add_argument('--json', action='store_true', help='print JSON')
        if action == 'verify':
            add_time_limit(each)
            each.add_argument(
                '--trusted-keys',
                type=Path,
                metavar='FILE',
                help='also demand a signature by one of these keys, an OpenSSH public key a line',
            )
    text = 'Sign a bundle, or each member of a family, with an Ed25519 key of OpenSSH.'
    signing = actions.add_parser('sign', help=text, description=text)
    signing.add_argument('path', help='bundle or family: a path or package://PACKAGE/PATH')
    signing.add_argument(
        '--key',
        type=Path,
        required=True,
        metavar='FILE',
        help='private key, or the public one of a key that an agent or a token holds',
    )
    text = 'Make a bundle of an ONNX detector that you have.'
    _add_create_arguments(actions.add_parser('create', help=text, description=text))


def _add_create_arguments(parser: argparse.ArgumentParser) -> None:
    from pruned_perception.inference import decoders

    parser.add_argument('onnx', type=Path, help='the ONNX file')
    parser.add_argument('path', type=Path, help='folder of the new bundle')
    parser.add_argument(
        '--decoder',
        choices=decoders.names(),
        help='default: what the outputs show, where they leave no doubt',
    )
    parser.add_argument(
        '--labels',
        required=True,
        type=Path,
        metavar='FILE',
        help='text file, one label a line, in the order of their ids',
    )
    parser.add_argument(
        '--parameter',
        action='append',
        default=[],
        metavar='NAME=JSON',
        help='parameter of the decoder, e.g. strides=[8,16,32]; may be repeated',
    )
    parser.add_argument('--name', help='default: the name of the folder')
    parser.add_argument(
        '--outputs', nargs='+', metavar='NAME', help='in the order of the decoder; default: all'
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=at_least(1),
        metavar=('H', 'W'),
        help='input size in pixels, where the graph leaves it open',
    )
    parser.add_argument(
        '--constant',
        action='append',
        default=[],
        metavar='NAME=JSON',
        help='value of an input beside the image, e.g. scale_factor=[1,1]; may be repeated '
        '(default: by its name, so that boxes are in pixels of the input)',
    )
    parser.add_argument('--color', choices=('rgb', 'bgr'), default='rgb', help='default rgb')
    parser.add_argument(
        '--resize', choices=('stretch', 'letterbox'), default='letterbox', help='default letterbox'
    )
    parser.add_argument(
        '--align', choices=('center', 'top_left'), default='center', help='default center'
    )
    parser.add_argument('--pad-value', type=int, default=114, metavar='0…255', help='default 114')
    for option, default, text in (('--mean', 0.0, 'subtracted'), ('--std', 1.0, 'divided by')):
        parser.add_argument(
            option,
            nargs=3,
            type=float,
            default=[default] * 3,
            metavar=('A', 'B', 'C'),
            help=f'{text}, per channel in the order of --color, for values 0 … 255',
        )
    parser.add_argument('--score-threshold', type=fraction, default=0.4, help='default 0.4')
    parser.add_argument(
        '--iou-threshold', type=fraction, default=0.6, help='default 0.6; 1 suppresses nothing'
    )
    parser.add_argument('--max-detections', type=at_least(1), default=100, help='default 100')
    parser.add_argument('--weights-licence', default='', help='licence of the weights')
    parser.add_argument('--data', default='', help='data it was trained on')
    add_time_limit(parser)
    parser.add_argument('--force', action='store_true', help='replace an existing bundle')


def run(args: argparse.Namespace) -> int:
    """Show, verify or create."""
    if args.action == 'create':
        return _create(args)
    path = resolve_model(args.path)
    file = getattr(args, 'trusted_keys', None)
    keys = () if file is None else signature.trusted_keys(file)
    members = (
        load_family(path, trusted_keys=keys).members
        if is_family(path)
        else (load_bundle(path, trusted_keys=keys),)
    )
    if args.action == 'show':
        return _show(members, args.json)
    if args.action == 'sign':
        return _sign(members, args.key)
    return _verify(members, args.json, args.time_limit, signed=bool(keys))


def _sign(members: tuple[Bundle, ...], key: Path) -> int:
    for bundle in members:
        print(f'{bundle.name}: {signature.sign(bundle.manifest_path, key.expanduser())}')
    return 0


def _show(members: tuple[Bundle, ...], as_json: bool) -> int:
    if as_json:
        print(json.dumps([bundle.manifest for bundle in members], indent=2, ensure_ascii=False))
    else:
        say('\n\n'.join(_description(bundle) for bundle in members))
    return 0


def _verify(
    members: tuple[Bundle, ...], as_json: bool, time_limit_s: float, *, signed: bool
) -> int:
    from pruned_perception.inference.detector import Detector

    for bundle in members:
        Detector(bundle, time_limit_s=time_limit_s).self_check()
    if as_json:
        facts = [{'name': b.name, 'path': str(b.path), 'sha256': b.sha256} for b in members]
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        checked = 'signature, ' * signed + 'schema, SHA-256, shapes and three runs'
        for bundle in members:
            print(f'{bundle.path}: {bundle.name}: {checked} are right')
    return 0


def _description(bundle: Bundle) -> str:
    spec, output, manifest = bundle.input, bundle.output, bundle.manifest
    thresholds, cost = bundle.thresholds, bundle.cost
    fill = f', {spec.align}, fill {spec.pad_value}' if spec.resize == 'letterbox' else ''
    parent = manifest['parent']
    rows = {
        'model': f'{bundle.onnx_path.name}, {len(bundle.onnx_bytes):,} bytes, {bundle.sha256}',
        'parent': 'none (dense)' if parent is None else f'{parent["name"]}, {parent["sha256"]}',
        'input': f'{spec.name}: {spec.width} × {spec.height} {spec.color}, {spec.resize}{fill}; '
        f'{spec.dtype} {spec.layout}, mean {list(spec.mean)}, std {list(spec.std)}',
        'output': f'{", ".join(output.names)}; decoder {output.decoder} '
        f'{json.dumps(output.parameters)}',
        'labels': ', '.join(bundle.labels),
        'thresholds': f'score {thresholds.score:g}, IoU {thresholds.iou:g}, '
        f'at most {thresholds.max_detections} detections',
        'cost': ', '.join(
            (
                f'{cost.macs / 1e6:,.1f} MMAC' if cost.macs else 'MACs not counted',
                f'{cost.parameters:,} parameters' if cost.parameters else 'parameters not counted',
            )
        ),
    }
    if manifest['pruning'] is not None:
        rows['pruning'] = _flat(manifest['pruning'])
    if manifest['certificate'] is not None:
        rows['certificate'] = _certified(manifest['certificate'])
    for section in ('evaluation', 'latency'):
        for number, record in enumerate(manifest[section]):
            rows[f'{section} {number + 1}'] = _flat(record)
    rows['provenance'] = _flat(manifest['provenance'])
    return '\n'.join(
        [f'{bundle.name}  ({bundle.path})', *(f'  {k:13} {v}' for k, v in rows.items())]
    )


def _certified(data: Mapping[str, Any]) -> str:
    """Return what a certificate says, in words; its entries where PyTorch is missing."""
    try:
        from pruned_perception.pruning.certificate import read_certificate
    except ModuleNotFoundError:
        return _flat(data)
    return f'\n{" " * 16}'.join(read_certificate(data).paragraphs())


def _flat(record: Mapping[str, Any]) -> str:
    """Return a record of evidence in one line; what is nested deeper is only counted."""
    parts = []
    for key, value in record.items():
        if isinstance(value, float):
            parts.append(f'{key} {value:.4g}')
        elif isinstance(value, dict):
            parts.append(f'{key} {{{len(value)}}}')
        elif isinstance(value, list) and len(value) > 4:
            parts.append(f'{key} [{len(value)}]')
        else:
            parts.append(f'{key} {value}')
    return ', '.join(parts)


def _create(args: argparse.Namespace) -> int:
    from pruned_perception.inference.detector import Detector

    if (args.path / MANIFEST).exists() and not args.force:
        raise UserError(f'{args.path}: a bundle is there already; give --force to replace it')
    model = _model(args.onnx)
    manifest = _manifest_of(args, model)
    with TemporaryDirectory() as trial:  # nothing is left, or replaced, where it does not run
        try:
            bundle = write_bundle(trial, model, manifest)
            Detector(bundle, time_limit_s=args.time_limit).self_check()
        except UserError as error:
            raise UserError(str(error).replace(trial, str(args.path))) from error
    bundle = write_bundle(args.path, model, manifest)
    say(_description(bundle))
    if bundle.input.batch > 1:
        say(
            f'note: the network takes {bundle.input.batch} images at once and gets one; export it '
            'with a batch of 1, and it will take a fraction of the time'
        )
    return 0


def _model(file: Path) -> bytes:
    """Return the ONNX file, with the tensors that it has in other files put in."""
    from pruned_perception.inference.onnx_file import external_tensors

    model = read_file(file, MOST_MODEL_BYTES)
    try:
        elsewhere = external_tensors(model)
    except ValueError as error:
        raise UserError(f'{file}: not an ONNX file, or damaged: {error}') from error
    if not elsewhere:
        return model
    try:
        import onnx
    except ImportError as error:
        raise UserError(
            f'{file}: {len(elsewhere)} of its tensors ({elsewhere[0]}, …) lie in other files; to '
            "put them in needs the package onnx: pip install 'pruned_perception[train]'"
        ) from error
    try:  # relative paths below the file's folder only: onnx refuses others
        inlined = onnx.load(file).SerializeToString()
    except Exception as error:  # onnx raises what protobuf and the file system raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f'{file}: its tensors in other files cannot be read: {first}') from error
    if external_tensors(inlined):
        raise UserError(f'{file}: its tensors in other files cannot be put in: over 2 GiB?')
    return inlined


def _manifest_of(args: argparse.Namespace, model: bytes) -> dict[str, Any]:
    from pruned_perception.inference.engine import create_session

    session = create_session(model, name=str(args.onnx), time_limit_s=args.time_limit)
    graph_input = _graph_input(args, session)
    labels = list(read_labels(args.labels))
    output = {
        'names': args.outputs or [node.name for node in session.get_outputs()],
        'decoder': args.decoder,
        'parameters': dict(_parameter(text, '--parameter') for text in args.parameter),
    }
    if args.decoder is None:
        output = _recognised(args, session, graph_input, len(labels), output)
    return {
        'schema_version': SCHEMA_VERSION,
        'name': args.name or args.path.resolve().name,
        'input': {
            **graph_input,
            'color': args.color,
            'resize': args.resize,
            'align': args.align,
            'pad_value': args.pad_value,
            'mean': args.mean,
            'std': args.std,
        },
        'output': output,
        'labels': labels,
        'thresholds': {
            'score': args.score_threshold,
            'iou': args.iou_threshold,
            'max_detections': args.max_detections,
        },
        'cost': {'parameters': 0, 'macs': 0},
        'parent': None,
        'pruning': None,
        'certificate': None,
        'evaluation': [],
        'latency': [],
        'provenance': {
            'created': datetime.now(timezone.utc).isoformat(timespec='seconds'),
            'tool': f'pruned_perception {__version__}',
            **({'data': args.data} if args.data else {}),
            **({'weights_licence': args.weights_licence} if args.weights_licence else {}),
        },
    }


def _graph_input(args: argparse.Namespace, session: Any) -> dict[str, Any]:
    """Return name, shape, dtype and layout of the image, and the values of other inputs."""
    nodes = session.get_inputs()
    types = {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32', 'tensor(float16)': 'float16'}
    images = [node for node in nodes if node.type in types and len(node.shape) in (3, 4)]
    if len(images) != 1:
        have = ', '.join(f'{node.name} {node.type} {node.shape}' for node in nodes)
        raise UserError(
            f'{args.onnx}: one input, an image, is needed: float, float16 or uint8, [1, 3, H, W], '
            f'[1, H, W, 3], [3, H, W] or [H, W, 3]; it has {have}'
        )
    [node] = images
    shape = list(node.shape)
    layout = ('NHWC' if shape[-1] == 3 else 'NCHW')[4 - len(shape) :]
    height, width = layout.index('H'), layout.index('W')
    if args.size is not None:
        shape[height], shape[width] = args.size
    elif not (isinstance(shape[height], int) and isinstance(shape[width], int)):
        raise UserError(f'{args.onnx}: input {node.name} is {shape}; give its size, --size H W')
    if 'N' in layout and not isinstance(shape[0], int):
        shape[0] = 1
    shape[layout.index('C')] = 3
    others = [each for each in nodes if each is not node]
    found = {'name': node.name, 'shape': shape, 'dtype': types[node.type], 'layout': layout}
    constants = _constants(args, others, (shape[height], shape[width]))
    return {**found, **({'constants': constants} if others else {})}


def _constants(
    args: argparse.Namespace, nodes: Sequence[Any], size: tuple[int, int]
) -> list[dict[str, Any]]:
    """Return the values of the graph's inputs beside the image, given or by their names."""
    from pruned_perception.inference.graph import suggested_constants

    given = dict(_parameter(text, '--constant') for text in args.constant)
    unknown = sorted(set(given) - {node.name for node in nodes})
    if unknown:
        raise UserError(f'{args.onnx}: --constant {unknown[0]}: it has no such input')
    found = []
    for node in nodes:
        values = given.get(node.name, suggested_constants(node, size))
        if values is None:
            raise UserError(
                f'{args.onnx}: beside the image it takes {node.name}, {node.type} {node.shape}: '
                f'say its value, --constant {node.name}=[…], such that boxes come back in pixels '
                f'of the input, which is {size[0]} high and {size[1]} wide'
            )
        found.append({'name': node.name, 'values': values if type(values) is list else [values]})
    return found


def _recognised(
    args: argparse.Namespace,
    session: Any,
    graph_input: Mapping[str, Any],
    classes: int,
    output: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the section `output` for a decoder that the graph's outputs show."""
    from pruned_perception.bundle.manifest import InputSpec
    from pruned_perception.inference import decoders, recognition
    from pruned_perception.inference.graph import first_run

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
        outputs = first_run(session, output['names'], spec, str(args.onnx), args.time_limit)
    except ValueError as error:
        raise UserError(f'{args.onnx}: --constant: {error}') from error
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
        return {
            'names': list(reading.outputs), 'decoder': reading.decoder, 'parameters': parameters
        }  # fmt: skip
    shapes = ', '.join(f'{each.name} {each.shape}' for each in graph.outputs)
    start = f'{args.onnx}: outputs {shapes}, with {classes} labels'
    if not found:
        raise UserError(
            f'{start}, are none of the kinds that are known: say --decoder, one of '
            f'{", ".join(decoders.names())} (docs/bundle.md); or are the labels not those of this '
            'network?'
        )
    lines = '\n'.join(f'  {_options(each)}   {each.whose}' for each in found)
    raise UserError(f'{start}, may mean several things. Whose network is it?\n{lines}')


def _options(reading: Any) -> str:
    """Return a reading as options of the command line."""
    words = ['--decoder', reading.decoder]
    for name, value in reading.parameters.items():
        words += ['--parameter', shlex.quote(f'{name}={json.dumps(value)}')]
    if len(reading.outputs) > 1:
        words += ['--outputs', *map(shlex.quote, reading.outputs)]
    return ' '.join(words)


def _parameter(text: str, option: str) -> tuple[str, Any]:
    name, found, value = text.partition('=')
    if not (name and found):
        raise UserError(f'{option} {text}: write NAME=JSON, e.g. strides=[8,16,32]')
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
