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

"""What small data of a real robot needs: one choice at a time, judged on venues left out.

    python -m studies.real_robot studies/real_robot.yaml --sources SOURCES --work WORK

The file names an experiment, choices that change some of its fields, and folds: which venues to
train on; all others are judged. Each choice is trained once in each fold, so that every venue is
judged once by a network that has not seen it. A choice's difference to the first one is paired by
venue; its interval is Student's over venues that are far enough apart in time to be others (a
tournament's days are one). WORK keeps what is done: the same command goes on there, and prints
what there is in the end. `--only` takes some of the choices, `--results` a file to write them to.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pruned_perception._io import read_json, write_json
from pruned_perception._tables import Table
from pruned_perception.datasets.excerpts import excerpt
from pruned_perception.inference.intervals import mean_interval
from pruned_perception.training.checkpoint import read_checkpoint
from pruned_perception.training.compute import use_one_thread
from pruned_perception.training.detector.checkpoint import detector_from
from pruned_perception.training.detector.data import load_frames
from pruned_perception.training.detector.experiment import experiment_from
from pruned_perception.training.detector.runs import Folders, Outcome, run_experiment
from pruned_perception.training.detector.validation import validate

ORIGINS = ('parent', 'control_of')


def experiment_of(study: Mapping[str, Any], choice: str, fold: str) -> dict[str, Any]:
    """Return the experiment of a choice; a field that is null there is left out.

    A `parent`, and what a choice is a control of, are other choices, of the same fold.
    """
    fields = dict(study['experiment'])
    for name, value in (study['choices'][choice] or {}).items():
        if isinstance(value, dict) and isinstance(fields.get(name), dict):
            value = {**fields[name], **value}
        fields[name] = value
    fields = {name: value for name, value in fields.items() if value is not None}
    for origin in ORIGINS:
        if origin in fields:
            fields[origin] = _run(fields[origin], fold)
    data = {'train': f'{fold}/train', 'validation': f'{fold}/{study["folds"][fold]["validation"]}'}
    return {'name': _run(choice, fold), 'data': data, **fields}


def _run(choice: str, fold: str) -> str:
    """Return the name of the training of a choice in a fold."""
    return f'{fold}-{choice.replace(" ", "-")}'


def train_choice(study: Mapping[str, Any], choice: str, fold: str, folders: Folders) -> Outcome:
    """Train a choice in a fold, after what it is cut from or controls; return at once if it is."""
    for origin in ORIGINS:
        if source := (study['choices'][choice] or {}).get(origin):
            train_choice(study, source, fold, folders)
    experiment = experiment_from(experiment_of(study, choice, fold))
    return run_experiment(experiment, folders, report=_progress)


def excerpts(study: Mapping[str, Any], fold: str, sources: Path, work: Path) -> dict[str, Path]:
    """Return where the frames of the venues that a fold leaves out lie, by their names."""
    whole = sources / study['source']
    train = study['folds'][fold]['train']
    excerpt(whole, train, work / 'data' / fold / 'train', sha256=study['sha256'])
    left = [each for days in study['venues'].values() for each in days if each not in train]
    for day in left:
        excerpt(whole, [day], work / 'data' / fold / day, sha256=study['sha256'])
    return {day: work / 'data' / fold / day for day in left}


def cell(
    study: Mapping[str, Any], choice: str, fold: str, sources: Path, work: Path
) -> dict[str, Any]:
    """Train a choice in a fold and judge it on what the fold leaves out."""
    held = excerpts(study, fold, sources, work)
    outcome = train_choice(study, choice, fold, Folders(work, work / 'data', work / 'runs'))
    content = read_checkpoint(outcome.checkpoint)
    network = detector_from(content, outcome.checkpoint)
    found: dict[str, Any] = {'steps': outcome.steps, 'cpu_minutes': outcome.cpu_seconds / 60}
    found['ap50'] = {}
    for venue, days in study['venues'].items():
        sets = [load_frames(held[day], network.input_size) for day in days if day in held]
        if not sets:
            continue
        metrics = validate(network, _together(sets))
        found['ap50'][venue] = {name: metrics.per_class[name].ap50 for name in study['judged']}
    return found


def _together(sets: Sequence[Any]) -> Any:
    """Return several sets of frames as one."""
    if len(sets) == 1:
        return sets[0]

    def joined(name: str) -> list[Any]:
        return [each for one in sets for each in getattr(one, name)]

    lists = {name: joined(name) for name in ('boxes', 'class_ids', 'crowd', 'groups')}
    images = np.concatenate([np.asarray(one.images[: len(one)]) for one in sets])
    return replace(sets[0], images=images, **lists)


def table(study: Mapping[str, Any], cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a line for each choice that was trained in every fold."""
    judged, venues = study['judged'], list(study['venues'])
    means: dict[str, np.ndarray] = {}
    rows: list[tuple[object, ...]] = []
    first = next(iter(study['choices']))
    for choice in study['choices']:
        mine = [cells[key] for fold in study['folds'] if (key := f'{fold}/{choice}') in cells]
        if len(mine) < len(study['folds']):
            continue
        ap50 = {venue: each for one in mine for venue, each in one['ap50'].items()}
        by_class = 100 * np.array(
            [[ap50[venue][name] for name in judged] for venue in venues], float
        )
        means[choice] = by_class.mean(1)
        difference = ''
        if choice != first and first in means:
            gains = means[choice] - means[first]
            low, high = mean_interval(gains)
            difference = f'{gains.mean():+.1f} [{low:+.1f}, {high:+.1f}]'
        steps = '+'.join(str(one['steps']) for one in mine)
        minutes = sum(one['cpu_minutes'] for one in mine)
        rows.append(
            (choice, steps, minutes, means[choice].mean(), *by_class.mean(0), *means[choice],
             difference)
        )  # fmt: skip
    header = ' | '.join(
        (
            'choice | steps | CPU min:.1f | AP50:.1f',
            *(f'{name}:.1f' for name in judged),
            *(f'{venue}:.1f' for venue in venues),
            f'difference to {first!r}, 95 % over venues',
        )
    )
    return Table.under(header, rows).to_markdown()


def _progress(title: str, share: float, remark: str) -> None:
    print(f'{title} {share:.0%} {remark}', flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, fold by fold within each choice; print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument('study', type=Path)
    parser.add_argument('--sources', type=Path, required=True)
    parser.add_argument('--work', type=Path, required=True)
    parser.add_argument('--only', nargs='*', help='these choices; nothing: only the table')
    parser.add_argument('--results', type=Path, help='JSON file; default: WORK/results.json')
    given = parser.parse_args(arguments)
    use_one_thread()
    study = yaml.safe_load(given.study.read_text(encoding='utf-8'))
    path = given.results or given.work / 'results.json'
    for choice in study['choices'] if given.only is None else given.only:
        for fold in study['folds']:
            cells = read_json(path) if path.is_file() else {}
            if f'{fold}/{choice}' in cells:
                continue
            found = cell(study, choice, fold, given.sources, given.work)
            cells = read_json(path) if path.is_file() else {}
            write_json(path, {**cells, f'{fold}/{choice}': found})
            print(json.dumps({f'{fold}/{choice}': found}), flush=True)
    print(table(study, read_json(path) if path.is_file() else {}))


if __name__ == '__main__':
    main()
