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

"""A plan: which channels of which group are kept. Nothing is pruned yet.

`make_plan` gets there in one call: trace, score, allocate.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from pruned_perception._tables import Table
from pruned_perception.pruning import criteria
from pruned_perception.pruning import selection as select
from pruned_perception.pruning.allocation import RULES, default_rule, widths_for
from pruned_perception.pruning.bounds import DELTA, Claim
from pruned_perception.pruning.budget import Budget, ErrorBound, Latency, Macs, Params
from pruned_perception.pruning.calibration import Batch
from pruned_perception.pruning.errors import BudgetError, CannotDifferentiateError, PruningError
from pruned_perception.pruning.graph.channels import ChannelGroups
from pruned_perception.pruning.graph.cost import LAYERS, count
from pruned_perception.pruning.graph.device import on_cpu
from pruned_perception.pruning.graph.observation import outside_inference_mode
from pruned_perception.pruning.graph.plain import plain
from pruned_perception.pruning.latency import latency_of
from pruned_perception.pruning.lowrank.factorisation import factorised
from pruned_perception.pruning.presets import RECOMMENDED, find_preset
from pruned_perception.pruning.records import CalibrationRecord, Record
from pruned_perception.pruning.scores import Evidence, Scores, in_runs
from pruned_perception.pruning.sensitivity import POSITIONS, Sensitivity
from pruned_perception.pruning.structure import InputSpec, Structure, Widths, rank_of
from pruned_perception.pruning.surgery import find_groups, slice_channels, unsliceable
from pruned_perception.pruning.tracing import trace

RANKED_BY = 'compensated_error'  # where ranks are asked for, and nothing else
ROUND_TO = 16  # where a criterion is named
COARSE = 0.005  # of the dense cost: a plan that leaves more of the budget says so


class AnyPlan(Protocol):
    """A plan of any kind: channels, ranks of layers, or zeros in weights."""

    kind: ClassVar[str]

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name of a weight → which of its entries stay; empty where none is set to zero."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Return a new network after the plan; `model` is untouched."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""

    def to_text(self) -> str:
        """Return a table."""


@dataclass(frozen=True)
class Plan(Record):
    """Kept channels of each group, how they were chosen, and what the network will cost.

    Where sensitivities ranked them or divided the budget, `sums` has S of each group and `errors`
    its a-priori bound, relative to V; 1 and more is vacuous. `factors`: by how much consumers scale
    what they read of drawn channels. `calibration` is the set the sensitivities were measured on.
    """

    criterion: str
    allocation: str
    selection: str
    round_to: int | None
    seed: int
    budget: str | None
    delta: float
    K: float
    calibration: CalibrationRecord | None
    inputs: tuple[InputSpec, ...]
    dense_macs: int
    macs: int
    dense_parameters: int
    parameters: int
    channels: dict[str, int]
    kept: dict[str, tuple[int, ...]]
    factors: dict[str, tuple[float, ...]]
    sums: dict[str, float]
    errors: dict[str, float]
    not_pruned: dict[str, str]
    positions: int | None = POSITIONS
    """Positions an image at which sensitivities were measured, None for all; old plans do not say
    it, and had few."""
    K_images: int = 0
    """Images of the second half that gave K; 0: K is assumed."""
    allocation_by: str | None = None
    """The criterion that the allocation read, where it was another than ranked the channels."""
    predicted_ms: float | None = None
    """Of a budget of milliseconds: p50 that its latency table predicts."""
    unspent: float = 0.0
    """Share of the dense network's cost that a budget of it leaves, since no block more fits."""
    ranks: dict[str, int] = field(default_factory=dict)
    """Of layers that become two after the channels are cut, see `lowrank.factorisation`."""
    left_alone: dict[str, str] = field(default_factory=dict)
    """Why other layers stay one, where ranks were asked for."""
    loss: float | None = None
    """Where ranks were asked for: the sum of the errors of channels and ranks, as predicted."""
    kind: ClassVar[str] = 'channels'

    @property
    def masks(self) -> dict[str, Tensor]:
        """None: channels go altogether."""
        return {}

    @on_cpu
    @outside_inference_mode
    def apply(self, model: nn.Module, calibration: Iterable[Batch] | None = None) -> nn.Module:
        """Return a new, physically smaller network after the plan; `model` is untouched.

        Args:
            model: the dense network.
            calibration: batches of inputs (a list), to verify on beside random ones.

        Raises:
            PruningError: the plan does not fit the network.
            RuntimeError: the network does not cost what was planned (a defect of ours).
        """
        example = tuple(each.example() for each in self.inputs)
        factors = {
            name: dict(zip(self.kept[name], each, strict=True))
            for name, each in self.factors.items()
        }
        source = model
        if factors:
            model = plain(model)
            source = scale_inputs(model, find_groups(model, example, verify=False), factors)
        small = slice_channels(source, example, self.kept, calibration=calibration)
        if self.ranks:
            small = factorised(small, self.ranks)
        real = count(small, example)
        if (real.macs, real.parameters) != (self.macs, self.parameters):
            raise RuntimeError(
                f'planned {self.macs} MACs and {self.parameters} parameters, but the pruned '
                f'network has {real.macs} and {real.parameters}'
            )
        return small

    @property
    def widths(self) -> Widths:
        """Return how many channels each group keeps."""
        return {name: len(indices) for name, indices in self.kept.items()}

    def _written(self, data: dict[str, Any]) -> dict[str, Any]:
        usual: dict[str, Any] = {  # not in old plans
            'positions': POSITIONS,
            'K_images': 0,
            'allocation_by': None,
            'predicted_ms': None,
            'unspent': 0.0,
            'ranks': {},
            'left_alone': {},
            'loss': None,
        }
        return {k: v for k, v in data.items() if k not in usual or v != usual[k]}

    def allocation_text(self) -> str:
        """Return the rule, and whose evidence it read."""
        return self.allocation + (f' by {self.allocation_by}' if self.allocation_by else '')

    def block_text(self) -> str:
        """Return of what kept channels are multiples."""
        return str(self.round_to or 'a sixty-fourth of each group, but 16 at most,')

    def granularity_text(self) -> str | None:
        """Say how far below the budget the plan ends, where that is more than is to be expected."""
        if self.unspent <= COARSE:
            return None
        return (
            f'{self.unspent:.1%} less than the budget of {self.budget}: no block more fits, for '
            'channels of this network go in large runs, or round_to is large'
        )

    def bounds_text(self) -> str:
        """Return how many bounds say nothing, and what the others rest on."""
        vacuous = sum(each >= 1 for each in self.errors.values())
        text = f'a-priori bounds: vacuous in {vacuous} of {len(self.errors)} groups; '
        where = (
            ''
            if self.positions is None
            else f'estimates (sensitivities of {self.positions} positions an image are too low) '
        )
        if self.selection == 'deterministic':
            return f'{text}{where or "certain "}on the calibration set'
        origin = (
            f'of {self.K_images} images of a second half' if self.K_images else 'assumed, not shown'
        )
        return (
            f'{text}{where}for a new image with probability 1 − δ = {1 - self.delta:g} if it '
            f'exceeds no sensitivity K-fold (K = {self.K:.3g}, {origin})'
        )

    def to_text(self) -> str:
        """Return a table: kept channels of each group, how compressible it is, its bound."""
        lines = [
            *([self.bounds_text()] if self.errors else []),
            f'{self.criterion} scores, {self.allocation_text()} allocation, {self.selection} '
            f'selection, multiples of {self.block_text()}',
            f'{self.macs:,} of {self.dense_macs:,} MACs ({self.macs / self.dense_macs:.1%}), '
            f'{self.parameters:,} of {self.dense_parameters:,} parameters '
            f'({self.parameters / self.dense_parameters:.1%})',
            *([f'{self.predicted_ms:.3g} ms predicted'] if self.predicted_ms else []),
            *([coarse] if (coarse := self.granularity_text()) else []),
        ]
        header = 'group | channels:d | kept:d | share:5.0% | S_ℓ:7.2f | bound'
        rows: list[tuple[object, ...]] = [
            (name, of, kept, kept / of, self.sums.get(name), bound_text(self.errors.get(name)))
            for name, kept in self.widths.items()
            for of in [self.channels[name]]
        ]
        rows += [(name, f'kept whole: {why}') for name, why in self.not_pruned.items()]
        parts = [*lines, Table.under(header, rows).to_text()]
        return '\n'.join([*parts, *([] if self.loss is None else [self.ranks_text()])])

    def ranks_text(self) -> str:
        """Return a table of the layers that become two, and why others do not."""
        gains = f'{len(self.ranks)} layers become two' if self.ranks else 'no layer gains by it'
        rows: list[tuple[object, ...]] = [*self.ranks.items()]
        rows += [(name, f'left alone: {why}') for name, why in self.left_alone.items()]
        header = 'layer | rank:d'
        return f'low rank: {gains}; predicted loss of channels and ranks {self.loss:.4g}\n' + (
            Table.under(header, rows).to_text()
        )


