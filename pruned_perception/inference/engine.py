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

"""The engine: ONNX Runtime, imported here alone, and never with its telemetry."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from pruned_perception.environment import (
    TELEMETRY_SWITCH,
    switch_telemetry_off,
    telemetry_came_first,
)
from pruned_perception.inference.errors import BrokenOffError, InferenceError
from pruned_perception.inference.onnx_file import external_tensors
from pruned_perception.inference.providers import (
    CPU,
    Choice,
    Execution,
    ProviderError,
    by_name,
    parse,
    short,
)
from pruned_perception.inference.runs import TIME_LIMIT_S, limited

switch_telemetry_off()  # once more: the environment may have changed since the package's import
import onnxruntime  # noqa: E402

_CPU_PROVIDER = 'CPUExecutionProvider'
_THREADS = {'openvino': 'num_of_threads', 'xnnpack': 'intra_op_num_threads'}
"""Options of providers that have threads of their own."""
_WITH_TELEMETRY = (1, 29)  # the first version that sends it on Linux
_ERRORS_ONLY = 3  # of ONNX Runtime's log; it warns about every initializer that is an input too

_FATAL_ONLY = 4  # what else a run says is in its exception

_AS_REQUESTED = 1  # kSameAsRequested, of an arena's growth

_arena_lock = threading.Lock()
_arena_is_shared = False


def _share_arena() -> None:
    """Let all sessions take their activations from one arena of this process.

    Members of a family run by turns: with an arena each, their buffers would add up. It grows by
    what is asked for: to the next power of two, by default, it would double.
    """
    global _arena_is_shared
    with _arena_lock:
        if not _arena_is_shared:
            onnxruntime.create_and_register_allocator(
                onnxruntime.OrtMemoryInfo(
                    'Cpu',
                    onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
                    0,
                    onnxruntime.OrtMemType.DEFAULT,
                ),
                onnxruntime.OrtArenaCfg(0, _AS_REQUESTED, -1, -1),
            )
            _arena_is_shared = True


def run_options() -> onnxruntime.RunOptions:
    """Return options for one call of `run`; `terminate = True`, from any thread, breaks it off."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL_ONLY
    return options


class Session(onnxruntime.InferenceSession):
    """A session that knows where its network runs."""

    execution: Execution


def providers() -> tuple[str, ...]:
    """Return the execution providers that the installed engine has, by our names."""
    return tuple(by_name(onnxruntime.get_available_providers()))


def create_session(
    model: bytes,
    *,
    threads: int = 1,
    allow_spinning: bool = False,
    name: str = 'model',
    time_limit_s: float = TIME_LIMIT_S,
    execution_provider: str = CPU,
) -> Session:
    """Return a session of the ONNX `model` on the first `execution_provider` that loads.

    What that may be is said in `providers`. Raises ProviderError, with the providers that there
    are, where none of those asked for loads; InferenceError, which names `name`, where ONNX
    Runtime does not take the model within `time_limit_s` seconds, or where it may be sending
    telemetry already.
    """
    _refuse_telemetry()
    choices = parse(execution_provider)
    try:
        elsewhere = external_tensors(model)
    except ValueError as error:
        raise InferenceError(f'{name}: not an ONNX file, or damaged: {error}') from error
    if elsewhere:
        raise InferenceError(
            f'{name}: {len(elsewhere)} of its tensors ({elsewhere[0]}, …) lie in other files '
            '(external data), which no hash covers; `pruned-perception bundle create` puts them in'
        )
    _share_arena()
    passed_over: dict[str, str] = {}
    for number, choice in enumerate(choices):
        options = session_options(threads, allow_spinning)
        options.add_session_config_entry('session.use_env_allocators', '1')
        options.add_session_config_entry('session.record_ep_graph_assignment_info', '1')
        try:
            given = _given(choices[number:], threads)
            session = _load(model, options, given, name, time_limit_s)
            session.execution = _execution(session, choice, passed_over)
        except ProviderError as error:
            passed_over[choice.name] = str(error)
            continue
        # It would hold the file's bytes for as long as it lives, to load it for another provider.
        session._model_bytes = None
        return session
    reasons = '; '.join(f'{each}: {why}' for each, why in passed_over.items())
    raise ProviderError(
        f'{name}: execution_provider {execution_provider!r}: {reasons}. This installation of ONNX '
        f'Runtime has {", ".join(providers())}; to fall back to one of them, name it last: '
        f'{execution_provider}, {CPU}'
    )


def _given(choices: Sequence[Choice], threads: int) -> list[tuple[str, dict[str, str]]]:
    """Return what the engine is to try, in its own words; raises ProviderError for the first."""
    there = by_name(onnxruntime.get_available_providers())
    if choices[0].name not in there:
        raise ProviderError('not there')
    return [
        (
            there[each.name],
            {
                **({_THREADS[each.name]: str(threads)} if each.name in _THREADS else {}),
                **each.options,
            },
        )
        for each in choices
        if each.name in there
    ]


