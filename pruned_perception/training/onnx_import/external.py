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

"""ONNX files that keep tensors in other files, as one."""

from __future__ import annotations

from pathlib import Path

import onnx

from pruned_perception.bundle import MOST_MODEL_BYTES
from pruned_perception.bundle.reading import read_file
from pruned_perception.errors import UserError
from pruned_perception.inference.onnx_file import external_tensors


def model_of(file: Path) -> bytes:
    """Return an ONNX file, with the tensors that it has in other files put in.

    Raises:
        UserError: it cannot be read, is no ONNX file, or is too large as one.
    """
    model = read_file(file, MOST_MODEL_BYTES)
    try:
        if not external_tensors(model):
            return model
    except ValueError as error:
        raise UserError(f'{file}: not an ONNX file, or damaged: {error}') from error
    try:  # relative paths below the file's folder only: onnx refuses others
        inlined: bytes = onnx.load(file).SerializeToString()
    except Exception as error:  # onnx raises what protobuf and the file system raise
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f'{file}: its tensors in other files cannot be read: {first}') from error
    if external_tensors(inlined):
        raise UserError(f'{file}: its tensors in other files cannot be put in: over 2 GiB?')
    return inlined
