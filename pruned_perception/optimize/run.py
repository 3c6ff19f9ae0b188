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

"""Your detector in, a family of faster ones out: the steps, one after the other.

import → frames → sensitivity → probes → [cut → refit → teaching → export → INT8] of each member →
latency → agreement, accuracy and certificate on frames that nothing was chosen on → page
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pruned_perception._io import write_json
from pruned_perception.benchmark import engine
from pruned_perception.benchmark.profile import target as this_machine
from pruned_perception.bundle import (
    MANIFEST,
    Bundle,
    load_bundle,
    load_family,
    record_evidence,
    write_bundle,
)
from pruned_perception.datasets import Dataset, read_dataset
from pruned_perception.datasets.fingerprints import Fingerprints
from pruned_perception.errors import UserError
from pruned_perception.inference.accuracy import (
    MEMBER,
    evaluate_notes,
    evaluation_record,
)
from pruned_perception.inference.latency_table import LatencyTable, read_table
from pruned_perception.inference.preprocess import Preprocessor
from pruned_perception.optimize import judging
from pruned_perception.optimize.alternatives import (
    Alternative,
    at_lower_resolution,
    measured,
)
from pruned_perception.optimize.alternatives import table as table_of_alternatives
from pruned_perception.optimize.forecast import (
    Forecast,
    best_bound,
    check_certifiable,
    steps_for,
    table,
)
from pruned_perception.optimize.frames import (
    PARTS,
    Picture,
    Pictures,
    Split,
    collect,
    fingerprints_of,
    split_frames,
)
from pruned_perception.optimize.job import (
    LOOKED_AT,
    Report,
    Settings,
    claimed,
    kept,
    with_time_left,
)
from pruned_perception.optimize.parent import DENSE, import_detector
from pruned_perception.optimize.probing import (
    IMAGES,
    JUDGED,
    SLACK,
    Probe,
    Prober,
    Target,
    block_of_machine,
    measure_sensitivity,
    speedup,
    timed,
)
from pruned_perception.pruning import Latency, Macs, PruningError, Sensitivity
from pruned_perception.pruning.budget import Budget
from pruned_perception.pruning.certificate import Certificate, read_certificate
from pruned_perception.pruning.latency import latency_of
from pruned_perception.quantization import quantize_bundle
from pruned_perception.training.budget import TrainingBudget
from pruned_perception.training.compute import Compute, fastest, use_one_thread
from pruned_perception.training.detector.certification import certify_labelled, clusters_of
from pruned_perception.training.detector.checkpoint import SEEN
from pruned_perception.training.label_free import (
    RECIPES,
    LabelFree,
    Lessons,
    Prediction,
    prune_label_free,
)
from pruned_perception.training.label_free.teaching import phases_of, pixels_seen
from pruned_perception.training.onnx_import import OnnxNetwork
from pruned_perception.training.onnx_import.task import export_bundle_network
from pruned_perception.training.task import load_function

ROUNDS, RUNS = 20, 10
"""Of the final timing of all members by turns."""
INT8 = '-int8'
CALIBRATION = 128
"""Frames that ranges of activations are taken from."""
TRIAL_ROUNDS = 12
WORTH = 1.05
"""So many times faster must a network in 8 bits be, to join."""
ROUNDING = 1e-6
"""By which a budget is taken larger, so that a plan of exactly its size fits."""
CANDIDATES = 3
"""Cuts by the recipe that are tried for a budget in time: its widths are not those of probes."""
ALIKE_IN_8_BITS = 0.8
"""Agreement with its network in float that it must keep, to join."""
LONGER = 2
"""The longest drive that is declared where nobody does: so many times the longest of those that
were fitted to, which no drive to certify is among."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """What is there in the end; everything else stands in the manifests and on the page."""

    family: Path
    members: tuple[str, ...]
    """Names, the parent first."""
    report: Path | None
    findings: dict[str, Any]
    """What the page shows, as plain data."""


def optimize(
    settings: Settings,
    *,
    say: Say = print,
    report: Report = lambda title, share, remark: None,
    dry_run: bool = False,
    compute: Compute | None = None,
) -> Outcome | None:
    """Do the job, or what is left of it; None after a dry run.

    Args:
        settings: what is asked for.
        say: told, in lines, what will be done and what came of it.
        report: told of the progress.
        dry_run: end once it is said what is to be expected; the same job may go on later.
        compute: where networks in PyTorch run and are taught, and how; by default `fastest()`. A
            job may go on elsewhere. What is judged runs in ONNX Runtime, on the CPU.

    Raises:
        UserError: anything that was given cannot be used; says what would help.
        KeyboardInterrupt: all that takes long is kept; the same call goes on.
    """
    use_one_thread()
    with claimed(settings):
        job = _Job(settings, say, with_time_left(report), compute or fastest())
        job.begin()
        job.foretell()
        if dry_run:
            return None
        for target in settings.targets:
            job.member(target)
        if settings.in_8_bits:
            job.quantise()
        return job.judge()


class _Job:
    """What the steps share; each public method is one, and does nothing twice."""

    def __init__(self, settings: Settings, say: Say, report: Report, compute: Compute) -> None:
        self.settings, self.say, self.report, self.compute = settings, say, report, compute
        self.work, self.family = settings.work, settings.family
        self.parent: Bundle
        self.network: OnnxNetwork
        self.frames: list[Picture]
        self.split: Split
        self.forecasts: list[Forecast]

    # -- what there is ---------------------------------------------------------------------------

    def begin(self) -> None:
        """Import the detector, read frames, look whether the two belong together."""
        settings = self.settings
        self.table = None if settings.table is None else read_table(settings.table)
        self.lessons: Lessons | None = None
        if settings.training is not None:
            self.lessons = load_function(settings.training, '--training')
        self.report('importing the detector', 0.0, '')
        self._import()
        self.notes = self._annotations()
        self.frames, remarks = collect(
            settings.sources,
            self.work / 'frames',
            limit=settings.frames,
            topic=settings.topic,
            notes=self.notes,
            report=self.report,
        )
        self.split = _without_repeats(
            split_frames([each.drive for each in self.frames], settings.seed), self.frames
        )
        for part in ('fit', 'choose', 'certify'):
            if not getattr(self.split, part):
                raise UserError(f'no different frames are left to {part}: give more of them')
        check_certifiable(
            settings, self.split.drives if self.split.by_drives else 0, PARTS['certify']
        )
        sight = judging.Sight(**kept(self.work / LOOKED_AT, self._look))
        sight.check(settings.detector, force=settings.force)
        self.sight = sight
        self._say_what_there_is(remarks)

    def _import(self) -> None:
        from pruned_perception.training.onnx_import.task import import_bundle_network

        settings = self.settings
        if (self.work / 'imported.json').is_file():
            self.parent = load_bundle(self.family / DENSE)
            network = import_bundle_network(self.parent)
        else:
            self.parent, network = import_detector(
                settings.detector,
                self.family,
                labels=settings.names,
                weights=settings.weights,
                described=settings.described,
            )
            write_json(self.work / 'imported.json', {'sha256': self.parent.sha256})
        self.network = dataclasses.replace(network, module=self.compute.placed(network.module))

    def _annotations(self) -> Dataset | None:
        if self.settings.labels is None:
            return None
        notes = read_dataset(self.settings.labels)
        notes = notes.with_labels(self.parent.labels, self.settings.detector)
        notes.check_labelled()
        return notes

    def _look(self) -> dict[str, Any]:
        seen = judging.look(
            self.parent,
            self._part('fit'),
            lambda share: self.report('looking through the parent', share, ''),
        )
        return vars(seen)

    def _part(self, name: str) -> list[Picture]:
        return [self.frames[k] for k in getattr(self.split, name)]

    def _say_what_there_is(self, remarks: Sequence[str]) -> None:
        split, parent = self.split, self.parent
        counts = {part: len(getattr(split, part)) for part in PARTS}
        self.say(
            f'{self.settings.detector}: {parent.output.decoder} outputs, {len(parent.labels)} '
            f'labels, {parent.cost.macs / 1e6:,.0f} MMAC, {parent.cost.parameters / 1e6:.2f} M '
            f'parameters, input {parent.input.width} × {parent.input.height} {parent.input.color}'
        )
        for remark in remarks:
            self.say(remark)
        drives = len({each.drive for each in self.frames})
        self.say(
            f'{len(self.frames)} frames of {_drives(drives)}: {counts["fit"]} to learn from, '
            f'{counts["choose"]} to choose by, {counts["certify"]} that nothing is chosen on, '
            + ('set aside by whole drives' if split.by_drives else 'set aside in time, with gaps')
        )
        if not split.by_drives:
            self.say(few_drives(drives))
        elif (best := best_bound(split.drives, self.settings.confidence)) is not None:
            self.say(
                f'{split.drives} drives certify: at best, where nothing is lost, that at most '
                f'{best:.1%} of detections are ({self.settings.confidence:.0%} confidence)'
            )
        sight = self.sight
        self.say(
            f'the parent finds {sight.detections} objects in {sight.with_detections} of '
            f'{sight.frames} frames'
        )
        if self.table is not None and (unlike := self._elsewhere(self.table)):
            self.say(f'budgets in time are for another machine, by its table: {"; ".join(unlike)}')

    # -- what it will cost -----------------------------------------------------------------------

    def foretell(self) -> None:
        """Probe every budget, and say what will be done and what is to be expected."""
        if not self.settings.targets:
            self.forecasts = []
            self.say('no budget was given: INT8 of the parent alone')
            return
        found = kept(self.work / 'forecast.json', self._probe)
        self.forecasts = [Forecast.from_dict(each) for each in found['members']]
        minutes = self.settings.teaching_minutes
        self.say(table(self.forecasts, found['dense']))
        self.say(
            'agreement: 2 · matched / (both networks’ detections); AP50: with the parent’s as the '
            'truth; error: of the raw outputs, relative to their deviation; on frames to choose '
            'by, cut and fitted, not taught yet'
        )
        hopeless = [each for each in self.forecasts if each.hopeless]
        if hopeless:
            self._say_alternatives(hopeless)
        how = self.settings.training or self.settings.recipe
        self.say(
            f'next: {len(self.forecasts)} × about {minutes:g} minutes of teaching ({how})'
            if minutes
            else 'next: cut and refit, no teaching'
        )

    def _say_alternatives(self, hopeless: Sequence[Forecast]) -> None:
        """Say that pruning does not pay, and what does; end here where no member is left."""
        names = ', '.join(
            f'{each.name} (AP50 {each.probe.ap50:.2f} against what the parent finds)'
            for each in hopeless
        )
        text = (
            f'{names}: more is lost by the cut than minutes of teaching were seen to bring back; '
            'pruning channels so far does not pay with this network'
        )
        found = [
            Alternative(**each)
            for each in kept(self.work / 'alternatives.json', self._alternatives)
        ]
        if found:
            self.say(table_of_alternatives(found))
        if len(hopeless) < len(self.forecasts) or self.settings.force:
            self.say(text)
            return
        raise UserError(
            f'{text}. Ask for less to be cut, or take what the table says: INT8 alone is this '
            'command without a budget, and a new folder'
            + (
                ''
                if any(not each.name.endswith(INT8) for each in found)
                else '; the graph is bound to its size: a lower resolution has to be exported'
            )
            + '. --force goes on all the same'
        )

    def _alternatives(self) -> list[dict[str, Any]]:
        frames = _spread(self._part('choose'), JUDGED)
        bundles = []
        if self.settings.in_8_bits:
            self._int8_of(self.parent)
            bundles.append(load_bundle(self.work / 'quantised' / f'{DENSE}{INT8}'))
        self.report('trying a lower resolution', 0.0, '')
        if smaller := at_lower_resolution(self.parent, self.work / 'smaller'):
            bundles.append(smaller)
        return [vars(measured(self.parent, each, frames)) for each in bundles]

    def _inputs(self) -> list[Tensor]:
        """Return batches of the frames that sensitivities and probes look at."""
        frames = Pictures(_spread(self._part('fit'), IMAGES))
        prepare = Preprocessor(self.parent.input)
        found = [torch.from_numpy(prepare(each, 'bgr')[0].copy()) for each in frames]
        return list(torch.cat(found).split(1 if self.network.one_batch else 8))

    def _probe(self) -> dict[str, Any]:
        settings = self.settings
        inputs = self._inputs()
        file = self.work / 'sensitivity.json'
        self.report('measuring sensitivities', 0.0, f'{len(inputs)} batches')
        measured = kept(
            file, lambda: measure_sensitivity(self.network, inputs, settings.seed).to_dict()
        )
        sensitivity = Sensitivity.from_dict(measured)
        prober = Prober(self.parent, self.network, sensitivity, round_to=self._round_to())
        members = [
            Forecast(target.name, str(target), self._candidate(prober, target)).to_dict()
            for target in settings.targets
        ]
        times = timed([self.parent.onnx_bytes], rounds=5, runs=5)
        return {
            'dense': {
                'macs': self.parent.cost.macs,
                'bytes': len(self.parent.onnx_bytes),
                'ms': float(np.median(times)),
            },
            'members': members,
        }

    @staticmethod
    def _elsewhere(table: LatencyTable) -> list[str]:
        """Return how a table's machine differs from this one; nothing: it is this one."""
        here = this_machine(table.target.threads)
        table.check_target(here, force=True)
        return table.target.differences(here)

    def _candidate(self, prober: Prober, target: Target) -> Probe:
        """Return what the recipe's cut and refit leave, at the budget that a target takes."""
        table, elsewhere = self.table, False
        budget: Budget = Macs(1.0)
        if target.unit == 'macs':
            budget = Macs(target.value)
        elif table is None:
            budget = _macs(prober.find(target, self.report).share)
        else:
            ms = target.value
            if target.unit == 'speedup':
                ms = latency_of(prober.sensitivity.structure, table)({}) / target.value
            budget, elsewhere = Latency(ms, table), bool(self._elsewhere(table))
        recipe = self.recipe()
        recipe = dataclasses.replace(recipe, cuts=1)
        for _ in range(CANDIDATES):
            self.report(f'a candidate for {target}', 0.0, str(budget))
            result = prune_label_free(
                self.parent,
                Pictures(self._part('fit')),
                budget,
                recipe=recipe,
                training=None,
                held_out=self._judged(),
                seed=self.settings.seed,
                compute=self.compute,
            )
            (stage,) = result.record.stages
            refitted = stage.refitted
            assert refitted is not None
            share = stage.macs / result.record.dense_macs
            found = dataclasses.replace(
                prober.timed(result.network, share, stage.macs, stage.parameters),
                agreement=refitted.agreement,
                ap50=refitted.ap50,
                error=refitted.error,
                pays=Prediction(stage.macs, result.record.dense_macs, refitted).pays,
                predicted_ms=getattr(result.plans[-1], 'predicted_ms', None),
            )
            if found.meets(target) or elsewhere:  # what a robot takes, its table alone can say
                break
            missed = target.value / found.ms
            if target.unit == 'speedup':
                missed = found.speedup / target.value
            tighter = max(0.5, missed * (1 - SLACK))
            if isinstance(budget, Latency):
                budget = dataclasses.replace(budget, ms=budget.ms * tighter)
            else:
                budget = _macs(share * tighter)
        return found

    def _judged(self) -> Pictures:
        return Pictures(_spread(self._part('choose'), JUDGED))

    def _round_to(self) -> int:
        return self.settings.round_to or block_of_machine()

    # -- members ---------------------------------------------------------------------------------

    def recipe(self) -> LabelFree:
        """Return how members are cut and taught."""
        recipe, ranks = RECIPES[self.settings.recipe], self.settings.ranks
        return dataclasses.replace(recipe, round_to=self._round_to(), ranks=ranks)

    def member(self, target: Target) -> Bundle:
        """Cut, refit and teach one member, and write its bundle."""
        folder = self.family / target.name
        if (folder / MANIFEST).is_file():
            return load_bundle(folder)
        settings, recipe = self.settings, self.recipe()
        forecast = next(each for each in self.forecasts if each.name == target.name)
        budget: Budget = _macs(forecast.probe.share)
        if target.unit == 'macs':
            budget = Macs(target.value)
        if self.table is not None and (ms := forecast.probe.predicted_ms) is not None:
            budget = Latency(ms * (1 + ROUNDING), self.table)
        training = None
        if self.lessons is not None:  # whose batches are not ours to count
            training = TrainingBudget(cpu_minutes=settings.teaching_minutes)
        elif settings.teaching_minutes:
            steps = steps_for(
                settings.teaching_minutes,
                forecast.probe.macs,
                self.parent.cost.macs,
                recipe.batch,
                seen=pixels_seen(
                    self.parent.input,
                    phases_of(self.parent.input, self.network.module, recipe),
                ),
                brain_floats=fastest().precision == torch.bfloat16,
            )
            training = TrainingBudget(steps=steps)
        result = prune_label_free(
            self.parent,
            Pictures(self._part('fit')),
            budget,
            recipe=recipe,
            training=training,
            held_out=self._judged(),
            lessons=self.lessons,
            seed=settings.seed,
            folder=self.work / 'members' / target.name,
            report=lambda title, done, remark: self.report(f'{target.name}: {title}', done, remark),
            compute=self.compute,
        )
        write_json(
            self.work / 'members' / f'{target.name}.json',
            json.loads(json.dumps(result.record.to_dict())),
        )
        bundle = export_bundle_network(
            self.parent,
            result.network,  # type: ignore[arg-type]
            [plan.to_dict() for plan in result.plans],
            self.work / 'exported' / target.name,
            name=target.name,
            inputs=self._inputs()[0],
        )
        bundle = write_bundle(folder, bundle.onnx_bytes, self._with_provenance(bundle))
        self.say(f'{target.name}: {result.record.agreement:.3f} agreement, {bundle.path}')
        return bundle

    def _with_provenance(self, bundle: Bundle) -> dict[str, Any]:
        """Return the manifest with what the member was fitted and chosen on."""
        manifest = json.loads(json.dumps(bundle.manifest))
        seen = dict(manifest['provenance'].get(SEEN) or {})
        for part, name in (('fit', 'optimising'), ('choose', 'choosing')):
            record = fingerprints_of(self._part(part), drives=self.split.by_drives)
            seen[name] = record.to_dict()
        manifest['provenance'][SEEN] = seen
        return manifest

    def quantise(self) -> None:
        """Let an INT8 member join beside each where that is faster on this machine."""
        for bundle in load_family(self.family).members:
            if bundle.name.endswith(INT8):
                continue
            found = self._int8_of(bundle)
            if found['joins'] and not (self.family / found['name'] / MANIFEST).is_file():
                trial = load_bundle(self.work / 'quantised' / found['name'])
                write_bundle(self.family / trial.name, trial.onnx_bytes, trial.manifest)
            self.say(
                f'{bundle.name}{INT8}: {found["speedup"]:.2f}× as fast as {bundle.name}, '
                f'{found["lost"]} of its {found["shown"]} detections lost, {found["invented"]} '
                f'added ({found["arithmetic"]}); '
                + ('joins' if found['joins'] else 'does not join: too slow or different')
            )

    def _int8_of(self, bundle: Bundle) -> dict[str, Any]:
        file = self.work / 'quantised' / f'{bundle.name}{INT8}.json'
        return dict(kept(file, lambda: self._quantised(bundle)))

    def _quantised(self, bundle: Bundle) -> dict[str, Any]:
        """Write the bundle in 8 bits, and return what was measured."""
        name = f'{bundle.name}{INT8}'
        trial, record = quantize_bundle(
            bundle,
            Pictures(_spread(self._part('fit'), CALIBRATION)),
            self.work / 'quantised' / name,
            held_out=self._judged(),
            name=name,
            on_progress=lambda done: self.report(f'quantising {bundle.name}', done, ''),
        )
        times = timed([bundle.onnx_bytes, trial.onnx_bytes], rounds=TRIAL_ROUNDS, runs=5)
        gain = speedup(*times)
        both = 2 * record.shown - record.lost + record.invented
        agreed = 1 - (record.lost + record.invented) / both if both else 1.0
        plain = ('scheme', 'arithmetic', 'layers', 'shown', 'lost', 'invented', 'output_error')
        return {
            'name': name,
            'speedup': gain,
            'joins': gain > WORTH and agreed >= ALIKE_IN_8_BITS,
            'agreement': agreed,
            'float_layers': list(record.float_layers),
            **{each: getattr(record, each) for each in plain},
        }

    # -- what came of it -------------------------------------------------------------------------

    def judge(self) -> Outcome:
        """Time, compare, certify and show all members."""
        from pruned_perception.optimize.page import write_page

        family = load_family(self.family)
        members = family.members
        latency = kept(self.work / 'latency.json', lambda: self._time(members))
        frames = self._part('certify')
        decisions, agreements, certificates = {}, {}, {}
        for number, bundle in enumerate(members[1:]):
            self.report(f'comparing {bundle.name}', number / len(members[1:]), '')
            decisions[bundle.name] = judging.compare_members(family.members[0], bundle, frames)
            agreements[bundle.name] = judging.agreement(decisions[bundle.name])
            certificates[bundle.name] = self._certificate(bundle, number / len(members[1:]))
        accuracy = kept(self.work / 'accuracy.json', lambda: self._accuracy(members))
        findings = {
            'detector': self.settings.detector,
            'images': list(self.settings.sources),
            'recipe': self.settings.recipe_text,
            'minutes': self.settings.teaching_minutes,
            'seed': self.settings.seed,
            'frames': {part: len(getattr(self.split, part)) for part in PARTS},
            'drives': len({each.drive for each in self.frames}),
            'by_drives': self.split.by_drives,
            'members': [
                self._row(bundle, latency, agreements, certificates, accuracy) for bundle in members
            ],
        }
        write_json(self.work / 'findings.json', findings)
        page = None
        if 'report' not in self.settings.skip:
            self.report('writing the page', 1.0, '')
            page = self.family / 'report.html'
            write_page(
                page,
                findings=findings,
                bundles=members,
                sensitivity=self._sensitivity(),
                records={name: self._record(name) for name in (x.name for x in members)},
                quantised=self._quantised_ones(),
                certificates=certificates,
                pictures=judging.side_by_side(frames, members, decisions) if decisions else [],
            )
        return Outcome(self.family, tuple(each.name for each in members), page, findings)

    def _sensitivity(self) -> Sensitivity | None:
        file = self.work / 'sensitivity.json'
        return Sensitivity.from_dict(json.loads(file.read_text())) if file.is_file() else None

    def _record(self, name: str) -> dict[str, Any] | None:
        file = self.work / 'members' / f'{name}.json'
        return json.loads(file.read_text()) if file.is_file() else None

    def _quantised_ones(self) -> list[dict[str, Any]]:
        files = sorted((self.work / 'quantised').glob(f'*{INT8}.json'))
        return [json.loads(each.read_text(encoding='utf-8')) for each in files]

    def _time(self, members: Sequence[Bundle]) -> list[dict[str, Any]]:
        """Time all members by turns, and write it into their manifests."""
        networks = engine.load_networks([self.family])
        configuration = {'rounds': ROUNDS, 'runs_per_round': RUNS, 'threads': 1}
        times = engine.measure(
            networks, rounds=ROUNDS, runs=RUNS,
            on_progress=lambda share: self.report('timing members by turns', share, ''),
        )  # fmt: skip
        found = engine.as_json(engine.compare(networks, times), configuration)
        entries = []
        for bundle, entry in zip(members, found['networks'], strict=True):
            left_out = ('name', 'sha256', 'macs')
            plain = {key: value for key, value in entry.items() if key not in left_out}
            entries.append({'name': bundle.name, **plain})
            record_evidence(
                bundle,
                'latency',
                {
                    'configuration': configuration,
                    'compared_with': networks[0].name,
                    **plain,
                    'environment': found['environment'],
                },
                keys=('configuration',),
            )
        return entries

    def _certificate(self, bundle: Bundle, share: float) -> Certificate | str | None:
        """Return the certificate, or why there is none."""
        if 'certificate' in self.settings.skip:
            return None
        if not self.split.by_drives:
            return few_drives(len({each.drive for each in self.frames}))
        if self.lessons is not None:
            return (
                f'no certificate: what {self.settings.training} trained on is not known here, and '
                'a certificate takes frames that nothing was fitted to'
            )
        recorded = load_bundle(bundle.path).manifest['certificate']
        if recorded is not None:
            found = read_certificate(recorded)
            assert isinstance(found, Certificate)
            return found
        used = {
            name: fingerprints_of(self._part(part), drives=True)
            for part, name in (('fit', 'the frames fitted to'), ('choose', 'those chosen by'))
        }
        report = lambda done: self.report(f'certifying {bundle.name}', done, '')  # noqa: E731
        notes = self._unseen_notes()
        try:
            if notes is not None and len(set(notes.groups)) > 1 and clusters_of(notes):
                found = certify_labelled(
                    load_bundle(self.family / DENSE),
                    bundle,
                    notes,
                    used=used,
                    longest=self._longest_annotated(),
                    confidence=self.settings.confidence,
                    progress=lambda done: report(done / len(notes)),
                )
                record_evidence(bundle, 'certificate', found.to_dict())
                return found
            found = judging.certify_member(
                load_bundle(self.family / DENSE),
                bundle,
                self._part('certify'),
                used=used,
                holdout=fingerprints_of(self._part('certify'), drives=True),
                longest=self._longest(),
                confidence=self.settings.confidence,
                report=report,
            )
        except PruningError as error:
            return f'no certificate: {error}'
        record_evidence(bundle, 'certificate', found.to_dict())
        return found

    def _longest(self) -> tuple[int, int]:
        """Return frames and detections of the longest drive spoken of: declared, or from others."""
        if self.settings.longest is not None:
            return self.settings.longest
        counts: dict[str, int] = {}
        for each in self._part('fit'):
            counts[each.drive] = counts.get(each.drive, 0) + 1
        return LONGER * max(counts.values()), LONGER * max(1, self.sight.most_in_a_drive)

    def _longest_annotated(self) -> dict[str, int]:
        """Return the same of annotated drives; where none of them was fitted to, of frames."""
        if self.settings.longest is not None:
            return dict(zip(('frames', 'objects'), self.settings.longest, strict=True))
        assert self.notes is not None
        fitted = {each.drive for each in self._part('fit')}
        frames, objects = judging.longest_of(self.notes, fitted)
        if not frames:
            frames, objects = (each // LONGER for each in self._longest())
        return {'frames': LONGER * frames, 'objects': LONGER * max(1, objects)}

    def _unseen_notes(self) -> Dataset | None:
        """Return the annotated frames that nothing was fitted or chosen on, if they have boxes."""
        if self.notes is None:
            return None
        used = Fingerprints()
        for part in ('fit', 'choose'):
            used |= fingerprints_of(self._part(part), drives=self.split.by_drives)
        return judging.unseen_part(self.notes, used, self.split.by_drives)

    def _accuracy(self, members: Sequence[Bundle]) -> dict[str, Any]:
        """Return the accuracy of each member on annotated frames that nothing was chosen on."""
        if self.notes is None:
            return {}
        notes = self._unseen_notes()
        if notes is None:
            self.say(
                f'{self.settings.labels}: has no box in frames that nothing was chosen on; '
                'accuracy is not measured'
            )
            return {}
        found = {}
        for number, bundle in enumerate(members):
            metrics = evaluate_notes(
                bundle,
                notes,
                progress=lambda done, total, number=number: self.report(  # type: ignore[misc]
                    'measuring accuracy', (number + done / total) / len(members), ''
                ),
            )
            entry = evaluation_record(metrics, str(self.settings.labels), notes.digest)
            record_evidence(bundle, 'evaluation', {'net': MEMBER, **entry}, keys=('net', 'data'))
            found[bundle.name] = {**entry, 'frames': len(notes)}
        return found

    def _row(
        self,
        bundle: Bundle,
        latency: Sequence[dict[str, Any]],
        agreements: dict[str, judging.Agreement],
        certificates: dict[str, Certificate | str | None],
        accuracy: dict[str, Any],
    ) -> dict[str, Any]:
        entry = next((each for each in latency if each['name'] == bundle.name), None)
        agreed = agreements.get(bundle.name)
        certificate = certificates.get(bundle.name)
        forecast = next((each for each in self.forecasts if each.name == bundle.name), None)
        target = next((each for each in self.settings.targets if each.name == bundle.name), None)
        row: dict[str, Any] = {
            'name': bundle.name,
            'asked': None if target is None else str(target),
            'macs': bundle.cost.macs,
            'parameters': bundle.cost.parameters,
            'bytes': len(bundle.onnx_bytes),
            'ms': None if entry is None else entry['latency_ms']['p50'],
            'speedup': None if entry is None else entry['speedup'],
            'predicted': None if forecast is None else vars(forecast.probe),
            'agreement': None if agreed is None else agreed.share,
            'lost': None if agreed is None else [agreed.lost, agreed.shown],
            'added': None if agreed is None else [agreed.added, agreed.detected],
            'ap50': (accuracy.get(bundle.name) or {}).get('ap50'),
            'certified': None,
        }
        if isinstance(certificate, Certificate):
            row['certified'] = certificate.headline.bound
        return row


def _macs(share: float) -> Macs:
    return Macs(min(1.0, share + ROUNDING))


def few_drives(drives: int) -> str:
    """Return what cannot be said, and why."""
    return (
        f'too few drives ({drives}) to prove anything of drives to come: what is said of members '
        'is what was counted in the last part of the same '
        f'{"drive" if drives == 1 else "drives"}; give five or more (a folder, video or bag '
        'each) for a certificate'
    )


def _drives(count: int) -> str:
    return f'{count} drive' if count == 1 else f'{count} drives'


def _spread(frames: Sequence[Picture], most: int) -> list[Picture]:
    """Return at most so many frames from all over them."""
    places = np.linspace(0, len(frames) - 1, min(most, len(frames))).round().astype(int)
    return [frames[k] for k in places]


def _without_repeats(split: Split, frames: Sequence[Picture]) -> Split:
    """Return the split without frames whose picture is in an earlier part, or twice in its own."""
    seen: set[str] = set()
    parts: dict[str, tuple[int, ...]] = {}
    for part in PARTS:
        own = []
        for place in getattr(split, part):
            if frames[place].sha not in seen:
                seen.add(frames[place].sha)
                own.append(place)
        parts[part] = tuple(own)
    return dataclasses.replace(split, **parts)  # type: ignore[arg-type]
