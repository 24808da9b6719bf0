"""The setting ``scoring``: how scores are computed."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from attent_stream.base.registry import nearest
from attent_stream.score.fidelity import FULL, AutoFidelity, Fidelity, parse_fidelity
from attent_stream.score.head import check_head


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """How scores are computed.

    Args:
        fidelity: How much of a candidate and of the model is looked at.
        head: Name of the way to the output head's scores without its logits, or None.
        batch: Samples of a scoring forward; None for the training micro-batch.
        ceiling: Share of a window's highest scores, in each lane, that are taken for noise, in
            [0, 1).
        reference: Setting of the reference that a relative score needs.

    Raises:
        ValueError: A value out of range.
    """

    fidelity: Fidelity | AutoFidelity = FULL
    head: str | None = "auto"
    batch: int | None = None
    ceiling: float = 0.0
    reference: Any = None

    def __post_init__(self) -> None:
        size = self.batch
        if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
            raise ValueError(f"scoring.batch must be at least 1 sample or null, got {size!r}")
        ceiling = self.ceiling
        number = isinstance(ceiling, (int, float)) and not isinstance(ceiling, bool)
        if not number or not 0 <= ceiling < 1:
            raise ValueError(f"scoring.ceiling must be a share in [0, 1), got {ceiling!r}")
        check_head(self.head)

    @classmethod
    def parse(cls, value: str | Mapping[str, Any] | None) -> "Scoring":
        """From a mapping of the settings, a name of a fidelity, or None for the defaults.

        Raises:
            ValueError: Anything else, or a value out of range.
        """
        if value is None:
            return cls()
        if isinstance(value, str):
            return cls(fidelity=parse_fidelity(value))
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping):
            raise ValueError(f"scoring must be a mapping of {', '.join(names)}, got {value!r}")
        for name in value:
            if name not in names:
                raise ValueError(f"scoring has no {name!r}, {nearest(name, names)}")
        given = dict(value)
        if "fidelity" in given:
            given["fidelity"] = parse_fidelity(given["fidelity"])
        return cls(**given)