def bound_text(error: float | None) -> str:
    """Return a bound relative to V in words, rounded up: at 1 and more it says nothing."""
    if error is None:
        return '–'
    if not 0 < error < math.inf:
        return f'{error:g}' + ' (vacuous)' * (error > 0)
    unit = 10.0 ** (math.floor(math.log10(error)) - 2)
    text = f'{math.ceil(error / unit - 1e-9) * unit:.3g}'
    return f'{text} (vacuous)' if error >= 1 else text


def composed(plans: Sequence[Plan]) -> Plan:
    """Return the plan that cuts the first one's network at once to what all of them, in order, do.

    Bounds and how channels were chosen are the last one's, where there is one plan only.

    Raises:
        PruningError: a plan is not of the network that those before it make.
    """
    first, *others = plans
    kept = dict(first.kept)
    whole = dict(first.channels)
    for plan in others:
        for name, channels in plan.channels.items():
            before = kept.get(name, tuple(range(whole.get(name, channels))))
            if len(before) != channels:
                raise PruningError(
                    f'plans: {name!r} has {len(before)} channels after the earlier ones, and '
                    f'{channels} in the next'
                )
            whole.setdefault(name, channels)
            kept[name] = tuple(before[index] for index in plan.kept[name])
    if not others:
        return first
    last = others[-1]
    return dataclasses.replace(
        last,
        budget=None,
        dense_macs=first.dense_macs,
        dense_parameters=first.dense_parameters,
        channels=whole,
        kept=kept,
        factors={},
        sums={},
        errors={},
        not_pruned={name: why for name, why in last.not_pruned.items() if name not in kept},
    )


