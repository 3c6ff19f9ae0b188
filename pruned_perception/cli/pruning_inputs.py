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

"""What the commands of pruning share: the network that they work on, and its calibration set."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruned_perception.cli.arguments import Renamed, at_least
from pruned_perception.cli.output import check_checkpoint, say
from pruned_perception.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pruned_perception.cli.progress import Progress
    from pruned_perception.pruning.calibration import Batch
    from pruned_perception.pruning.plan import AnyPlan
    from pruned_perception.pruning.prediction import Curve
    from pruned_perception.pruning.sensitivity import Sensitivity
    from pruned_perception.training.compute import Compute
    from pruned_perception.training.method import Cut
    from pruned_perception.training.task import Task


def add_network(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which network is meant."""
    parser.add_argument(
        'checkpoint',
        type=Path,
        nargs='?',
        help='our detector: a finished run: …/final.pt; or any ONNX detector: its bundle or file, '
        'see docs/onnx.md',
    )
    own = parser.add_argument_group('your own network, instead of a checkpoint')
    own.add_argument(
        '--task',
        metavar='PACKAGE.MODULE:FUNCTION',
        help='function without arguments that returns a pruned_perception.training.Task; '
        'modules of the working directory are found',
    )
    own.add_argument(
        '--weights', type=Path, metavar='FILE', help='state dict to load into its network'
    )
    own.add_argument(
        '--pruned',
        type=Path,
        metavar='FILE',
        help='what `prune` or `finetune` wrote: go on from there',
    )


