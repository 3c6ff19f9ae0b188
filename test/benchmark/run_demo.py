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

"""Run the demonstration with the tests' own robot: `run_demo.py OUTPUT FAMILY TIMEOUT ROBOT…`."""

from __future__ import annotations

import sys
from pathlib import Path

from pruned_perception._processes import sigterm_as_ctrl_c
from pruned_perception.benchmark.demo import Settings, demonstrate
from pruned_perception.benchmark.report import write_report
from pruned_perception.cli.report import print_summary
from pruned_perception.errors import UserError

SECONDS = 3.0


def main() -> int:
    output, family, timeout, *robot = sys.argv[1:]
    settings = Settings(
        Path(output), family, seconds=SECONDS, robot=robot, start_timeout_s=float(timeout)
    )
    try:
        with sigterm_as_ctrl_c():
            demonstration = demonstrate(
                settings, lambda title, _done, _note: print(title, file=sys.stderr, flush=True)
            )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print_summary(demonstration, write_report(demonstration, pictures=3))
    return 0


if __name__ == '__main__':
    sys.exit(main())