def allocate(
    evidence: Evidence,
    budget: Budget | None = None,
    *,
    widths: Mapping[str, float] | None = None,
    round_to: int | None = 1,
    ignored_layers: Collection[str] = (),
    rule: str | None = None,
    scores: Evidence | None = None,
    ranks: bool = False,
    selection: str = 'deterministic',
    delta: float = DELTA,
    K: float | None = None,
    seed: int = 0,
) -> Plan:
    """Divide a budget among the groups and choose their channels.

    Args:
        evidence: what the rule of allocation reads: sensitivities or scores.
        budget: `Macs`, `Params`, `Latency` or `ErrorBound`. With a latency, the
            block that its table found takes the place of `round_to`.
        widths: instead of a budget: the channels that each group keeps, for example another
            plan's `widths`, so that two criteria are compared under one allocation; of draws, how
            many distinct ones are expected.
        round_to: kept channels are multiples of this, the engine's block; one block at least. None:
            as fits each group, see `allocation.blocks_for`.
        ignored_layers: layers, or prefixes of layers' names, whose outputs stay whole.
        rule: of allocation, see `allocation.RULES`; by default `equal_error` for sensitivities,
            `least_error` for scores that come with errors, else `uniform`. An error as budget
            leaves nothing to divide, and takes none.
        scores: what ranks the channels, where not the evidence: any score under any allocation.
        ranks: divide the budget among ranks of layers, too, see `allocation.widths_for`.
        selection: 'deterministic', 'random' or 'mixed'; the latter two draw from sensitivities,
            cannot be rounded, and meet the budget in expectation.
        delta: probability with which the bounds may fail.
        K: how far future inputs may exceed the sensitivities; by default the conformal factor of
            their second half, and assumed to be 1 where there is none.
        seed: of the draws.

    Raises:
        BudgetError: the budget cannot be met; says the nearest that can.
        PruningError: names, widths or options that do not fit together.
    """
    if selection not in select.SELECTIONS:
        raise PruningError(
            f'unknown selection {selection!r}; there are {", ".join(select.SELECTIONS)}'
        )
    if (budget is None) == (widths is None):
        raise PruningError('give either a budget or widths')
    if isinstance(budget, Latency):
        round_to = budget.table.block
    structure = _keeping(evidence.structure, ignored_layers)
    evidence = evidence.within(structure)
    ranking = evidence if scores is None else scores
    measured = next((each for each in (ranking, evidence) if each.offers == 'sensitivities'), None)
    if not structure.channels.items() <= ranking.structure.channels.items():
        raise PruningError('scores: they are of another network than the evidence')
    claim = ranking.claim(delta, K)
    if selection != 'deterministic':
        if claim is None:
            raise PruningError(f'selection {selection!r} draws from sensitivities: give some')
        if isinstance(ranking, Sensitivity):
            ranking.check_drawn()
        if round_to is not None and round_to > 1:
            raise PruningError(
                f'selection {selection!r}: how many channels are drawn is random and cannot be '
                f'rounded to {round_to}; use round_to=1, or deterministic selection'
            )
    units = {group.name: group.unit for group in structure.groups.prunable}
    values = {name: in_runs(ranking.values[name], unit) for name, unit in units.items()}
    error = None if claim is None else select.error_of(selection, claim)

    def bound(name: str, kept: float) -> float:
        assert error is not None
        return error(values[name], kept / units[name])

    losses = _rank_losses(evidence, ignored_layers) if ranks else None
    if widths is None:
        assert budget is not None
        if isinstance(budget, ErrorBound):
            if error is None:
                raise PruningError('an error as budget needs sensitivities to select by')
            if rule is not None:
                raise PruningError(f'allocation {rule!r}: an error as budget takes none')
            rule = 'equal_error'
        rule = rule or default_rule(evidence)
        found = widths_for(
            evidence, budget, rule=rule, round_to=round_to, error_at=bound, ranks=losses
        )
        widths = {name: found[name] for name in structure.channels}
        chosen_ranks = {
            name: found[rank_of(name)] for name in losses or () if rank_of(name) in found
        }
    else:
        if ranks:
            raise PruningError('ranks: are divided by a budget, and cannot be given as widths')
        rule, chosen_ranks = 'given', {}
        _check_widths(widths, structure, selection)
    chosen = _choose(selection, structure, values, widths, claim, seed)
    kept = {name: each.channels for name, each in chosen.items()}
    if error is not None:
        errors = {name: bound(name, width) for name, width in widths.items()}
    else:  # whatever ranked the channels, what goes is bounded by its sensitivities
        errors = {} if measured is None else _pruned_sums(measured, kept)
    cut = {name: len(each) for name, each in kept.items()}
    whole = cut | {rank_of(name): rank for name, rank in chosen_ranks.items()}
    macs, parameters = structure.exact_size(whole)
    predicted = latency_of(structure, budget.table)(whole) if isinstance(budget, Latency) else None
    return Plan(
        criterion=ranking.criterion,
        allocation=rule,
        selection=selection,
        round_to=round_to,
        seed=seed,
        budget=None if budget is None else str(budget),
        delta=delta,
        K=(1.0 if K is None else K) if claim is None else claim.K,
        calibration=None if measured is None else measured.calibration,
        inputs=structure.inputs,
        dense_macs=structure.macs,
        macs=macs,
        dense_parameters=structure.parameters,
        parameters=parameters,
        channels=dict(structure.channels),
        kept=kept,
        factors={name: each.factors for name, each in chosen.items() if each.factors},
        sums={} if measured is None else {n: float(measured.values[n].sum()) for n in kept},
        errors=errors,
        not_pruned=dict(structure.groups.not_pruned),
        positions=measured.positions if isinstance(measured, Sensitivity) else POSITIONS,
        K_images=len(measured.ratios) if isinstance(measured, Sensitivity) and K is None else 0,
        allocation_by=None
        if rule in ('given', 'uniform') or evidence.criterion == ranking.criterion
        else evidence.criterion,
        predicted_ms=predicted,
        unspent=_unspent(structure, budget, whole),
        ranks=chosen_ranks,
        left_alone={} if losses is None else _one_layer(evidence, losses, chosen_ranks),
        loss=None if losses is None else _loss(evidence, cut, chosen_ranks),
    )


