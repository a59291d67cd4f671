"""A model's report as text, HTML, LaTeX and Markdown."""

from __future__ import annotations

import html as escaping
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

LATEX = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"}
PROBABILITIES = ("p", "p_positive")
WIDEST = 40
"""Characters of a name in the text; longer ones end in an ellipsis."""


@dataclass(frozen=True)
class Summary:
    """Title, facts by name, a table of coefficients, one of sites, and remarks."""

    title: str
    facts: dict[str, str]
    coefficients: pd.DataFrame
    sites: pd.DataFrame
    remarks: Sequence[str]

    @property
    def text(self) -> str:
        """Columns aligned in plain text."""
        names = max(map(len, self.facts))
        facts = [f"{name:<{names}}  {value}" for name, value in self.facts.items()]
        tables = [_aligned(table) for table in (_cells(self.coefficients), _cells(self.sites))]
        width = max(len(line) for block in tables for line in block)
        rule = "=" * width
        remarks = [f"note: {remark}" for remark in self.remarks]
        parts = [[self.title, rule], facts, [rule], tables[0], [rule], tables[1], [rule], remarks]
        return "\n".join(line for part in parts for line in part)

    def __str__(self) -> str:
        return self.text

    @property
    def html(self) -> str:
        """Tables of a page."""
        facts = pd.DataFrame({"": list(self.facts.values())}, index=list(self.facts))
        remarks = "".join(f"<li>{escaping.escape(remark)}</li>" for remark in self.remarks)
        tables = "".join(_html(_cells(table)) for table in (facts, self.coefficients, self.sites))
        return f"<h4>{escaping.escape(self.title)}</h4>{tables}" + (f"<ul>{remarks}</ul>" if remarks else "")

    def _repr_html_(self) -> str:
        return self.html

    @property
    def latex(self) -> str:
        """A tabular of the coefficients, with booktabs' rules."""
        rows = [[_latex(cell) for cell in row] for row in _cells(self.coefficients)]
        head, *body = (" & ".join(row) + r" \\" for row in rows)
        columns = "l" + "r" * (len(rows[0]) - 1)
        return "\n".join(
            [
                rf"\begin{{tabular}}{{{columns}}}",
                r"\toprule",
                head,
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
            ]
        )

    @property
    def markdown(self) -> str:
        """A table of the coefficients."""
        head, *body = ([cell.replace("|", r"\|") for cell in row] for row in _cells(self.coefficients))
        ruler = ["---", *["---:"] * (len(head) - 1)]
        return "\n".join("| " + " | ".join(row) + " |" for row in [head, ruler, *body])


def _cells(table: pd.DataFrame) -> list[list[str]]:
    """Head and rows as text, the index first."""
    head = [str(table.index.name or ""), *(str(name).replace("_", " ") for name in table.columns)]
    rows = [
        [str(label), *(_cell(name, value) for name, value in zip(table.columns, values, strict=True))]
        for label, values in zip(table.index, table.to_numpy(dtype=object), strict=True)
    ]
    return [head, *rows]


def _cell(column: str, value: object) -> str:
    if value is None or isinstance(value, str | int):
        return "" if value is None else str(value)
    number = float(value)  # type: ignore[arg-type]
    if column in PROBABILITIES:
        return "<0.001" if number < 0.001 else f"{number:.3f}"
    return f"{number:.4g}" if number and not 1e-3 <= abs(number) < 1e5 else f"{number:.4f}".rstrip("0").rstrip(".")


def _aligned(rows: list[list[str]]) -> list[str]:
    short = [[cell if len(cell) <= WIDEST else f"{cell[: WIDEST - 1]}…" for cell in row] for row in rows]
    widths = [max(len(row[j]) for row in short) for j in range(len(short[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in short
    ]


def _html(rows: list[list[str]]) -> str:
    head, *body = (
        "".join(f"<{tag}>{escaping.escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(["th", *["td"] * (len(rows) - 1)], rows, strict=True)
    )
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def _latex(cell: str) -> str:
    return "".join(LATEX.get(character, character) for character in cell).replace("<", "$<$")
