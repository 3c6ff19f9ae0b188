"""The detector's shape as plain data, so that a pruned net can be rebuilt without pickle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pruned_perception.errors import UserError

STRIDES = (8, 16, 32)


class ArchitectureError(UserError):
    """The description of a network is incomplete or contradicts itself."""


@dataclass(frozen=True)
class Architecture:
    """Widths (output channels) of every convolution of the detector, and its input size.

    `backbone` lists, for each of the strides 2, 4, 8, 16 and 32, the widths of its 3×3
    convolutions, the first of which has stride 2. `neck` is the common width of the pyramid's
    levels (they are added, hence one number). `boxes` and `classes` list, for each of the strides
    8, 16 and 32, the widths of the 3×3 convolutions of the two branches of its head.
    """

    input_size: tuple[int, int]
    num_classes: int
    backbone: tuple[tuple[int, ...], ...]
    neck: int
    boxes: tuple[tuple[int, ...], ...]
    classes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.backbone) != 5 or not all(self.backbone):
            raise ArchitectureError(
                'architecture.backbone: expected the widths of five stages (strides 2 to 32), '
                f'each with one convolution at least, got {self.backbone!r}'
            )
        for name in ('boxes', 'classes'):
            if len(getattr(self, name)) != len(STRIDES):
                raise ArchitectureError(
                    f'architecture.{name}: expected one list for each of the strides {STRIDES}, '
                    f'got {getattr(self, name)!r}'
                )
        every = [
            *(width for stage in self.backbone + self.boxes + self.classes for width in stage),
            self.neck,
            self.num_classes,
            *self.input_size,
        ]
        if not all(isinstance(value, int) and value > 0 for value in every):
            raise ArchitectureError(f'architecture: every number must be an integer > 0: {self!r}')

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts, lists and integers, as stored in checkpoints and manifests."""
        return _listed(asdict(self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Architecture:
        """Read what `to_dict` wrote; raise ArchitectureError that names the bad field."""
        fields = set(cls.__dataclass_fields__)
        if unknown := set(data) - fields:
            raise ArchitectureError(f'architecture: unknown field {sorted(unknown)[0]!r}')
        if missing := fields - set(data):
            raise ArchitectureError(f'architecture: field {sorted(missing)[0]!r} is missing')
        return cls(**{name: _tupled(value) for name, value in data.items()})


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, tuple | list) else value


def _tupled(value: Any) -> Any:
    return tuple(_tupled(item) for item in value) if isinstance(value, tuple | list) else value