def _rank_losses(evidence: Evidence, ignored: Collection[str]) -> dict[str, Tensor]:
    """Return what ranks of layers lose; raise PruningError where the evidence does not say it."""
    losses = getattr(evidence, 'ranks', None)
    if losses is None:
        raise PruningError(
            f'ranks: {evidence.criterion!r} does not say what a layer of low rank loses; divide '
            'by compensated_error, which does'
        )
    kept = {layer for layer in losses if any(_within(layer, name) for name in ignored)}
    return {layer: each for layer, each in losses.items() if layer not in kept}


def _one_layer(
    evidence: Evidence, losses: Mapping[str, Tensor], ranks: Mapping[str, int]
) -> dict[str, str]:
    """Return why layers stay one."""
    assert isinstance(evidence, Scores)
    assert evidence.ranks is not None
    kept = dict.fromkeys(sorted(evidence.ranks.keys() - losses.keys()), 'asked to keep it')
    others = sorted(losses.keys() - ranks.keys())
    return evidence.left_alone | kept | dict.fromkeys(others, 'costs less, or errs less, whole')


def _loss(evidence: Evidence, widths: Widths, ranks: Mapping[str, int]) -> float:
    """Return the sum of the errors of channels and ranks."""
    assert isinstance(evidence, Scores)
    assert evidence.errors is not None
    assert evidence.ranks is not None
    channels = sum(float(evidence.errors[name][width]) for name, width in widths.items())
    return channels + sum(float(evidence.ranks[name][rank]) for name, rank in ranks.items())


