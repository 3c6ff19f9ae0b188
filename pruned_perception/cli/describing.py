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

"""Arguments that say what an ONNX file does not: what its outputs mean, how images are prepared."""

from __future__ import annotations

import argparse
import json
from typing import Any

from pruned_perception.cli.arguments import at_least, fraction, number
from pruned_perception.errors import UserError


def add_description(parser: argparse._ActionsContainer) -> None:
    """Declare them; all may be left out, see `inference.conventions`."""
    from pruned_perception.inference import decoders

    authors = "as the decoder's authors do it"
    parser.add_argument(
        '--decoder',
        choices=decoders.names(),
        help='default: what the outputs show, where they leave no doubt',
    )
    parser.add_argument(
        '--parameter',
        action='append',
        default=[],
        metavar='NAME=JSON',
        help='parameter of the decoder, e.g. strides=[8,16,32]; may be repeated',
    )
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
    for option, choices in (
        ('--color', ('rgb', 'bgr')),
        ('--resize', ('stretch', 'letterbox')),
        ('--align', ('center', 'top_left')),
    ):
        parser.add_argument(option, choices=choices, help=f'default: {authors}')
    parser.add_argument(
        '--pad-value', type=at_least(0, 255), metavar='0…255', help=f'default: {authors}'
    )
    for option, text in (('--mean', 'subtracted'), ('--std', 'divided by')):
        parser.add_argument(
            option,
            nargs=3,
            type=number,
            metavar=('A', 'B', 'C'),
            help=f'{text}, per channel in the order of --color, for values 0 … 255 '
            f'(default: {authors})',
        )
    parser.add_argument('--score-threshold', type=fraction, help=f'default: {authors}')
    parser.add_argument(
        '--iou-threshold', type=fraction, help=f'1 suppresses nothing (default: {authors})'
    )
    parser.add_argument('--max-detections', type=at_least(1), help='default 100')


def described(args: argparse.Namespace) -> dict[str, Any]:
    """Return what they say, as `create_bundle` takes it."""
    fields = ('color', 'resize', 'align', 'pad_value', 'mean', 'std', 'max_detections')
    return {
        'decoder': args.decoder,
        'parameters': dict(_parameter(text, '--parameter') for text in args.parameter),
        'constants': dict(_parameter(text, '--constant') for text in args.constant),
        'outputs': args.outputs,
        'size': None if args.size is None else tuple(args.size),
        'prepared': {
            **{name: getattr(args, name) for name in fields},
            'score': args.score_threshold,
            'iou': args.iou_threshold,
        },
    }


def is_described(args: argparse.Namespace) -> bool:
    """Whether any of them was given."""
    found = described(args)
    prepared = found.pop('prepared')
    return any(found.values()) or any(value is not None for value in prepared.values())


def _parameter(text: str, option: str) -> tuple[str, Any]:
    name, found, value = text.partition('=')
    if not (name and found):
        raise UserError(f'{option} {text}: write NAME=JSON, e.g. strides=[8,16,32]')
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
