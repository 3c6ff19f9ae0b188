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

"""What the node reports on /diagnostics: one function per status, from numbers to words.

Every message names the thing and the way out. Nothing here knows ROS.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from pruned_perception.inference.latency import QUANTITIES, Window
from pruned_perception.nodes.header_stamps import OLD_S, StampCounts, in_words
from pruned_perception.nodes.latest_frame import FrameCounts

if TYPE_CHECKING:
    from pruned_perception.inference.evidence import DriveEvidence

OK, WARN, ERROR = 0, 1, 2
FINALIZED = 'finalized'

LASTING_DELAY_MS = 1000.0
"""A budget missed for longer without a frame in time is an error, no longer a warning."""
BAG_AGE_S = 86_400.0
"""Stamps older than a day come from a recording."""
STARVED_SHARE = 0.2
"""Where more of the images give way to newer ones, the worker does not keep up."""
STARVED_IMAGES = 20
"""Of fewer images nothing is concluded."""
FULL_PERCENT = 90.0
"""Busier processors have no time left for more threads."""
BLIND_SCORE = 0.99
"""Hardly any score is above."""


@dataclass(frozen=True)
class Status:
    """One diagnostic status."""

    name: str
    level: int
    message: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Input:
    """The image subscription and what has arrived on it."""

    topic: str
    type: str
    transport: str
    reliability: str
    publishers: Sequence[tuple[str, str, str]]
    """(node, type, reliability) of every publisher on the topic."""
    received: int
    silent_s: float
    """Seconds since the last image, or since activation where none has come."""
    unreachable: Sequence[str] = ()
    """Publishers of this host whose shared memory is not in our /dev/shm, as far as is seen."""
    lost_port: int | None = None
    """Where processes of this host were heard, before the middleware lost it."""
    lost: int = 0
    """Images that the middleware lost on the way, since activation."""
    lost_recently: int = 0
    received_recently: int = 0
    """Both of the last ten seconds."""


def image_input(state: Input, timeout_s: float, rate_hz: float) -> Status:
    """Report whether images arrive, and if not, at which of the links before the node it fails."""
    right = [each for each in state.publishers if each[1] == state.type]
    level, message = OK, f'receiving at {rate_hz:.1f} Hz'
    if state.silent_s > timeout_s:
        level, message = ERROR, _silence(state, right)
    elif state.lost_recently:
        level = WARN
        sent = state.lost_recently + state.received_recently
        message += (
            f', but {state.lost_recently} of the last {sent} images were lost on the way '
            f'(subscribed {state.reliability}): give the camera driver config/fastdds.xml '
            '(docs/node.md, "Transport"), let it publish reliably, or use image_transport '
            'compressed'
        )
    elif not state.received:
        message = 'waiting for the first image'
    return Status(
        'image_input',
        level,
        message,
        {
            'topic': state.topic,
            'type': state.type,
            'image_transport': state.transport,
            'reliability': state.reliability,
            'publishers': ', '.join(
                f'{node} ({reliability}, {type_})' for node, type_, reliability in state.publishers
            ),
            'seconds_since_last_image': state.silent_s,
            'rate_hz': rate_hz,
            'lost_images': state.lost,
        },
    )


def _silence(state: Input, right: Sequence[tuple[str, str, str]]) -> str:
    since = f' for {state.silent_s:.1f} s' if state.received else ''
    if not state.publishers:
        return (
            f'no image{since}: no publisher on {state.topic}; is the camera driver running? For '
            'another topic remap image_raw (image_raw:=/camera/image_raw)'
        )
    if not right:
        types = ', '.join(sorted({type_ for _, type_, _ in state.publishers}))
        return (
            f'no image{since}: {state.topic} carries {types}, and {state.type} is subscribed to '
            f'(image_transport {state.transport}); remap image_raw or set image_transport'
        )
    offered = ', '.join(f'{node} {reliability}' for node, _, reliability in right)
    how = (
        f'image_transport {state.transport}, subscribed {state.reliability}; publishers: {offered}'
    )
    if state.reliability == 'reliable' and any(each[2] != 'reliable' for each in right):
        return (
            f'no image{since} on {state.topic}: {how}; a reliable subscription gets nothing from '
            'a best-effort publisher: set image_reliability to auto'
        )
    if state.unreachable:
        return (
            f'no image{since} on {state.topic}: {how}; {", ".join(state.unreachable)} is on this '
            'host, but with a /dev/shm of its own (a container?), so that nothing but its presence '
            'arrives here: start both containers with --ipc=host (or one IPC namespace), or both '
            'processes with FASTDDS_BUILTIN_TRANSPORTS=UDPv4 and without a profile'
        )
    if state.lost_port is not None:
        return (
            f'no image{since} on {state.topic}: {how}; the middleware has lost the shared memory '
            f'(port {state.lost_port}) on which this process hears others of this host, as Fast '
            'DDS does at times after a process was killed: nothing arrives any more, and this '
            'process ends, with status 1. Start it again, as respawn:=true does'
        )
    if state.received:
        return (
            f'no image{since} on {state.topic}, though its publisher is listed (a process that was '
            f'killed is, until the middleware misses it, some 20 s): {how}'
        )
    return (
        f'{len(right)} publisher(s) on {state.topic} but no image yet: {how}; if the camera is '
        'running, its frames are lost on the way: give its driver config/fastdds.xml '
        '(docs/node.md, "Transport")'
    )


@dataclass(frozen=True)
class Content:
    """What the images are."""

    description: str = ''
    """Encoding and size of the last image; '' before the first one."""
    frame_id: str = ''
    changes: int = 0
    change: str = ''
    """The last change of size or encoding, in words."""
    changed: bool = False
    """Whether it changed in this period."""
    error: str = ''
    """Why the last image that could not be used could not; '' if none in this period."""
    malformed: int = 0
    """Messages since activation that could not be deserialised."""


@dataclass(frozen=True)
class Failures:
    """How many frames the pipeline failed on in this period, and why the last time."""

    count: int = 0
    reason: str = ''
    crowded: int = 0
    """Frames with more candidates than are looked at."""
    left_out: int = 0
    """Candidates of such frames that were not looked at."""


@dataclass(frozen=True)
class Job:
    """What a thread is busy with."""

    what: str
    seconds: float
    left_behind: bool = False
    """Whether the node has gone on without it."""


@dataclass(frozen=True)
class Machine:
    """What the node may use of it, and what is left."""

    busy_percent: float | None
    """Of all processors; None where it is not known."""
    cores: int
    """That the node may use: all, or as many as an affinity or a container allows."""
    threads: int
    """Of one run of the network."""


@dataclass(frozen=True)
class Filters:
    """What detections have to pass to be published; `classes` () means all."""

    score_threshold: float
    iou_threshold: float
    max_detections: int
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contract:
    """How a family keeps its latency budget."""

    member: str
    pinned: bool
    """Whether the member was chosen by hand (active_member)."""
    kept: bool
    """Whether a member is believed to keep the budget."""
    switches: int
    expected_ms: Mapping[str, float]
    """Of each member: latency at the 90th percentile, as its cost and the load say."""
    failures: Mapping[str, str]
    """Members that are not used any more, and why."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Members in 8 bits that deviate on this processor, or are not faster than in float."""


