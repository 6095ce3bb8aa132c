"""The part of docs/performance.md that is written by the comparison."""

import pathlib

import bars
import report

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "performance.md"
BEGIN = "<!-- written by benches/compare: begin -->\n"
END = "<!-- written by benches/compare: end -->\n"


def text(results):
    """Bars, then every scenario's table."""
    return (f"{report.setting(results)}\n\n"
            "What is to be reached, and whether it is. A ratio is the median over the rounds of "
            "ratios within a round, with its quartiles in brackets.\n\n"
            f"{bars.table(results)}\n\n{report.markdown(results)}")


def write(results):
    """Replaces what stands between the marks."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE} has no marks")
    PAGE.write_text(f"{before}{BEGIN}\n{text(results)}\n{END}{after}")
