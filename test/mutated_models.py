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

"""What becomes of mutated models whose hash is right: loaded, refused, broken off, or a crash.

    python test/mutated_models.py COUNT [BUNDLE]

Each is loaded and run three times, in a process of its own; one that hangs is killed and counted.
The seed of a case is its number.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from stuck_networks import stuck_onnx
from tiny_detector import tiny_manifest, tiny_onnx

from pruned_perception.bundle import load_bundle, write_bundle
from pruned_perception.errors import UserError
from pruned_perception.inference import Detector

LIMIT_S, HANGS_AFTER_S = 2.0, 60.0
LOADED, REFUSED, BROKEN_OFF, DEFECT = range(4)
NAMES = ('loaded', 'refused', 'broken off', 'defect')


def mutated(model: bytes, number: int) -> bytes:
    """Return the model with one to eight bytes, or pieces, changed."""
    generator = random.Random(number)
    data = bytearray(model)
    for _ in range(generator.randint(1, 8)):
        place = generator.randrange(len(data))
        length = generator.randint(1, 8)
        kind = generator.randrange(4)
        if kind == 0:
            data[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[place] = generator.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del data[place : place + length]
        else:
            data[place:place] = data[place : place + length]
    return bytes(data)


def outcome(model: bytes, manifest: Mapping[str, Any], folder: Path) -> int:
    """Load and run a model as `bundle verify` does."""
    try:
        Detector(write_bundle(folder, model, manifest), time_limit_s=LIMIT_S).self_check()
    except UserError as error:
        return BROKEN_OFF if 'broken off' in str(error) else REFUSED
    except Exception as error:
        print(f'{type(error).__name__}: {error}', file=sys.stderr)
        return DEFECT
    return LOADED


def try_out(model: bytes, manifest: Mapping[str, Any]) -> str:
    """Return the name of the outcome, or how the process ended."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os._exit(outcome(model, manifest, Path(folder) / 'bundle'))
        end = time.monotonic() + HANGS_AFTER_S
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > end:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return 'hung'
            time.sleep(0.005)
    code = os.waitstatus_to_exitcode(status)
    return NAMES[code] if code >= 0 else signal.Signals(-code).name


def main(count: int, path: str | None = None) -> int:
    """Print the counts as JSON."""
    models, manifest = [tiny_onnx(), stuck_onnx()], tiny_manifest()
    if path is not None:
        bundle = load_bundle(path)
        models = [bundle.onnx_bytes]
        manifest = {
            k: v for k, v in bundle.manifest.items() if k not in ('onnx', 'contract_sha256')
        }
    counts: Counter[str] = Counter()
    for number in range(count):
        model = models[number % len(models)]
        found = try_out(mutated(model, number), manifest)
        counts[found] += 1
        if found not in NAMES[:3]:
            print(f'case {number}: {found}', file=sys.stderr)
    print(json.dumps(counts))
    return 0


if __name__ == '__main__':
    sys.exit(main(int(sys.argv[1]), *sys.argv[2:]))