def add_method(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say how a network is cut: the fields of methods in files."""
    how = parser.add_argument_group(
        'method, as in the files of `compare` and `train`; see docs/pruning.md'
    )
    method = how.add_argument(
        '--method',
        metavar='NAME',
        help='a published one, which sets what is not given: %(names)s',
    )
    how.add_argument(
        '--kind',
        choices=('channels', 'low_rank', 'sparsity'),
        help='channels (default): cut whole; low_rank: two layers in place of one; sparsity: zeros '
        'in the weights, for size only; the latter two with --task',
    )
    criterion = how.add_argument(
        '--criterion',
        metavar='NAME|FILE.py',
        help='what ranks channels: %(names)s (default, where no allocation is named '
        'either: joint_error, with the least error by centred_fisher; without images filter_l2), '
        'or a file of your own, with score(subject); what chooses ranks: %(ranks)s; or weights: '
        '%(weights)s',
    )
    allocation = how.add_argument(
        '--allocation',
        metavar='RULE',
        help='how the budget is divided: %(names)s (default: as fits)',
    )
    how.add_argument(
        '--allocation-by',
        metavar='NAME|FILE.py',
        help='criterion that the allocation reads, where it is another one',
    )
    selection = how.add_argument(
        '--selection', metavar='NAME', help='%(names)s (default: deterministic)'
    )
    how.add_argument(
        '--round-to',
        type=at_least(1),
        metavar='N',
        help='kept channels are multiples of this, the block of the engine (default: 16 where a '
        'criterion is named, else a sixty-fourth of each group, 16 at most)',
    )
    how.add_argument(
        '--ranks',
        action='store_true',
        default=None,
        help='make two layers of one, too, where that is faster by the table of --ms, or cheaper: '
        'channels and ranks share the budget (by compensated_error)',
    )
    how.add_argument(
        '--ignored-layers',
        nargs='+',
        action='extend',
        metavar='NAME',
        help='layers, or prefixes of their names, that stay whole',
    )
    how.add_argument(
        '--refit',
        action=argparse.BooleanOptionalAction,
        default=None,
        help='fit what is left to the dense network by least squares (default, where no criterion '
        'is named: if that lowers the output error on held-out calibration frames; say --no-refit '
        'where fine-tuning follows)',
    )
    parser.add_argument('--keep', action=Renamed, metavar='--ignored-layers')
    for action, field, kind in (
        (method, 'names', 'method'),
        (criterion, 'names', 'channels'),
        (criterion, 'ranks', 'low_rank'),
        (criterion, 'weights', 'sparsity'),
        (allocation, 'names', 'allocation'),
        (selection, 'names', 'selection'),
    ):
        setattr(action, field, _Names(kind))


def method_of(args: argparse.Namespace) -> Cut:
    """Return what the arguments of `add_method` name; raise PruningError naming the field."""
    from pruned_perception.training.method import Method, read_method

    names = (
        'method', 'kind', 'criterion', 'allocation', 'allocation_by', 'selection', 'round_to',
        'ranks', 'ignored_layers', 'refit',
    )  # fmt: skip
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    method = read_method(given)
    assert isinstance(method, Method)
    return method.how


@dataclass(frozen=True)
class _Names:
    """What there is of a kind, looked up when --help shows it: that takes PyTorch."""

    kind: str

    def __str__(self) -> str:
        return _what_there_is()[self.kind]


def _what_there_is() -> dict[str, str]:
    """Return the names for --help, none where PyTorch is missing."""
    try:
        from pruned_perception.pruning import criteria, lowrank, sparsity
        from pruned_perception.pruning.allocation import RULES
        from pruned_perception.pruning.presets import PRESETS
        from pruned_perception.pruning.selection import SELECTIONS
    except ModuleNotFoundError:
        return defaultdict(lambda: '…')
    return {
        'method': '; '.join(f'{name} ({preset})' for name, preset in PRESETS.items()),
        'channels': ', '.join(criteria.names()),
        'low_rank': ', '.join(lowrank.names()),
        'sparsity': ', '.join(sparsity.names()),
        'allocation': ', '.join(RULES),
        'selection': ', '.join(SELECTIONS),
    }


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is shown to the network."""
    parser.add_argument(
        '--calibration',
        type=Path,
        metavar='DATASET',
        help='with a checkpoint: data set whose frames are shown, without their labels; with a '
        'bundle: folder of images, video or bag; with an ONNX file: .npz of its inputs; a task '
        'brings its own',
    )
    parser.add_argument(
        '--images',
        type=at_least(1),
        metavar='N',
        help='calibration images that are used (default: 256 of a data set, all of a task)',
    )
    parser.add_argument(
        '--seed', type=at_least(0), default=0, help='of everything random (%(default)s)'
    )


def add_positions(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says where sensitivities are measured."""
    parser.add_argument(
        '--positions',
        type=positions,
        default=8,
        metavar='N|all',
        help='output positions that are sampled per image, which makes bounds estimates; all: '
        'exact, slow (default: %(default)s)',
    )


def curves_of(sensitivity: Sensitivity) -> tuple[Curve, ...]:
    """Return the predictions for all selections that these sensitivities bound."""
    from pruned_perception.pruning import predict

    drawn = () if sensitivity.definition == 'summed' else ('random',)
    return tuple(predict(sensitivity, selection=each) for each in ('deterministic', *drawn))


@dataclass(frozen=True)
class Network:
    """What a command works on: `task.model`, made of `parent` by `plans`.

    `checkpoint` is the content of our detector's file, None for other networks.
    """

    name: str
    task: Task
    parent: nn.Module
    plans: tuple[AnyPlan, ...]
    checkpoint: dict[str, Any] | None

    @property
    def calibration(self) -> Iterable[Batch] | None:
        """The calibration set; None where a checkpoint came without."""
        return None if self.task.calibration == () else self.task.calibration

    def placed(self, compute: Compute) -> Network:
        """Return the same with the network where it is to compute."""
        return replace(self, task=replace(self.task, model=compute.placed(self.task.model)))


def load_network(args: argparse.Namespace, **folders: Path | None) -> Network:
    """Return what `args` names; `folders` are further data sets, for `detector_task`.

    Raises:
        UserError: arguments that do not belong together, or files that cannot be used.
    """
    check_network(args)
    from pruned_perception.pruning import PruningError

    calibration, images = getattr(args, 'calibration', None), getattr(args, 'images', None)
    if args.checkpoint is not None and is_onnx(args.checkpoint):
        for name, value in folders.items():
            if value is not None:
                raise PruningError(f'--{name} belongs to a checkpoint, not to an ONNX detector')
        return _onnx(args, calibration, images)
    if args.task is None:
        return _detector(args, calibration, images, folders)
    for name, value in {'calibration': calibration, **folders}.items():
        if value is not None:
            raise PruningError(f'--{name} belongs to a checkpoint; a task brings its own data')
    return _own(args, images)


def check_network(args: argparse.Namespace) -> None:
    """Raise UserError where no network, or no file of one, is named; without PyTorch."""
    if (args.checkpoint is None) == (args.task is None):
        raise UserError(
            'give either a checkpoint or --task PACKAGE.MODULE:FUNCTION; or a bundle or ONNX file'
        )
    if args.task is not None and not all(args.task.partition(':')):
        raise UserError(f'--task {args.task}: must be package.module:function')
    if args.task is not None:
        _check_module(args.task)
    if args.checkpoint is not None and not is_onnx(args.checkpoint):
        check_checkpoint(args.checkpoint)
    for path in (args.weights, args.pruned) if args.task is not None else ():
        if path is not None:
            check_checkpoint(path)


def _check_module(task: str) -> None:
    """Raise UserError where the module of a task is neither here nor on Python's path."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    name = task.partition(':')[0].partition('.')[0]
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f'task {task!r}: cannot be imported: there is no module {name!r} in this folder or '
            "on Python's path"
        )


def is_onnx(path: Path) -> bool:
    """Whether a network is given as a bundle or an ONNX file."""
    return path.suffix == '.onnx' or path.is_dir()


def _onnx(args: argparse.Namespace, calibration: Path | None, images: int | None) -> Network:
    from pruned_perception.bundle import load_member
    from pruned_perception.pruning import PruningError
    from pruned_perception.training.onnx_import.task import IMAGES, bundle_task, file_task

    if args.weights is not None:
        raise PruningError('--weights belongs to --task; an ONNX file has its own weights')
    if args.checkpoint.suffix == '.onnx':
        name, task = args.checkpoint.stem, file_task(args.checkpoint, calibration)
        if images is not None:
            task = replace(task, calibration=_First(task.calibration, images))
    else:
        bundle = load_member(args.checkpoint)
        name, task = bundle.name, bundle_task(bundle, calibration, images or IMAGES)
    return _goes_on(args, name, task)


def _detector(
    args: argparse.Namespace,
    calibration: Path | None,
    images: int | None,
    folders: dict[str, Path | None],
) -> Network:
    from pruned_perception.pruning import PruningError
    from pruned_perception.training.checkpoint import read_checkpoint
    from pruned_perception.training.compute import use_one_thread
    from pruned_perception.training.detector.task import CALIBRATION_FRAMES, detector_task

    for name in ('weights', 'pruned'):
        if getattr(args, name) is not None:
            raise PruningError(f'--{name} belongs to --task; a checkpoint has its own weights')
    use_one_thread()
    task = detector_task(
        args.checkpoint,
        calibration=calibration,
        images=images or CALIBRATION_FRAMES,
        **folders,  # type: ignore[arg-type]
    )
    path = args.checkpoint.resolve()
    name = path.parent.name if path.stem == 'final' else path.stem
    return Network(name, task, task.model, (), read_checkpoint(path))


def _own(args: argparse.Namespace, images: int | None) -> Network:
    from pruned_perception.training.task import load_task

    task = load_task(args.task, weights=args.weights)
    if images is not None:
        task = replace(task, calibration=_First(task.calibration, images))
    return _goes_on(args, args.task, task)


def _goes_on(args: argparse.Namespace, name: str, task: Task) -> Network:
    """Return the network, cut as the file of --pruned says."""
    from pruned_perception.training.pipeline import load_pruned, read_plans

    parent = task.model
    plans: tuple[AnyPlan, ...] = ()
    if args.pruned is not None:
        plans = read_plans(args.pruned)
        task = replace(task, model=load_pruned(task, args.pruned))
        name = f'{name}, {args.pruned.stem}'
    return Network(name, task, parent, plans, None)


class _First:
    """The first so many images of batches, any number of times."""

    def __init__(self, batches: Iterable[Batch], images: int) -> None:
        self.batches, self.images = batches, images

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        from pruned_perception.pruning.calibration import as_inputs

        left = self.images
        for batch in self.batches:
            inputs = tuple(each[:left] for each in as_inputs(batch))
            yield inputs
            left -= len(inputs[0])
            if left <= 0:
                return


def halves(batches: Iterable[Batch]) -> tuple[list[Batch], list[Batch]]:
    """Return every other image of the batches, and the rest."""
    from pruned_perception.pruning.calibration import as_inputs

    first: list[Batch] = []
    second: list[Batch] = []
    done = 0
    for batch in batches:
        inputs = as_inputs(batch)
        for half, start in ((first, done % 2), (second, 1 - done % 2)):
            half.append(tuple(each[start::2] for each in inputs))
        done += len(inputs[0])
    return first, second


class Watched:
    """Batches that tell a progress bar how many images have passed."""

    def __init__(self, batches: Iterable[Batch], bar: Progress) -> None:
        self.batches, self.bar = batches, bar

    def __iter__(self) -> Iterator[Batch]:
        from pruned_perception.pruning.calibration import as_inputs

        done = 0
        for batch in self.batches:
            yield batch
            done += len(as_inputs(batch)[0])
            self.bar.text(f'{done} images')


def positions(text: str) -> int | None:
    """Return a number of positions, or None for 'all'."""
    return None if text == 'all' else at_least(1)(text)


def read_json(path: Path, parse: Callable[[Any], Any]) -> Any:
    """Return what `parse` makes of a JSON file; errors name the file."""
    from pruned_perception import _io

    data = _io.read_json(path)
    try:
        return parse(data)
    except UserError as error:
        raise type(error)(f'{path}: {error}') from error


def emit(as_json: bool, data: Any, text: str) -> None:
    """Print a result: one JSON object, or the text for people."""
    if as_json:
        print(json.dumps(data, ensure_ascii=False, allow_nan=False))
    else:
        say(text)
