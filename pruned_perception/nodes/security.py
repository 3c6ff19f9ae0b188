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

"""SROS 2: what its variables ask for, and clear words where a process does not get it.

ROS itself takes a misspelt value for "off" or "permissive", and a middleware that was built
without security answers in C++ (docs/security.md).
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from rclpy.node import Node

ENABLE, STRATEGY = 'ROS_SECURITY_ENABLE', 'ROS_SECURITY_STRATEGY'
KEYSTORE = 'ROS_SECURITY_KEYSTORE'

_OFF = ('', 'false', '0', 'no', 'off')
_BUILT_WITHOUT = 'SECURITY=ON'  # the CMake option that Fast DDS and Cyclone DDS name then
_NO_ENCLAVE = re.compile(r"SECURITY ERROR: directory '(.*?)' does not exist")


def is_enabled(environment: Mapping[str, str]) -> bool:
    """Tell whether security is asked for.

    Raises UserError for values that ROS would ignore without a word, and for Enforce without a
    keystore.
    """
    enable = environment.get(ENABLE, '')
    if enable.lower() in _OFF:
        return False
    if enable != 'true':
        raise UserError(
            f'{ENABLE}={enable} would leave security off: ROS knows only true, in lower case'
        )
    strategy = environment.get(STRATEGY, '')
    if strategy not in ('', 'Permissive', 'Enforce'):
        raise UserError(
            f'{STRATEGY}={strategy} would not be enforced: ROS knows only Enforce, spelt like this '
            '(or Permissive)'
        )
    if strategy == 'Enforce' and not environment.get(KEYSTORE):
        raise UserError(
            f'{STRATEGY}=Enforce needs a keystore: name its folder in {KEYSTORE}, or make one with '
            '`ros2 security create_keystore FOLDER`'
        )
    return True


def explain(error: str) -> str | None:
    """Return an error of rcl's or the middleware's in our words; None if it is not of security."""
    if _BUILT_WITHOUT in error:
        return (
            f'{ENABLE} is true, but this middleware was built without security, as the ROS 2 '
            'wheels of PyPI are: run on an installed ROS 2 (its packages have it), or unset '
            f'{ENABLE} for a domain that is open to everybody in it'
        )
    if found := _NO_ENCLAVE.search(error):
        return (
            f'{STRATEGY} is Enforce, but there is no enclave {found[1]}: make it with `ros2 '
            'security create_enclave KEYSTORE NAME`, and pass NAME as `--ros-args --enclave NAME` '
            'or enclave:=NAME'
        )
    return None


@contextmanager
def explained() -> Iterator[None]:
    """Start the middleware within: a UserError says why it cannot be secure as it was asked to."""
    if not is_enabled(os.environ):
        yield
        return
    with warnings.catch_warnings():
        # Of a node that the middleware did not make, rclpy says that it cannot be taken apart.
        warnings.filterwarnings('ignore', 'Failed to fini', RuntimeWarning)
        try:
            yield
        except RuntimeError as error:  # RCLError
            if sentence := explain(str(error)):
                raise UserError(sentence) from error
            raise


def remark(node: Node, environment: Mapping[str, str]) -> str:
    """Return what to say of a node that runs open although security is enabled; '' for nothing."""
    if not is_enabled(environment) or environment.get(STRATEGY) == 'Enforce':
        return ''
    own = (node.get_name(), node.get_namespace())
    nodes = node.get_node_names_and_namespaces_with_enclaves()
    enclave = next((each[2] for each in nodes if each[:2] == own), '/')
    keystore = environment.get(KEYSTORE, '')
    folder = Path(keystore, 'enclaves', enclave.lstrip('/'))
    if keystore and folder.is_dir():
        return ''
    missing = f'there is no enclave {folder}' if keystore else f'{KEYSTORE} is not set'
    return (
        f'{missing}: this node is NOT secure, everybody in the domain can read and forge what it '
        f'gets and says ({STRATEGY}=Enforce would refuse to start it)'
    )
