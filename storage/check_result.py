"""What a check finds: one invariant, whether it holds, over what, and what breaks it."""

import dataclasses
from typing import Any

FINDINGS_MAX = 20


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """One invariant: whether it holds, over what, and what breaks it."""

    invariant: str
    title: str
    checked: str
    findings: list[str]

    @property
    def holds(self) -> bool:
        """Return whether nothing breaks it."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**dataclasses.asdict(self), "holds": self.holds}

    def to_text(self) -> str:
        """Return it for people."""
        lines = [f"{'ok  ' if self.holds else 'FAIL'} {self.invariant:4} {self.title} ({self.checked})"]
        return "\n".join(lines + [f"       {finding}" for finding in self.findings])
