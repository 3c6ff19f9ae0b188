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

"""What the benchmarks' commands share: the model's arguments, the result file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pruned_perception._io import write_text
from pruned_perception.cli.arguments import at_least
from pruned_perception.nodes.parameters import PERCEPTION_PARAMETERS

DEFAULT_MODEL = next(row.default for row in PERCEPTION_PARAMETERS if row.name == 'model')
PASSED, FAILED = 0, 3
"""Exit statuses of a gate; where it could not measure, it is 1, as for every error (2: usage)."""


def add_model(parser: argparse.ArgumentParser) -> None:
    """Declare the model, as the node's parameters do."""
    parser.add_argument(
        '--model', default=DEFAULT_MODEL, help=f'bundle or family ({DEFAULT_MODEL})'
    )
    parser.add_argument('--member', default='', help='member of the family (the dense one)')
    parser.add_argument('--threads', type=at_least(1), default=1, help='threads of one run (1)')


def write_result(result: dict[str, Any], path: Path | None) -> None:
    """Write the result as JSON, if a path is given; raises UserError where that fails."""
    if path is None:
        return
    write_text(path, json.dumps(result, indent=2, default=str) + '\n')
    print(f'written: {path}')