@dataclass(frozen=True)
class Watch:
    """What comparisons with the dense net say against the member's certificate."""

    evidence: DriveEvidence | None
    """Of the drives that have ended; None: it cannot be watched, see `trouble`."""
    events: int = 0
    """Detections of the dense net that the member lost, in this drive."""
    counts: int = 0
    """Detections of the dense net in this drive."""
    compared: int = 0
    """Frames since the model was loaded."""
    skipped: int = 0
    """Frames that were drawn, but for which there was no time."""
    file: str = ''
    trouble: str = ''


def image_content(content: Content) -> Status:
    """Report images that cannot be used, and changes of size or encoding."""
    level, message = OK, content.description or 'no image yet'
    if content.error:
        level, message = ERROR, content.error
    elif content.changed:
        level, message = WARN, f'the images changed: {content.change}'
    return Status(
        'image_content',
        level,
        message,
        {
            'image': content.description,
            'frame_id': content.frame_id,
            'changes': content.changes,
            'last_change': content.change,
            'malformed_messages': content.malformed,
        },
    )


def stamps(total: StampCounts, period: StampCounts, sim_time: bool) -> Status:
    """Report stamps that are 0, in the future, old, or going back; `period` is since last time."""
    problems = []
    if period.zero:
        problems.append(
            f'{period.zero} of {period.total} images have stamp 0: the driver does not set '
            'header.stamp, so ages cannot be measured and max_age_ms does not apply'
        )
    if period.future:
        problems.append(
            f'{period.future} of {period.total} stamps are in the future, by '
            f"{in_words(total.future_s)}: synchronise the clocks of the camera's computer and this "
            'one' + ('' if sim_time else ', or set use_sim_time if the stamps are simulated')
        )
    if period.old:
        way_out = (
            'play with --clock and use_sim_time (pruned-perception play BAG --clock; '
            'use_sim_time:=true here)'
            if total.old_s > BAG_AGE_S
            else "frames queue before this node, or the computers' clocks differ"
        )
        some = '' if period.old == period.total else f'{period.old} of {period.total} '
        problems.append(f'{some}stamps are {in_words(total.old_s)} old: {way_out}')
    if period.backwards:
        problems.append(
            f'stamps went back {period.backwards} time(s), by {in_words(total.backwards_s)} the '
            'last time: a bag that loops, or two cameras on one topic'
        )
    return Status(
        'stamps',
        WARN if problems else OK,
        '; '.join(problems) or 'stamps are plausible',
        {
            'images': total.total,
            'zero': total.zero,
            'future': total.future,
            'old': total.old,
            'backwards': total.backwards,
            'last_age_s': '' if total.last_age_s is None else total.last_age_s,
        },
    )


