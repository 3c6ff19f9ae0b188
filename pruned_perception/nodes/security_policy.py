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

"""The SROS 2 policy of the nodes: which names each of them uses, and nothing beyond.

config/security/policy.xml is what

    python -m pruned_perception.nodes.security_policy

prints; with options, the policy of a camera's namespace and topic. See docs/security.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from xml.sax.saxutils import escape, quoteattr

from pruned_perception.nodes.image_topic import image_topic

VERSION = '0.2.0'
"""Of the schema of ROS 2 access control policies."""

_EVERY_NODE = (
    '~/describe_parameters',
    '~/get_parameter_types',
    '~/get_parameters',
    '~/get_type_description',
    '~/list_parameters',
    '~/set_parameters',
    '~/set_parameters_atomically',
)
_LIFECYCLE = (
    '~/change_state',
    '~/get_available_states',
    '~/get_available_transitions',
    '~/get_state',
    '~/get_transition_graph',
)
_LOGS = ('/parameter_events', '/rosout')


@dataclass(frozen=True)
class Profile:
    """What one node may do; names as in its code: relative, private (~/) or absolute."""

    node: str
    namespace: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    reply: tuple[str, ...] = _EVERY_NODE
    """Services that it offers. None of our nodes calls any."""


@dataclass(frozen=True)
class Camera:
    """One camera and its nodes, as the launch arguments of the same names say."""

    namespace: str = '/'
    image: str = 'image_raw'
    image_transport: str = 'raw'
    use_sim_time: bool = False
    node_name: str = 'perception_node'

    def _clock(self) -> tuple[str, ...]:
        return ('/clock',) if self.use_sim_time else ()

    def detector(self, node: str) -> Profile:
        """Return the profile of a perception node, or of `echo_node`."""
        return Profile(
            node,
            self.namespace,
            publish=(
                '/diagnostics',
                *_LOGS,
                'detections',
                'label_info',
                '~/active_model',
                '~/annotated_image',
                '~/metrics',
                '~/transition_event',
            ),
            subscribe=(*self._clock(), image_topic(self.image, self.image_transport)),
            reply=(*_LIFECYCLE, *_EVERY_NODE),
        )

    def robot(self) -> Profile:
        """Return the profile of `simulated_robot`, whose time is always the system's."""
        images = ('camera_info', 'ground_truth', 'image_raw')
        return Profile('simulated_robot', self.namespace, (*_LOGS, *images), ('cmd_vel',))

    def monitor(self) -> Profile:
        """Return the profile of `pruned-perception monitor`."""
        prefix, node = self.namespace.rstrip('/'), self.node_name
        names = ('camera_info', 'detections', f'{node}/active_model', f'{node}/metrics')
        topics = [f'{prefix}/{name}' for name in names]
        # Once it knows the node, it follows that to the camera it listens to.
        folder, slash, _ = self.image.removesuffix('/compressed').rpartition('/')
        beside = f'{folder}{slash}camera_info'
        beside = beside if beside.startswith('/') else f'{prefix}/{beside}'
        return Profile(
            'perception_monitor',
            '/',
            publish=('/parameter_events',),
            subscribe=(*self._clock(), '/diagnostics', *dict.fromkeys((beside, *topics))),
        )

    def view(self) -> Profile:
        """Return the profile of `pruned-perception view`: a monitor, and what the node draws."""
        drawn = f'{self.namespace.rstrip("/")}/{self.node_name}/annotated_image'
        watching = self.monitor()
        return replace(watching, node='perception_view', subscribe=(*watching.subscribe, drawn))

    def enclaves(self) -> dict[str, tuple[Profile, ...]]:
        """Return the profiles of each enclave: one a process, and one for a whole simulation."""
        prefix = self.namespace.rstrip('/')
        robot, monitor = self.robot(), self.monitor()
        # The robot has images of its own.
        simulated = replace(self, image=Camera.image, image_transport=Camera.image_transport)
        return {
            f'{prefix}/{self.node_name}': (self.detector(self.node_name),),
            f'{prefix}/echo_node': (self.detector('echo_node'),),
            f'{prefix}/simulated_robot': (robot,),
            f'{prefix}/monitor': (monitor,),
            f'{prefix}/view': (self.view(),),
            f'{prefix}/simulation': (robot, simulated.detector(self.node_name), monitor),
        }


def policy(camera: Camera) -> str:
    """Return the policy as XML."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<!-- Written by python -m pruned_perception.nodes.security_policy; see its help. -->',
        f'<policy version="{VERSION}">',
        '  <enclaves>',
    ]
    for path, profiles in camera.enclaves().items():
        lines += [f'    <enclave path={quoteattr(path)}>', '      <profiles>']
        for profile in profiles:
            lines += [f'        {line}' for line in _profile(profile)]
        lines += ['      </profiles>', '    </enclave>']
    return '\n'.join([*lines, '  </enclaves>', '</policy>', ''])


def _profile(profile: Profile) -> Iterator[str]:
    yield f'<profile ns={quoteattr(profile.namespace)} node={quoteattr(profile.node)}>'
    for element, right, names in (
        ('topic', 'publish', profile.publish),
        ('topic', 'subscribe', profile.subscribe),
        ('service', 'reply', profile.reply),
    ):
        yield f'  <{element}s {right}="ALLOW">'
        yield from (f'    <{element}>{escape(name)}</{element}>' for name in names)
        yield f'  </{element}s>'
    yield '</profile>'


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the policy of one camera's nodes."""
    parser = argparse.ArgumentParser(
        prog='python -m pruned_perception.nodes.security_policy',
        description="Print the SROS 2 policy of one camera's nodes (docs/security.md).",
    )
    parser.add_argument('--namespace', default='', help='namespace of the nodes')
    parser.add_argument('--node-name', default=Camera.node_name, help='name of the detector')
    parser.add_argument('--image', default=Camera.image, help='topic of the images')
    parser.add_argument('--image-transport', choices=('raw', 'compressed'), default='raw')
    parser.add_argument('--use-sim-time', action='store_true', help='they subscribe to /clock')
    args = parser.parse_args(arguments)
    namespace = f'/{args.namespace.strip("/")}'
    camera = Camera(namespace, args.image, args.image_transport, args.use_sim_time, args.node_name)
    sys.stdout.write(policy(camera))
    return 0


if __name__ == '__main__':
    sys.exit(main())
