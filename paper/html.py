"""The frame of the report: its style and policy, and tables that a click sorts and a narrow screen shows whole."""

import base64
import hashlib
from collections.abc import Sequence

STYLE = """
body { font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1c1c1c; max-width: 68rem;
  margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; } h2 { font-size: 1.25rem; margin: 2.8rem 0 .6rem; }
nav { margin: 1rem 0; } nav a { margin-right: .9rem; display: inline-block; } a { color: #0b5c93; }
figure { margin: 0; } figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figcaption, .small { color: #555; font-size: .87rem; } figcaption { margin-top: .4rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .87rem; width: 100%; margin: .6rem 0; }
caption { text-align: left; color: #555; padding-bottom: .3rem; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
th { border-bottom: 1.5px solid #888; font-weight: 600; } td.n { white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.first td { border-top: 1.5px solid #bbb; } .same { color: transparent; } .same * { visibility: hidden; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer;
  text-align: inherit; white-space: nowrap; }
th button::after { content: " \\2195"; color: #aaa; } th[aria-sort] button::after { color: #0b5c93; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.yes, .no, .open { border-radius: .7rem; padding: .05rem .55rem; white-space: nowrap; font-size: .8rem; }
.yes { background: #d7efdd; color: #0d5426; } .no { background: #fadcd5; color: #84250c; }
.open { background: #ececec; color: #4b4b4b; }
code { font-size: .82rem; background: #f4f4f4; padding: 0 .2rem; overflow-wrap: anywhere; }
details { margin: .5rem 0; } summary { cursor: pointer; color: #0b5c93; font-size: .9rem; }
.films { display: flex; flex-wrap: wrap; gap: 1.2rem; } .films figure { max-width: 24rem; }
.films video, .films img { width: 100%; background: #111; border-radius: .3rem; }
@media (max-width: 40rem) { /* a row is a card, and the heads are a line of buttons */
  body { padding: .8rem; } table, tbody, tr, td { display: block; } caption { display: block; }
  thead tr { display: flex; flex-wrap: wrap; gap: .1rem .9rem; } th, tr.first td { border: 0; }
  tbody tr, tbody tr.first { border: 1px solid #ddd; border-radius: .4rem; margin: .6rem 0; padding: .3rem .6rem; }
  td, td.n { display: flex; gap: .8rem; justify-content: space-between; border: 0; padding: .15rem 0; text-align: right;
    white-space: normal; }
  td::before { content: attr(data-head); color: #666; text-align: left; flex: 0 0 auto; }
  td > span { min-width: 0; overflow-wrap: anywhere; }
  .same { color: inherit; } .same * { visibility: visible; }
}
"""
# A click on a head sorts by that column, numbers by what they begin with; what repeats the row above is shown then.
SCRIPT = """
document.querySelectorAll("th button").forEach(button => button.addEventListener("click", () => {
  const head = button.parentNode, table = head.closest("table"), body = table.tBodies[0], at = head.cellIndex;
  const up = head.getAttribute("aria-sort") !== "ascending", text = row => row.cells[at].textContent.trim();
  const number = row => parseFloat(text(row).replace(/,/g, "").replace(/^[^0-9.-]+/, ""));
  const numeric = head.classList.contains("n");
  const order = (a, b) => numeric
    ? (isNaN(number(a)) - isNaN(number(b))) || (up ? 1 : -1) * (number(a) - number(b) || 0)
    : (up ? 1 : -1) * text(a).localeCompare(text(b), "en", { numeric: true });
  [...body.rows].sort(order).forEach(row => {
    row.classList.remove("first");
    for (const cell of row.cells) cell.classList.remove("same");
    body.append(row);
  });
  table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
}));
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document. Nothing is loaded from elsewhere, and its own policy forbids it to: only SCRIPT may run."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
    policy += f"; script-src 'sha256-{digest}'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>{title}</title>\n<style>{STYLE}</style></head><body>",
            *parts,
            f"<script>{SCRIPT}</script></body></html>\n",
        ]
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[int] = (), groups: int = 1) -> str:
    """Cells are HTML already. Of the first `groups` columns, what repeats the row above is not shown until sorted."""
    kinds = ["n" if i in numeric else "" for i in range(len(header))]
    heads = "".join(f'<th class="{kind}"><button>{name}</button></th>' for kind, name in zip(kinds, header))
    body, above = "", ("",) * len(header)
    for row in rows:
        first = "first" if row[0] != above[0] else ""
        cells = []
        for i, (kind, name, cell) in enumerate(zip(kinds, header, row)):
            same = "same" if i < groups and list(row[: i + 1]) == list(above[: i + 1]) else ""
            cells.append(f'<td class="{kind} {same}" data-head="{name}"><span>{cell}</span></td>')
        body += f'<tr class="{first}">{"".join(cells)}</tr>\n'
        above = row
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead>\n<tbody>{body}</tbody></table></div>'
