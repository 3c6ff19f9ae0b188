"""The engine: ONNX Runtime, imported here alone, and never with its telemetry."""

from __future__ import annotations

from pruned_perception.environment import (
    TELEMETRY_SWITCH,
    switch_telemetry_off,
    telemetry_came_first,
)
from pruned_perception.inference.errors import InferenceError
from pruned_perception.inference.onnx_file import external_tensors

switch_telemetry_off()  # once more: the environment may have changed since the package's import
import onnxruntime  # noqa: E402

_WITH_TELEMETRY = (1, 29)  # the first version that sends it on Linux
_ERRORS_ONLY = 3  # of ONNX Runtime's log; it warns about every initializer that is an input too


def create_session(
    model: bytes, *, threads: int = 1, allow_spinning: bool = False, name: str = 'model'
) -> onnxruntime.InferenceSession:
    """Return a CPU session of the ONNX `model`.

    Raises InferenceError, which names `name`, where ONNX Runtime does not take it, or
    where it may be sending telemetry already.
    """
    version = onnxruntime.__version__
    if telemetry_came_first() and _numbers(version) >= _WITH_TELEMETRY:
        raise InferenceError(
            f'ONNX Runtime {version} was imported before pruned_perception, with its telemetry on: '
            f'import pruned_perception first, or set {TELEMETRY_SWITCH}=1 in the environment'
        )
    try:
        elsewhere = external_tensors(model)
    except ValueError as error:
        raise InferenceError(f'{name}: not an ONNX file, or damaged: {error}') from error
    if elsewhere:
        raise InferenceError(
            f'{name}: {len(elsewhere)} of its tensors ({elsewhere[0]}, …) lie in other files '
            '(external data), which no hash covers; `pruned-perception bundle create` puts them in'
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    # Spinning threads burn whole cores between frames, which the robot's other nodes need.
    options.add_session_config_entry('session.intra_op.allow_spinning', str(int(allow_spinning)))
    try:
        return onnxruntime.InferenceSession(model, options, providers=['CPUExecutionProvider'])
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        raise InferenceError(f'{name}: ONNX Runtime cannot load it: {error}') from error


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('.')[:2])
