"""The text of a kernel as it is written: `Text`."""

from __future__ import annotations

from tickrt.engines.resident.schedule import Schedule, Stage
from tickrt.engines.resident.text import Place

__all__ = ["Text"]


class Text:
    """Lines of the kernel, and what was needed for them.

    Attributes:
        partials: floats of the partial sums of the largest stage.
        marks: what ends at each place where a build for it notes the time.
        rows: floats that the rows of a product take in shared memory.
        pool: floats of shared memory that were given away for weights.
        kept: lines before the first row, for what is laid out anew.
        pool_places: where those of a stage's piece are, which are not in registers.
    """

    def __init__(self, plan: Schedule) -> None:
        self.plan, self.program = plan, plan.program
        self.near, self.far = Place(plan, near=True), Place(plan, near=False)
        self.lines: list[str] = []
        self.stages = [item for item in plan.step if isinstance(item, Stage)]
        self.depth = 1
        self.partials = self.rows = self.pool = 0
        self.pool_places: dict[tuple[int, int], int] = {}
        self.marks: list[str] = []
        self.kept: list[str] = []

    def take(self, size: int) -> int:
        """That many floats of shared memory for weights; where they are."""
        place = self.pool
        self.pool += (size + 3) // 4 * 4
        return place

    def mark(self, label: str) -> None:
        """A place where a build for it notes the time."""
        self.add(f"MARK({len(self.marks)});")
        self.marks.append(label)

    def add(self, *lines: str) -> None:
        for line in lines:
            if line.startswith("}"):
                self.depth -= 1
            self.lines.append("  " * self.depth + line)
            if line.endswith("{"):
                self.depth += 1

    def open(self, head: str) -> None:
        self.add(f"{head} {{")

    def close(self) -> None:
        self.add("}")

    def flat(self, lines: list[str]) -> None:
        """Lines that are indented already."""
        self.lines += ["  " * self.depth + line for line in lines]
