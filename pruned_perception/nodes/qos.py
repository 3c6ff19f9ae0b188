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

"""Quality of service of our topics, and the parameters by which it can be overridden."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rclpy.exceptions import ParameterException
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import (
    InvalidQosOverridesError,
    QoSOverridingOptions,
    QoSPolicyKind,
)

from pruned_perception.nodes.parameter_declaration import QOS_OVERRIDES
from pruned_perception.nodes.parameters import ParameterError

# Functions, since an override changes the profile itself.


def reliable(depth: int) -> QoSProfile:
    """Return the profile of a topic of which nothing is to be lost."""
    return QoSProfile(depth=depth, reliability=ReliabilityPolicy.RELIABLE)


def latched() -> QoSProfile:
    """Return the profile of a topic whose last message late subscribers get, too."""
    return QoSProfile(
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )


def newest(depth: int, policy: ReliabilityPolicy) -> QoSProfile:
    """Return the profile of a topic of which the newest messages count."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy)


def overridable(*, reliability: bool = True) -> QoSOverridingOptions:
    """Let parameters `qos_overrides.TOPIC.…` override history, depth and reliability."""
    kinds = [QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH]
    return QoSOverridingOptions([*kinds, QoSPolicyKind.RELIABILITY] if reliability else kinds)


def override_name(topic: str, entity: str, policy: str) -> str:
    """Return the name of the parameter; `entity` is 'subscription' or 'publisher'."""
    return f'{QOS_OVERRIDES}{topic}.{entity}.{policy}'


@contextlib.contextmanager
def explained(topic: str) -> Iterator[None]:
    """Make an override that cannot be taken a ParameterError, which says for which topic."""
    try:
        yield
    except (ParameterException, InvalidQosOverridesError) as error:
        raise ParameterError(f'parameter {QOS_OVERRIDES}{topic}: {error}') from error
    except RuntimeError as error:
        if 'QoS override' not in str(error):
            raise
        raise ParameterError(f'parameter {QOS_OVERRIDES}{topic}: {error}') from error
