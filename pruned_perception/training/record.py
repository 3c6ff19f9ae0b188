"""What a pipeline did: its cuts and fine-tunings, and the figures before and after each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pruned_perception.pruning.errors import PruningError
from pruned_perception.training.method import PruningRecord


@dataclass(frozen=True)
class Stage:
    """One cut and its fine-tuning: what was left, and the figures before and after."""

    pruning: PruningRecord
    before: dict[str, float]
    after: dict[str, float]
    steps: int
    cpu_seconds: float
    accepted: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**vars(self), 'pruning': self.pruning.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Stage:
        """Read what `to_dict` wrote; raise PruningError where it is something else."""
        try:
            return cls(**{**data, 'pruning': PruningRecord.from_dict(data['pruning'])})
        except (KeyError, TypeError) as error:
            raise PruningError(f'not a stage: {error}') from error


@dataclass(frozen=True)
class PipelineRecord:
    """All stages that were run; those after the last accepted one were given up."""

    stages: tuple[Stage, ...]

    @property
    def kept(self) -> tuple[Stage, ...]:
        """The stages of the network that was returned."""
        accepted = [number for number, each in enumerate(self.stages, 1) if each.accepted]
        return self.stages[: max(accepted, default=0)]

    @property
    def steps(self) -> int:
        """Steps of fine-tuning, those given up included."""
        return sum(stage.steps for stage in self.stages)

    @property
    def cpu_seconds(self) -> float:
        """CPU time of choosing and fine-tuning, that given up included."""
        return sum(stage.pruning.cpu_seconds + stage.cpu_seconds for stage in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {'stages': [stage.to_dict() for stage in self.stages]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PipelineRecord:
        """Read what `to_dict` wrote; raise PruningError where it is something else."""
        try:
            return cls(tuple(Stage.from_dict(each) for each in data['stages']))
        except (KeyError, TypeError) as error:
            raise PruningError(f'not a record of a pipeline: {error}') from error

    def to_text(self) -> str:
        """Return a table: what each stage left, and its figures before and after fine-tuning."""
        lines = ['stage         MACs  parameters   steps  before → after']
        for number, stage in enumerate(self.stages, 1):
            figures = ', '.join(
                f'{name} {value:.4g} → {stage.after.get(name, value):.4g}'
                for name, value in stage.before.items()
            )
            lines.append(
                f'{number:5d}  {stage.pruning.macs:11,d}  {stage.pruning.parameters:10,d}  '
                f'{stage.steps:6,d}  {figures}{"" if stage.accepted else "  not accepted"}'
            )
        return '\n'.join(lines)
