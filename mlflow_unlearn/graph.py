"""The verb `graph`: a trace as DOT, as SVG, or as one HTML page with the picture and every line in words.

The page has no script, and nothing is loaded from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .drawing import plain, to_dot, to_svg
from .lineage import Step, Trace, TracedVersion

__all__ = ["to_dot", "to_html", "to_svg"]

_OPEN = 12
"""A table of clear versions longer than this is shut until somebody opens it."""
_NOTE = "Where lineage is not signed, clear is what the records say, not what a signature proves."


def to_html(traced: Trace) -> str:
    """The page. Whatever others named is text in it, never markup."""
    asked = plain(", ".join(traced.requests) or "no request")
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'"><meta name="color-scheme" '
        f'content="light dark"><title>Trace of {asked}</title><style>{_STYLE}</style></head><body>',
        '<a class="skip" href="#affected">Skip the picture</a>',
        f"<header><p>Trace</p><h1>Which models saw the records of {asked}?</h1>{_counts(traced)}<p>{_NOTE}</p></header><main>",
        _listed("What could not be read", traced.warnings),
        '<section aria-labelledby="h-picture"><h2 id="h-picture">The way of the records</h2><p>From left to right: from the request to everything '
        'that its records reached. The tables below say the same in words.</p><div class="picture" tabindex="0" role="region" '
        f'aria-label="Picture of the trace, scrolls">{to_svg(traced)}</div></section>',
        _versions("affected", "Affected", "saw the requested records and have not passed as forgotten", traced.affected),
        _versions("unknown", "Unknown", "may have seen them: what they learned from cannot be read, so they are not clear", traced.unknown),
        _versions("clear", "Clear", "did not see them, or passed as forgotten", traced.clear, shut=len(traced.clear) > _OPEN),
        _table("held", "Dataset revisions that hold them", ("dataset", "md5", "revisions", "records"), _held(traced)),
        _table("outputs", "DVC outputs made from those", ("output", "md5", "known by", "way"), _outputs(traced)),
        _table("runs", "Runs that read them and made no listed version", ("run", "experiment", "logged models", "way"), _runs(traced)),
        "</main></body></html>\n",
    ]
    return "\n".join(filter(None, parts))


def _counts(traced: Trace) -> str:
    counts = (("affected", len(traced.affected)), ("unknown", len(traced.unknown)), ("clear", len(traced.clear)))
    return "<ul class=counts>" + "".join(f'<li class="{name}"><a href="#{name}"><b>{count}</b> {name}</a></li>' for name, count in counts) + "</ul>"


def _versions(key: str, title: str, meaning: str, lines: Sequence[TracedVersion], *, shut: bool = False) -> str:
    rows = [
        (
            f"{plain(str(line.model))}{''.join(f' <span class=alias>@{plain(alias)}</span>' for alias in line.aliases)}",
            "" if line.exact else "≈",
            str(line.records) if line.records else "",
            plain(line.why),
        )
        for line in lines
    ]
    body = _rows(("version", "", "records", "why"), rows) if rows else "<p>None.</p>"
    if rows and any(not line.exact for line in lines):
        body += "<p>≈ means everything downstream of the records, which may be too much: an output on the way keeps no record tags.</p>"
    if shut:
        body = f"<details><summary>Show all {len(lines)}</summary>{body}</details>"
    return (
        f'<section id="{key}" class="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{title}: {len(lines)}</h2>'
        f"<p>Versions that {meaning}.</p>{body}</section>"
    )


def _held(traced: Trace) -> list[Sequence[str]]:
    return [
        (plain(held.state.name), plain(held.state.md5[:8]), plain(", ".join(held.state.revisions) or "none"), str(held.records))
        for held in traced.held
    ]


def _outputs(traced: Trace) -> list[Sequence[str]]:
    known = {True: "its own rows", False: "≈ what it was made from"}
    return [(plain(output.path), plain(output.md5[:8]), known[output.exact], _way(output.why)) for output in traced.outputs]


def _runs(traced: Trace) -> list[Sequence[str]]:
    return [(plain(run.run_id), plain(run.experiment), plain(", ".join(run.logged_models) or "none"), _way(run.path)) for run in traced.runs]


def _way(path: Iterable[Step]) -> str:
    return plain(" → ".join(step.name for step in path))


def _listed(title: str, lines: Sequence[str]) -> str:
    items = "".join(f"<li>{plain(line)}</li>" for line in lines)
    return f'<section class="unknown" aria-labelledby="h-unread"><h2 id="h-unread">{title}</h2><ul>{items}</ul></section>' if lines else ""


def _table(key: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f'<section id="{key}" aria-labelledby="h-{key}"><h2 id="h-{key}">{title}: {len(rows)}</h2>{_rows(columns, rows)}</section>' if rows else ""


def _rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are markup already."""
    head = "".join(f'<th scope="col">{column}</th>' if column else '<td aria-hidden="true"></td>' for column in columns)
    body = "\n".join(f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows)
    return f'<div class="rows"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


_STYLE = """
:root{--ground:#fff;--card:#f6f7f9;--ink:#1b2230;--soft:#4d586a;--rule:#d9dee6;--link:#1d4fb8;--affected:#c23030;--unknown:#8f6b00;--clear:#1f7a45}
@media (prefers-color-scheme:dark){:root{--ground:#12161d;--card:#1a202a;--ink:#e9edf4;--soft:#b3bdcc;--rule:#333c4a;--link:#8fb4ff;
--affected:#f07f7f;--unknown:#e2c04c;--clear:#63c78c}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
header,main{max-width:1280px;margin:0 auto;padding:0 28px}header{padding-top:28px}header>p{color:var(--soft);margin:0}
h1{font-size:26px;line-height:1.25;margin:2px 0 16px}h2{font-size:18px;margin:0 0 4px}section{margin:28px 0}
section>p{margin:0 0 10px;color:var(--soft)}
.counts{list-style:none;display:flex;flex-wrap:wrap;gap:12px;padding:0;margin:0 0 12px}
.counts a{display:block;padding:10px 18px;border:1px solid var(--rule);border-left:5px solid var(--tone);border-radius:8px;background:var(--card);
color:var(--ink);text-decoration:none}.counts b{font-size:22px;margin-right:4px}.affected{--tone:var(--affected)}.unknown{--tone:var(--unknown)}
.clear{--tone:var(--clear)}section[class] h2{border-left:5px solid var(--tone);padding-left:10px}
.picture,.rows{overflow:auto;border:1px solid var(--rule);border-radius:10px;max-height:85vh}.picture svg{display:block;margin:auto}
table{border-collapse:collapse;width:100%;font-size:14px}td,th{padding:7px 12px;text-align:left;vertical-align:top;border-top:1px solid var(--rule);
overflow-wrap:anywhere}thead th{white-space:nowrap}
thead th,thead td{position:sticky;top:0;background:var(--card);border-top:0;color:var(--soft);font-weight:600}
tbody th{min-width:12em;font-weight:600}.alias{color:var(--link);font-weight:600;white-space:nowrap}
summary{cursor:pointer;padding:6px 0;color:var(--link)}
:focus-visible{outline:3px solid var(--link);outline-offset:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:12px;top:8px;background:var(--card);
padding:8px 12px}@media print{.picture,.rows{max-height:none;overflow:visible}}
"""