def _load(
    model: bytes,
    options: onnxruntime.SessionOptions,
    given: list[tuple[str, dict[str, str]]],
    name: str,
    time_limit_s: float,
) -> Session:
    """Return a session, without the engine's own retries with other providers."""
    cancelled = False

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True
        if hasattr(options, 'set_load_cancellation_flag'):  # not in older versions
            options.set_load_cancellation_flag(True)

    try:
        with limited(f'{name}: loading', cancel, time_limit_s):
            session = Session(model, options, providers=given, enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common public base
        first = short(given[0][0])
        if first == CPU or cancelled:
            raise InferenceError(f'{name}: ONNX Runtime cannot load it: {error}') from error
        raise ProviderError(f'does not load it: {_first_line(error)}') from error
    session.disable_fallback()  # of single runs
    return session


def _execution(session: Session, choice: Choice, passed_over: Mapping[str, str]) -> Execution:
    """Return where a session runs; raises ProviderError where that is not the choice."""
    if choice.name not in map(short, session.get_providers()):
        raise ProviderError(
            'does not load: a library or a device that it needs is not there, or it does not take '
            'its options (what the engine printed says more)'
        )
    nodes: dict[str, int] | None = None
    told = getattr(session, 'get_provider_graph_assignment_info', None)
    if told is not None:  # ONNX Runtime 1.24 and later
        nodes = {choice.name: 0}
        for part in told():
            whose = short(part.ep_name)
            nodes[whose] = nodes.get(whose, 0) + len(part.get_nodes())
        if choice.name != CPU and not nodes[choice.name]:
            raise ProviderError(f'takes none of the {sum(nodes.values())} nodes of this network')
    return Execution(choice.name, nodes, dict(passed_over))


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return re.sub(r'^\S+:\d+ [^()]*\([^()]*\) ', '', line)  # where in its sources it arose


def version() -> str:
    """Return the engine's name and version, as files and tables have it."""
    return f'onnxruntime {onnxruntime.__version__}'


def simplified(model: bytes) -> bytes:
    """Return the ONNX model with constants folded, and nothing that one engine alone knows."""
    from tempfile import TemporaryDirectory  # off-line only

    _refuse_telemetry()
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(Path(folder) / 'model.onnx')
        options.log_severity_level = _ERRORS_ONLY
        onnxruntime.InferenceSession(model, options, providers=[_CPU_PROVIDER])
        return Path(options.optimized_model_filepath).read_bytes()


def _profile(file: Path) -> list[dict[str, Any]]:
    """Return what ONNX Runtime has measured; it does not say where it could not write it all."""
    try:
        events: list[dict[str, Any]] = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InferenceError(
            f'{file}: the profile cannot be written: is the disk of {file.parents[1]} full?'
        ) from error
    return events


def profiled_nodes(
    model: bytes,
    feeds: Callable[[onnxruntime.InferenceSession], Mapping[str, NDArray[Any]]],
    runs: int,
    *,
    threads: int = 1,
    fused: bool = True,
) -> list[list[dict[str, Any]]]:
    """Return the nodes that each run executed, in order, with `dur` in microseconds.

    Args:
        model: ONNX.
        feeds: session → the inputs of all runs.
        runs: how many; two before them load weights into the caches.
        threads: of the engine.
        fused: whether the engine optimises as it does on the robot, or folds constants only, so
            that nodes are the file's.
    """
    from tempfile import TemporaryDirectory

    _refuse_telemetry()
    options = session_options(threads)
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / 'profile')
        session = onnxruntime.InferenceSession(model, options, providers=[_CPU_PROVIDER])
        inputs = feeds(session)
        for _ in range(runs + 2):
            session.run(None, inputs)
        events = _profile(Path(session.end_profiling()))
    nodes = [
        {**each['args'], 'dur': each['dur']}
        for each in events
        if each.get('cat') == 'Node' and each['name'].endswith('_kernel_time')
    ]
    length = len(nodes) // (runs + 2)
    return [nodes[run * length : (run + 1) * length] for run in range(2, runs + 2)]


def session_options(threads: int, allow_spinning: bool = False) -> onnxruntime.SessionOptions:
    """Return the options of every session here, and of what is to be as fast."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _ERRORS_ONLY
    # A pattern is one block for all activations of a run, beside the blocks of the first: a third
    # more memory for no time that could be measured.
    options.enable_mem_pattern = False
    # Spinning threads burn whole cores between frames, which the robot's other nodes need.
    options.add_session_config_entry('session.intra_op.allow_spinning', str(int(allow_spinning)))
    return options


def run(
    session: onnxruntime.InferenceSession,
    output_names: Sequence[str],
    inputs: Mapping[str, NDArray[Any]],
    *,
    name: str = 'model',
    time_limit_s: float = TIME_LIMIT_S,
    options: onnxruntime.RunOptions | None = None,
) -> list[NDArray[Any]]:
    """Return the outputs of one run of the network.

    Raises InferenceError, which names `name`, where the run fails or was broken off: after
    `time_limit_s` seconds, by `runs.break_off_all`, or by `options` (see `run_options`).
    """
    options = run_options() if options is None else options
    start = time.monotonic()

    def terminate() -> None:
        options.terminate = True

    try:
        with limited(f'{name}: a run', terminate, time_limit_s):
            return session.run(output_names, inputs, options)
    except Exception as error:
        if options.terminate:
            seconds = time.monotonic() - start
            raise BrokenOffError(
                f'{name}: the run was broken off after {seconds:.1f} s: it did not end'
            ) from error
        raise InferenceError(f'{name}: the run failed: {error}') from error


def _refuse_telemetry() -> None:
    version = onnxruntime.__version__
    if telemetry_came_first() and _numbers(version) >= _WITH_TELEMETRY:
        raise InferenceError(
            f'ONNX Runtime {version} was imported before pruned_perception, with its telemetry on: '
            f'import pruned_perception first, or set {TELEMETRY_SWITCH}=1 in the environment'
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split('.')[:2])
