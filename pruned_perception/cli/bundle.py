"""`pruned-perception bundle`: show or verify a bundle or family, or make one of an ONNX file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
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
    parser.add_argument('--decoder', required=True, choices=decoders.names())
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
    return {
        'schema_version': SCHEMA_VERSION,
        'name': args.name or args.path.resolve().name,
        'input': {
            **_graph_input(args, session),
            'color': args.color,
            'resize': args.resize,
            'align': args.align,
            'pad_value': args.pad_value,
            'mean': args.mean,
            'std': args.std,
        },
        'output': {
            'names': args.outputs or [node.name for node in session.get_outputs()],
            'decoder': args.decoder,
            'parameters': dict(_parameter(text) for text in args.parameter),
        },
        'labels': list(read_labels(args.labels)),
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
    """Return name, shape, dtype and layout of the graph's only input."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ', '.join(node.name for node in inputs)
        raise UserError(f'{args.onnx}: one input, an image, is needed; it has {names}')
    node = inputs[0]
    types = {'tensor(uint8)': 'uint8', 'tensor(float)': 'float32'}
    shape = list(node.shape)
    if node.type not in types or len(shape) != 4:
        raise UserError(
            f'{args.onnx}: input {node.name} is {node.type} {shape}; float or uint8 images '
            '[1, 3, H, W] or [1, H, W, 3] are needed'
        )
    layout = 'NHWC' if shape[3] == 3 else 'NCHW'
    places = (1, 2) if layout == 'NHWC' else (2, 3)
    if args.size is not None:
        shape[places[0]], shape[places[1]] = args.size
    elif not all(isinstance(shape[place], int) for place in places):
        raise UserError(f'{args.onnx}: input {node.name} is {shape}; give its size, --size H W')
    shape[0] = 1
    shape[1 if layout == 'NCHW' else 3] = 3
    return {'name': node.name, 'shape': shape, 'dtype': types[node.type], 'layout': layout}


def _parameter(text: str) -> tuple[str, Any]:
    name, found, value = text.partition('=')
    if not (name and found):
        raise UserError(f'--parameter {text}: write NAME=JSON, e.g. strides=[8,16,32]')
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
