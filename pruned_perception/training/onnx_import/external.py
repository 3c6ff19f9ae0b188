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