def clock(
    *, sim_time: bool, now_ns: int, stands_still: bool, jumps: int, jumped: bool, jump_s: float
) -> Status:
    """Report a missing or standing /clock, and jumps of the time."""
    level, message = OK, 'simulated time' if sim_time else 'system time'
    if sim_time and now_ns == 0:
        level, message = (
            ERROR,
            'use_sim_time is set but no /clock arrives: pruned-perception play BAG --clock, start '
            "the simulator's bridge, or set use_sim_time:=false",
        )
    elif jumped:
        way = 'back' if jump_s < 0 else 'ahead'
        level, message = (
            WARN,
            f'the time jumped {way} by {in_words(abs(jump_s))} (a bag that loops?); the windows '
            'of ages start anew',
        )
    elif sim_time and stands_still:
        level, message = WARN, '/clock stands still: the simulator or the bag is paused'
    return Status(
        'clock', level, message, {'clock': 'sim' if sim_time else 'system', 'time_jumps': jumps}
    )


def frames(
    counts: FrameCounts, before: FrameCounts, recent: Window, machine: Machine, lost: int = 0
) -> Status:
    """Report what became of the frames since activation; `before` are the last report's counts.

    `recent` are the last ten seconds; `lost` never reached the node.
    """
    stale, error = counts.stale - before.stale, counts.error - before.error
    superseded = counts.superseded - before.superseded
    received = counts.received - before.received
    message = f'{counts.published - before.published} of {received} images became detections'
    problems = []
    if superseded:
        message += f', {superseded} gave way to newer ones'
    if stale:
        problems.append(f'{stale} were older than max_age_ms')
    if error:
        problems.append(f'{error} failed (see image_content and model)')
    dropped = recent.drops['superseded']
    if recent.received >= STARVED_IMAGES and dropped > STARVED_SHARE * recent.received:
        problems.append(
            f'{100 * dropped / recent.received:.0f} % of the last {recent.received} gave way to '
            f'newer ones, since the worker does not keep up: {ways_out(machine)}'
        )
    return Status(
        'frames',
        WARN if problems else OK,
        ', '.join([message, *problems]),
        {**asdict(counts), 'lost': lost},
    )