def _unspent(structure: Structure, budget: Budget | None, cut: Mapping[str, int]) -> float:
    """Return the share of the dense cost that widths leave of a budget of it."""
    if not isinstance(budget, Macs | Params):
        return 0.0
    found, dense = structure.exact_size(cut), structure.exact_size({})
    which = 0 if isinstance(budget, Macs) else 1
    return max(0.0, budget.share - found[which] / dense[which])


def _choose(
    selection: str,
    structure: Structure,
    values: Mapping[str, Tensor],
    widths: Mapping[str, float],
    claim: Claim | None,
    seed: int,
) -> dict[str, select.Selected]:
    generator = torch.Generator().manual_seed(seed)
    chosen = {}
    for name, wanted in widths.items():
        unit = structure.groups[name].unit
        if selection == 'deterministic' or wanted == structure.channels[name]:
            runs = select.deterministic(values[name], round(wanted / unit))
        elif selection == 'random':
            runs = select.random(values[name], wanted / unit, generator)
        else:
            assert claim is not None
            runs = select.mixed(values[name], wanted / unit, claim, generator)
        chosen[name] = runs.in_channels(unit)
    return chosen


def _pruned_sums(sensitivity: Evidence, kept: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Return Σ_pruned s_j of every group."""
    values = sensitivity.values
    return {
        name: max(0.0, float(values[name].sum() - values[name][list(channels)].sum()))
        for name, channels in kept.items()
    }


def _keeping(structure: Structure, ignored: Collection[str]) -> Structure:
    """Return the structure without the groups that are to be kept whole."""
    layers = {term.layer for term in structure.terms}
    for name in ignored:
        if not any(_within(layer, name) for layer in layers):
            raise PruningError(
                f'ignored_layers: {name!r} is no convolution or linear layer, nor holds any'
            )
    reasons = {
        group.name: f'asked to keep {name}'
        for group in structure.groups.prunable
        for name in ignored
        if any(_within(each.layer, name) for each in group.producers)
    }
    return structure.without(reasons) if reasons else structure


def _within(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f'{name}.')


def _check_widths(widths: Mapping[str, float], structure: Structure, selection: str) -> None:
    channels = structure.channels
    for name, wanted in widths.items():
        if name not in channels:
            raise PruningError(f'widths: {name!r} is no group of this network')
        if not 1 <= wanted <= channels[name]:
            raise PruningError(
                f'widths: {name!r} has {channels[name]} channels, {wanted} cannot be kept'
            )
        if selection == 'deterministic' and wanted % (unit := structure.groups[name].unit):
            raise PruningError(
                f'widths: channels of {name!r} go in runs of {unit}, {wanted} cannot be kept'
            )


@torch.no_grad()
def scale_inputs(
    model: nn.Module, groups: ChannelGroups, factors: Mapping[str, Mapping[int, float]]
) -> nn.Module:
    """Return a copy whose consumers' weights are multiplied by their input channels' factors.

    Args:
        model: the dense network.
        groups: its groups.
        factors: per group, channel → factor; channels that are left out stay as they are.
    """
    scaled = copy.deepcopy(model)
    modules = dict(scaled.named_modules())
    for name, own in factors.items():
        for consumer in groups[name].consumers:
            layer = modules[consumer.layer]
            if not isinstance(layer, LAYERS):
                continue
            weight = layer.weight
            assert isinstance(weight, nn.Parameter)
            count = getattr(layer, 'groups', 1)
            if count > 1 and consumer.layer not in groups.even:
                continue  # depthwise: passes channels on to who reads them
            turned = isinstance(layer, nn.ConvTranspose2d)
            factor = torch.ones(weight.shape[0] if turned else count * weight.shape[1])
            for index, root in zip(consumer.indices, consumer.roots, strict=True):
                factor[index] = own.get(root, 1.0)
            blocks = weight.unflatten(0, (count, -1))  # (groups, f, c, …), or (groups, c, f, …)
            shape = [count, -1, 1] if turned else [count, 1, -1]
            shape += [1] * (weight.ndim - 2)
            blocks.mul_(factor.reshape(shape).to(weight.dtype))
    return scaled


def score(
    model: nn.Module,
    criterion: str | criteria.Criterion,
    *,
    example_inputs: Sequence[Tensor],
    calibration: Iterable[Batch] | None = None,
    loss: criteria.Loss | None = None,
    seed: int = 0,
    structure: Structure | None = None,
    positions: int | None = POSITIONS,
) -> Evidence:
    """Return what a criterion says of the network: sensitivities or scores.

    Args:
        model: any traceable network, which runs where it is.
        criterion: a name in `criteria.names()`, the path of a Python file with `score`, or any
            function of a `criteria.Subject` that returns evidence (`subject.scores`,
            `subject.sensitivity`), or the scores (channels,) of each group.
        example_inputs: the network's positional inputs.
        calibration: batches of inputs, for criteria that look at data.
        loss: for criteria that differentiate, see `criteria.Subject`.
        seed: of positions, projections and random scores.
        structure: of the network, if it has been traced already.
        positions: at which sensitivities are measured, per image; None for all.

    Raises:
        PruningError: an unknown criterion, or one that returns something else.
    """
    model = plain(model)
    found = structure or trace(model, example_inputs)
    batches = list(calibration) if isinstance(calibration, Iterator) else calibration
    subject = criteria.Subject(model, found, batches, loss, seed, positions)
    return criteria.evidence(criterion, subject)


class Planner:
    """Scores of a network, measured once, and plans after them for any budget.

    With no criterion, allocation or method given, it is `presets.RECOMMENDED`: what the project's
    studies found to keep most. Without calibration images there is nothing to measure: filter
    norms, divided evenly.

    Args:
        model: the dense network; untouched. It is scored where it is, and cut on the CPU.
        example_inputs: its positional inputs.
        method: a published method, see `presets.PRESETS`: it sets what of the following is not
            given.
        criterion: what ranks the channels, see `score`.
        allocation: how the budget is divided, see `allocation.RULES`.
        allocation_by: the criterion that the allocation reads, where it is another one; by
            default the absolute sensitivity where the rule divides by sensitivities and the
            criterion has none.
        selection: how channels are chosen, see `allocate`; by default 'deterministic'.
        round_to: kept channels are multiples of this; by default 16, and of the recommended recipe
            see `allocation.blocks_for`.
        ranks: divide the budget among channels and ranks of layers, see `allocate`; by
            compensated_error, where nothing else is named.
        seed: of everything random.
        ignored_layers: layers whose outputs stay, beside those of the network.
        calibration: batches of inputs without labels.
        loss: for criteria that differentiate.
        positions: at which sensitivities are measured, per image; None for all, without which
            their bounds are estimates.
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Sequence[Tensor],
        *,
        method: str | None = None,
        criterion: str | criteria.Criterion | None = None,
        allocation: str | None = None,
        allocation_by: str | criteria.Criterion | None = None,
        selection: str | None = None,
        round_to: int | None = None,
        ranks: bool = False,
        seed: int = 0,
        ignored_layers: Collection[str] = (),
        calibration: Iterable[Batch] | None = None,
        loss: criteria.Loss | None = None,
        positions: int | None = POSITIONS,
    ) -> None:
        """Trace the network; nothing is scored before the first plan."""
        preset: dict[str, Any] = dict(find_preset(method, 'channels').fields) if method else {}
        given = {
            'criterion': criterion,
            'allocation': allocation,
            'allocation_by': allocation_by,
            'selection': selection,
            'round_to': round_to,
        }
        self.how = preset | {name: value for name, value in given.items() if value is not None}
        self.model, self._example = plain(model), example_inputs
        self.calibration = list(calibration) if isinstance(calibration, Iterator) else calibration
        self.loss, self._seed, self._positions = loss, seed, positions
        self._ignored_layers, self._ranks = ignored_layers, ranks
        self._left_out: dict[str, str] = {}
        self._scored: dict[Any, Evidence] = {}
        self.structure = trace(self.model, example_inputs, calibration=self.calibration)

    def plan(self, budget: Budget | None = None, widths: Mapping[str, float] | None = None) -> Plan:
        """Choose the channels to keep: within a budget, or to widths, see `allocate`.

        A group that cannot be cut to the channels chosen is kept whole, and the budget divided
        among the others; `not_pruned` of the plan has the reason.

        Raises:
            BudgetError: the budget cannot be met.
            PruningError: names or options that do not fit.
        """
        if not self.structure.channels:
            wanted = 'what is asked' if budget is None else f'a budget of {budget}'
            raise BudgetError(f'{wanted} cannot be met: {self.structure.nothing_to_prune()}')
        how = self._completed(budget, widths)
        ranking = self._evidence(how['criterion'])
        rule, by = RULES.get(how.get('allocation') or ''), how.get('allocation_by')
        if by is None and rule is not None and rule.needs == 'sensitivities':
            by = None if ranking.offers == 'sensitivities' else 'absolute'
        evidence = ranking if by is None else self._evidence(by)
        while True:
            plan = allocate(
                evidence.within(evidence.structure.without(self._left_out)),
                budget,
                widths=None
                if widths is None
                else {n: w for n, w in widths.items() if n not in self._left_out},
                rule=how.get('allocation'),
                scores=ranking,
                ranks=self._ranks,
                selection=how.get('selection', 'deterministic'),
                round_to=how.get('round_to', ROUND_TO),
                seed=self._seed,
                ignored_layers=self._ignored_layers,
            )
            failed = unsliceable(self.model, self._example, plan.kept, calibration=self.calibration)
            if not failed:
                return plan
            self._left_out |= failed

    def cut(self, plan: Plan) -> nn.Module:
        """Return the network after the plan, verified on the calibration set, too."""
        return plan.apply(self.model, self.calibration)

    def _completed(self, budget: Budget | None, widths: Any) -> dict[str, Any]:
        """Return what is given with what is recommended, if nothing was named."""
        how = dict(self.how)
        if self._ranks and how.keys().isdisjoint(('criterion', 'allocation', 'allocation_by')):
            how = {'criterion': RANKED_BY, 'round_to': None, **how}
        if 'criterion' in how:
            return how
        if self.calibration is None:
            return {'criterion': 'filter_l2', **how}
        if isinstance(budget, ErrorBound):
            return {'criterion': 'absolute', **how}
        if widths is not None or not how.keys().isdisjoint(('allocation', 'allocation_by')):
            return {'criterion': RECOMMENDED['criterion'], **how}
        how = {**RECOMMENDED, **how}
        try:
            self._evidence(how['allocation_by'])
        except CannotDifferentiateError:  # then by the errors that layers make
            del how['allocation_by']
        return how

    def _evidence(self, criterion: str | criteria.Criterion) -> Evidence:
        if criterion not in self._scored:
            self._scored[criterion] = score(
                self.model,
                criterion,
                example_inputs=self._example,
                calibration=self.calibration,
                loss=self.loss,
                seed=self._seed,
                structure=self.structure,
                positions=self._positions,
            )
        return self._scored[criterion]


def make_plan(
    model: nn.Module,
    example_inputs: Sequence[Tensor],
    *,
    budget: Budget | None = None,
    widths: Mapping[str, float] | None = None,
    **options: Any,
) -> Plan:
    """Choose the channels to keep: trace, score, allocate.

    Args:
        model: the dense network; untouched.
        example_inputs: its positional inputs.
        budget: see `allocate`.
        widths: instead of a budget, see `allocate`.
        options: those of `Planner`; without any, the recommended recipe.

    Raises:
        BudgetError: the budget cannot be met.
        PruningError: names or options that do not fit, or a network that cannot be traced.
    """
    return Planner(model, example_inputs, **options).plan(budget, widths)
