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
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception._tables import Table
from pruned_perception.bundle import (
    MANIFEST,
    MOST_MODEL_BYTES,
    Bundle,
    is_family,
    load_bundle,
    load_family,
    load_member,
    resolve_model,
    signature,
)
from pruned_perception.bundle.reading import read_file
from pruned_perception.cli.arguments import add_execution_provider, add_time_limit
from pruned_perception.cli.describing import add_description, described
from pruned_perception.cli.output import say
from pruned_perception.datasets import read_labels
from pruned_perception.errors import UserError
from pruned_perception.inference.onnx_file import external_tensors

if TYPE_CHECKING:
    from pruned_perception.inference.picture_check import Pictures


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
            add_execution_provider(each)
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
    parser.add_argument('onnx', type=Path, help='the ONNX file')
    parser.add_argument('path', type=Path, help='folder of the new bundle')
    parser.add_argument(
        '--labels',
        type=Path,
        metavar='FILE',
        help='text file, one label a line, in the order of their ids; not needed where the ONNX '
        'file names them',
    )
    parser.add_argument(
        '--parent',
        metavar='BUNDLE',
        help='the dense bundle that this was pruned from: both in one folder are a family',
    )
    parser.add_argument('--name', help='default: the name of the folder')
    parser.add_argument(
        '--image',
        type=Path,
        metavar='SOURCE',
        help='picture, or better a folder (video, bag) of eight, with something to be found: '
        'what is found there is shown, and whether another colour order or scale finds more',
    )
    add_description(parser)
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
    return _verify(members, args, signed=bool(keys))


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


def _verify(members: tuple[Bundle, ...], args: argparse.Namespace, *, signed: bool) -> int:
    from pruned_perception.inference.detector import Detector

    executions = []
    for bundle in members:
        detector = Detector(
            bundle, time_limit_s=args.time_limit, execution_provider=args.execution_provider
        )
        detector.self_check()
        executions.append(detector.execution)
    if args.json:
        facts = [
            {'name': b.name, 'path': str(b.path), 'sha256': b.sha256, **execution.to_dict()}
            for b, execution in zip(members, executions, strict=True)
        ]
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        checked = 'signature, ' * signed + 'schema, SHA-256, shapes and three runs'
        for bundle, execution in zip(members, executions, strict=True):
            say(
                f'{bundle.path}: {bundle.name}: {checked} are right, on {execution.to_text()}'
                + (f'; {execution.warning}' if execution.warning else '')
            )
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

    def text(value: Any) -> str:
        if isinstance(value, float):
            return f'{value:.4g}'
        if isinstance(value, dict):
            return f'{{{len(value)}}}'
        if isinstance(value, list):
            nested = len(value) > 4 or any(isinstance(each, (dict, list)) for each in value)
            return f'[{len(value) if nested else ", ".join(map(text, value))}]'
        return str(value)

    return ', '.join(f'{key} {text(value)}' for key, value in record.items())


def _create(args: argparse.Namespace) -> int:
    from pruned_perception.inference.new_bundle import create_bundle

    _check_place(args.path, args.force)
    pictures = None if args.image is None else _pictures(args.image)
    bundle = create_bundle(
        args.onnx,
        _model(args.onnx),
        args.path,
        labels=None if args.labels is None else read_labels(args.labels),
        name=args.name,
        provenance={
            **({'data': args.data} if args.data else {}),
            **({'weights_licence': args.weights_licence} if args.weights_licence else {}),
        },
        parent=None if args.parent is None else load_member(resolve_model(args.parent)),
        time_limit_s=args.time_limit,
        **described(args),
    )
    say(_description(bundle))
    if pictures is None:
        say('give --image PICTURES to see what it finds, and whether they are prepared rightly')
    else:
        _show_pictures(bundle, pictures)
    if bundle.input.batch > 1:
        say(
            f'note: the network takes {bundle.input.batch} images at once and gets one; export it '
            'with a batch of 1, and it will take a fraction of the time'
        )
    return 0


def _pictures(source: Path) -> Pictures:
    """Return the first frames of a source that can be read."""
    from pruned_perception.inference.picture_check import MOST
    from pruned_perception.inference.sources import Frame, open_source

    frames = (each for each in open_source(source).frames if isinstance(each, Frame))
    found = [(frame.image, frame.order) for frame in islice(frames, MOST)]
    if not found:
        raise UserError(f'--image {source}: no picture in it can be read')
    return found


def _show_pictures(bundle: Bundle, pictures: Pictures) -> None:
    """Print what is found in them, and a warning where another preparation finds clearly more."""
    from pruned_perception.inference.picture_check import doubt, trials

    found = trials(bundle, pictures)
    rows = [
        (
            each.options or 'as the bundle is',
            each.detections,
            each.scores,
            each.again,
            ', '.join(f'{bundle.labels[label]} {score:.2f}' for label, score in each.best),
        )
        for each in found
    ]
    header = f'{len(pictures)} pictures | found:d | scores, sum:.2f | mirrored, too:.2f | surest'
    say(Table.under(header, rows).to_text())
    if (warning := doubt(found)) is not None:
        say(f'WARNING: {warning}', file=sys.stderr)


def _check_place(folder: Path, force: bool) -> None:
    """Raise UserError where the bundle cannot or should not go there."""
    if (folder / MANIFEST).exists():
        if not force:
            raise UserError(f'{folder}: a bundle is there already; give --force to replace it')
    elif folder.is_file():
        raise UserError(f'{folder}: is a file; give a new folder')
    elif folder.is_dir() and (others := sorted(each.name for each in folder.iterdir())):
        named = ', '.join(others[:3]) + ', …' * (len(others) > 3)
        raise UserError(f'{folder}: other files are there ({named}); give a new folder')


def _model(file: Path) -> bytes:
    """Return an ONNX file; only one with tensors in other files needs the off-line stage."""
    model = read_file(file, MOST_MODEL_BYTES)
    try:
        if not external_tensors(model):
            return model
    except ValueError as error:
        raise UserError(f'{file}: not an ONNX file, or damaged: {error}') from error
    try:
        from pruned_perception.training.onnx_import.external import model_of
    except ImportError as error:
        raise UserError(
            f'{file}: some of its tensors lie in other files; to put them in needs '
            "pip install 'pruned_perception[train]'"
        ) from error
    return model_of(file)