def ways_out(machine: Machine) -> str:
    """Return what helps where frames take too long; never more threads than there is room for."""
    text = 'take a smaller member or a lower image rate'
    if machine.busy_percent is not None and machine.busy_percent > FULL_PERCENT:
        return (
            f'{text}; the processors are {machine.busy_percent:.0f} % busy, so more threads would '
            'not help'
        )
    return f'{text}, then more threads' if machine.threads < machine.cores else text


def worker(job: Job | None, timeout_s: float, limit_s: float) -> Status:
    """Report how long the worker has been busy with the frame in hand, or a thread left behind."""
    level, message = OK, 'waiting for an image' if job is None else 'at work'
    if job is not None and job.left_behind:
        level, message = (
            ERROR,
            f'{job.what} has not ended for {job.seconds:.1f} s and was left behind; the process '
            f'ends after {limit_s:g} s',
        )
    elif job is not None and job.seconds > timeout_s:
        level, message = (
            ERROR,
            f'{job.what} has taken {job.seconds:.1f} s so far (frame_timeout_s {timeout_s:g}) and '
            f'is broken off after {limit_s:g} s: a model that does not end on it, or that is too '
            'slow here; take another model, or a smaller member',
        )
    return Status(
        'worker',
        level,
        message,
        {
            'frame_in_hand_s': 0.0 if job is None else job.seconds,
            'frame_timeout_s': timeout_s,
            'frame_limit_s': limit_s,
        },
    )


def settings(filters: Filters) -> Status:
    """Report what detections have to pass, and settings that let none through."""
    level, message = OK, 'detections of all classes are published'
    if filters.classes:
        message = f'only detections of {", ".join(filters.classes)} are published'
    if filters.score_threshold >= BLIND_SCORE:
        level, message = (
            WARN,
            f'score_threshold {filters.score_threshold:g} lets (nearly) no detection through: set '
            "it lower, or to -1 for the manifest's",
        )
    return Status(
        'settings',
        level,
        message,
        {
            'score_threshold': filters.score_threshold,
            'iou_threshold': filters.iou_threshold,
            'max_detections': filters.max_detections,
            'classes': ', '.join(filters.classes) or 'all',
        },
    )


def watch(state: Watch) -> Status:
    """Report the evidence against the certificate, and what to do where it is enough."""
    found = state.evidence
    if found is None:
        return Status('watch', WARN, f'the certificate cannot be watched: {state.trouble}')
    parts = [found.to_text()]
    if found.alarmed:
        parts.append(
            'take a larger member, or certify again on drives like these and move watch_file away'
        )
    if state.trouble:
        parts.append(state.trouble)
    return Status(
        'watch',
        WARN if found.alarmed or state.trouble else OK,
        '; '.join(parts),
        {
            'evidence': found.value,
            'evidence_needed': found.needed,
            'drives': found.drives,
            'certified': found.bound,
            'drive_lost': state.events,
            'drive_detections': state.counts,
            'compared_frames': state.compared,
            'skipped_frames': state.skipped,
            'watch_file': state.file or 'none: lost at the end of the process',
        },
    )


def latency(
    second: Window,
    recent: Window,
    budget_ms: float,
    process: Mapping[str, Any],
    machine: Machine,
) -> Status:
    """Report the latency against the budget (0: none), with Autoware's keys.

    `second` is the last second, from which Autoware's keys and the level come (medians), `recent`
    the last ten, from which the percentiles come; `process` are more values.
    """
    level, message = OK, 'no latency budget'
    in_range = not second.deadline_misses
    rate = second.deadline_miss_rate or 0.0
    delay = second.consecutive_misses_ms
    age = second.summary('e2e_publish')
    if budget_ms:
        message = f'within the budget of {budget_ms:g} ms'
        if age is not None and age.p50 > 1000 * OLD_S:
            level = WARN
            message = (
                f'the stamps are {in_words(age.p50 / 1000)} old (see stamps): the budget of '
                f'{budget_ms:g} ms says nothing'
            )
        elif not in_range:
            level = ERROR if delay > LASTING_DELAY_MS else WARN
            message = (
                f'{100 * rate:.0f} % of the frames received missed the budget of {budget_ms:g} ms'
                + (f', none within it for {delay / 1000:.1f} s' if level == ERROR else '')
                + f': {ways_out(machine)}'
            )
    values: dict[str, Any] = {
        'processing_time_ms': _median(second, 'processing'),
        'is_processing_time_ms_in_expected_range': in_range,
        'consecutive_processing_delay_ms': delay,
        'preprocess_time_ms': _median(second, 'preprocess'),
        'inference_time_ms': _median(second, 'inference'),
        'postprocess_time_ms': _median(second, 'postprocess'),
        'latency_budget_ms': budget_ms,
        'deadline_miss_rate': rate,
    }
    for quantity in QUANTITIES:
        summary = recent.summary(quantity)
        for name in ('p50', 'p90', 'p99'):
            value = '' if summary is None else float(getattr(summary, name))
            values[f'{quantity}_{name}_ms'] = value
    values['invalid_ages'] = sum(recent.invalid.values())
    return Status('latency', level, message, {**values, **process})


