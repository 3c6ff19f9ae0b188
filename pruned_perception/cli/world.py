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

"""`pruned-perception world`: the simulated warehouse as a file, for Gazebo or MuJoCo; or check one.

Both are written from one description, which the simulated robot drives through, too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from pruned_perception._io import errors_of_writing, replacing
from pruned_perception.cli.output import say
from pruned_perception.errors import UserError
from pruned_perception.simulation import LABELS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('--format', choices=('sdf', 'mjcf'), default='sdf', help='(sdf)')
    parser.add_argument(
        '--light',
        action='store_true',
        help='for machines without a graphics card: no shadows, no scenery, two objects of each '
        'label (sdf)',
    )
    parser.add_argument('--scene-seed', type=int, default=0, help='which warehouse (0)')
    parser.add_argument(
        '--output', type=Path, default=Path('worlds'), help='folder to write to (worlds)'
    )
    parser.add_argument(
        '--check', type=Path, metavar='FILE', help='check this world instead of writing one'
    )


def run(args: argparse.Namespace) -> int:
    """Write the world and what it refers to, or check one: status 1 where something is wrong."""
    from pruned_perception.simulation import gazebo_world, world_check
    from pruned_perception.simulation.robot import build_scene

    if args.check is not None:
        facts = world_check.read_world(args.check, LABELS)
        problems = world_check.sdf_problems(args.check)
        for problem in problems:
            say(problem)
        for name in facts.unlabelled(LABELS):
            say(f'no model is labelled as {name}')
        say(f'{args.check}: {"not valid" if problems else "valid"}')
        return 1 if problems else 0
    scene = build_scene(args.scene_seed)
    if args.format == 'sdf':
        name = gazebo_world.LIGHT_WORLD if args.light else gazebo_world.WORLD
        files = gazebo_world.world_files(scene, name, light=args.light)
    elif args.light:
        raise UserError('--light is for --format sdf')
    else:
        files = gazebo_world.mjcf_files(scene, gazebo_world.WORLD)
    for path, content in files.items():
        file = args.output / path
        with errors_of_writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as temporary:
                temporary.write_bytes(content)
    say(f'{args.output / next(iter(files))} and {len(files) - 1} files beside it')
    return 0