def _median(window: Window, quantity: str) -> float | str:
    summary = window.summary(quantity)
    return '' if summary is None else summary.p50


def contract(state: Contract, budget_ms: float) -> Status:
    """Report which member keeps the budget, that none does, and members that fail."""
    level, message = OK, f'{state.member} runs: the most accurate that keeps {budget_ms:g} ms'
    if state.pinned:
        message = f'{state.member} runs, as active_member says, whatever the budget'
    elif not state.kept:
        level, message = (
            WARN,
            f'no member keeps the budget of {budget_ms:g} ms: the fastest, {state.member}, runs; '
            'raise latency_budget_ms, lower the image rate, or leave the node more of the '
            'processors',
        )
    if state.failures:
        level = WARN
        message += ''.join(
            f'; {name} failed and is not used until a model is loaded again: {reason}'
            for name, reason in state.failures.items()
        )
    expected = {f'{name}_expected_p90_ms': value for name, value in state.expected_ms.items()}
    values = {'latency_budget_ms': budget_ms, 'switches': state.switches, 'pinned': state.pinned}
    left_out = {f'{name}_left_out': reason for name, reason in state.left_out.items()}
    return Status('contract', level, message, {**values, **expected, **left_out})


def model(description: Mapping[str, Any], failures: Failures, not_swapped: str = '') -> Status:
    """Report the model, the frames that it failed on, and those with too many candidates.

    `not_swapped`: why another model that was asked for has not taken over; '' for nothing.
    """
    level, message = OK, f'{description.get("model", "")} is running'
    if failures.count:
        level, message = ERROR, f'{failures.count} frame(s) failed: {failures.reason}'
    elif failures.crowded:
        level, message = (
            WARN,
            f'{failures.crowded} frame(s) had too many candidates, and {failures.left_out} with '
            'the lowest scores were left out: raise score_threshold',
        )
    for text in (description.get('instead', ''), not_swapped):
        if text:
            level, message = max(level, WARN), f'{message}; {text}'
    return Status('model', level, message, description)


def inactive(
    state: str, description: Mapping[str, Any], loading: Job | None, limit_s: float
) -> Status:
    """Report a node that is not active; `loading` a model, for at most `limit_s`."""
    if loading is not None:
        message = f'{state}: {loading.what} for {loading.seconds:.1f} s, at most {limit_s:g} s'
        return Status('model', WARN, message, description)
    if state == FINALIZED:
        message = f'{state}: this node was shut down and cannot be used again; start a new process'
        return Status('model', OK, message, description)
    return Status('model', OK, f'{state}: activate the node to get detections', description)


def node_name(name: str, same: int) -> Status:
    """Report other nodes of the same name; `same` counts the node itself."""
    if same > 1:
        message = (
            f'{same} nodes are named {name}: their topics, parameters and services mix; start '
            'one of them with another name (node_name:=NAME for launch and up, -r __node:=NAME) or '
            'namespace (namespace:=NAME, -r __ns:=/NAME)'
        )
        return Status('node_name', WARN, message, {'nodes': same})
    return Status('node_name', OK, 'the name is unique', {'nodes': same})
