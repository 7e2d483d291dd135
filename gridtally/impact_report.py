"""The impact of proposed tariffs as one HTML file with charts, made of what `tariff impact --json` gives; no scripts."""

from decimal import Decimal
from html import escape
from typing import Any

from gridtally.impact_cli import bin_label, percent

STYLE = """
:root{color-scheme:light dark;--bg:#E4E7EA;--panel:#F6F7F8;--line:#CDD2D8;--ink:#1A2027;--ink2:#444D57;--less:#1B78C2;
--more:#B45309;--now:#87919B;--new:#1B5899}
@media(prefers-color-scheme:dark){:root{--bg:#14171A;--panel:#1C2024;--line:#343B42;--ink:#E7EAED;--ink2:#B9C1C9;
--less:#569AD6;--more:#F0B96A;--now:#98A2AC;--new:#82B5EE}}
*{box-sizing:border-box}body{margin:0 auto;max-width:960px;padding:24px 16px;background:var(--bg);color:var(--ink);
font:14px/1.5 "Segoe UI",Roboto,"Helvetica Neue","PingFang SC","Microsoft YaHei","Noto Sans CJK SC",system-ui,sans-serif}
h1{font-size:22px;margin:0 0 4px}h2{font-size:18px;margin:0 0 8px}h3{font-size:14px;margin:20px 0 8px;color:var(--ink2)}
section{background:var(--panel);border:1px solid var(--line);border-radius:3px;padding:16px 20px;margin:16px 0}
p{margin:0 0 8px}.sub{color:var(--ink2)}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:0}
dt{color:var(--ink2);font-size:12px}dd{margin:0;font-size:20px;font-variant-numeric:tabular-nums}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:4px 8px;text-align:left;border-bottom:1px solid var(--line)}th{color:var(--ink2);font-weight:600;font-size:12px}
.n{text-align:right;white-space:nowrap}.wide{overflow-x:auto}svg{width:100%;height:auto;display:block}
svg text{fill:var(--ink2);font-size:12px}.key i{display:inline-block;width:11px;height:11px;margin:0 4px 0 12px}
@media print{body{background:#fff;max-width:none}section{break-inside:avoid}}
"""
NEAR_PERCENT = 10
"""Changes up to so many percent are drawn whether anybody has them or not."""
LABEL_PERCENT = 6
WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 900, 260, 64, 44, 18


def report_html(shown: dict[str, Any]) -> str:
    """Return the report."""
    months = shown["months"]
    parts = [_section(shown, one) for one in shown["tariffs"]]
    title = "Tariff impact: " + ", ".join(one["tariff"] for one in shown["tariffs"])
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head><body>'
        f"<h1>{escape(title)}</h1><p class=sub>The past of {months[0]} to {months[-1]}, compared with"
        f" {escape(shown['against'])}. Rated by calendar months with the loads as they were: nobody is assumed to change"
        f" habits.</p>{''.join(parts)}{_missing(shown['missing'])}</body></html>\n"
    )


def _section(shown: dict[str, Any], one: dict[str, Any]) -> str:
    currency = escape(shown["currency"])
    current, proposed = (Decimal(one["total"][side]) for side in ("current", "proposed"))
    facts = [
        ("Contracts", f"{one['accounts']:,}"),
        (f"Revenue now, {currency}", f"{current:,.2f}"),
        (f"Revenue proposed, {currency}", f"{proposed:,.2f}"),
        ("Change", percent(current, proposed)),
        ("Pay less", f"{one['winners']:,}"),
        ("Pay more", f"{one['losers']:,}"),
        ("Pay the same", f"{one['unchanged']:,}"),
        ("Median change", f"{one['quantiles_percent'].get('50', 0):+.1f} %"),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return (
        f"<section><h2>{escape(one['tariff'])}</h2><p class=sub>{escape(one['name'])}</p><dl>{listed}</dl>"
        f"<h3>How bills change</h3>{_key(('less', 'pays less'), ('more', 'the same or more'))}{histogram(one['distribution'])}"
        f"<h3>Revenue by month, {currency}</h3>{_key(('now', 'now'), ('new', 'proposed'))}"
        f"{revenue_chart(shown['months'], one['revenue'])}{_revenue_table(shown['months'], one['revenue'])}"
        f"<h3>Energy by period</h3>{_energy_table(one['energy_wh_by_period'])}"
        f"<h3>Revenue by kind of line, {currency}</h3>{_kind_table(one['revenue_by_kind'])}"
        f"<h3>Hit hardest</h3>{_hardest_table(one['hardest'])}</section>"
    )


def _key(*items: tuple[str, str]) -> str:
    cells = "".join(f'<i style="background:var(--{color})"></i>{text}' for color, text in items)
    return f"<p class=key>{cells}</p>"


def histogram(bins: list[dict[str, Any]]) -> str:
    """Return the distribution of changes as SVG; bins without anybody at both ends are left out."""
    filled = [index for index, item in enumerate(bins) if item["accounts"]]
    if not filled:
        return "<p>Nobody pays anything now: there is no change in percent.</p>"
    near = [index for index, item in enumerate(bins) if abs(item["low_percent"] or 100) <= NEAR_PERCENT]
    shown = bins[min(filled[0], near[0]) : max(filled[-1], near[-1]) + 1]
    top = max(item["accounts"] for item in shown)
    step = (WIDTH - LEFT) / len(shown)
    scale = (HEIGHT - TOP - BOTTOM) / top
    marks = []
    for index, item in enumerate(shown):
        height = item["accounts"] * scale
        color = "more" if item["high_percent"] is None or item["high_percent"] > 0 else "less"
        x, y = LEFT + index * step, HEIGHT - BOTTOM - height
        marks.append(
            f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{step - 4:.1f}" height="{height:.1f}" fill="var(--{color})">'
            f"<title>{bin_label(item)}: {item['accounts']:,}</title></rect>"
        )
        if item["accounts"]:
            marks.append(
                f'<text x="{x + step / 2:.1f}" y="{y - 4:.1f}" text-anchor="middle">{item["accounts"]:,}</text>'
            )
        if item["low_percent"] is not None and item["low_percent"] % LABEL_PERCENT == 0:
            edge = f"{item['low_percent']:+d}" if item["low_percent"] else "0"
            marks.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{edge}</text>')
    label = "Contracts by change of their bill in percent"
    marks.append(f'<text x="{(WIDTH + LEFT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{label}</text>')
    return _svg(label, marks)


def revenue_chart(months: list[str], revenue: dict[str, dict[str, list[str]]]) -> str:
    """Return revenue by month over all classes as SVG, now beside proposed."""
    sides = {
        side: [sum((Decimal(table[name][at]) for name in table), Decimal(0)) for at in range(len(months))]
        for side, table in revenue.items()
    }
    top = max([*sides["current"], *sides["proposed"], Decimal(1)])
    step = (WIDTH - LEFT) / len(months)
    room = HEIGHT - TOP - BOTTOM
    marks = []
    for share in (Decimal(0), Decimal("0.5"), Decimal(1)):
        y = HEIGHT - BOTTOM - room * float(share)
        marks.append(f'<line x1="{LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(top * share)}</text>')
    for at, month in enumerate(months):
        for place, (side, color) in enumerate((("current", "now"), ("proposed", "new"))):
            value = sides[side][at]
            height = room * float(max(value, Decimal(0)) / top)
            x = LEFT + at * step + step * (0.12 + 0.38 * place)
            marks.append(
                f'<rect x="{x:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{step * 0.36:.1f}" height="{height:.1f}"'
                f' fill="var(--{color})"><title>{month} {side}: {value:,.2f}</title></rect>'
            )
        middle = LEFT + (at + 0.5) * step
        marks.append(f'<text x="{middle:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{month[2:]}</text>')
    return _svg("Revenue by month, now and proposed", marks)


def _short(value: Decimal) -> str:
    for size, sign in ((Decimal(10**6), "M"), (Decimal(10**3), "k")):
        if value >= size:
            return f"{value / size:.1f} {sign}"
    return f"{value:.0f}"


def _svg(label: str, marks: list[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{"".join(marks)}</svg>'


def _rows(head: list[str], rows: list[list[str]], texts: int) -> str:
    """Return a table whose first columns are text and the others numbers."""

    def row(cells: list[str], tag: str) -> str:
        marked = (f"<{tag}{'' if at < texts else ' class=n'}>{cell}</{tag}>" for at, cell in enumerate(cells))
        return f"<tr>{''.join(marked)}</tr>"

    body = "".join(row(cells, "td") for cells in rows)
    return f"<div class=wide><table><thead>{row(head, 'th')}</thead><tbody>{body}</tbody></table></div>"


def _revenue_table(months: list[str], revenue: dict[str, dict[str, list[str]]]) -> str:
    rows = []
    for name, values in revenue["current"].items():
        for month, before, after in zip(months, values, revenue["proposed"][name], strict=True):
            b, a = Decimal(before), Decimal(after)
            rows.append([escape(name), month, f"{b:,.2f}", f"{a:,.2f}", percent(b, a)])
    return _rows(["Class", "Month", "Now", "Proposed", "Change"], rows, 2)


def _energy_table(energy: dict[str, dict[str, int]]) -> str:
    rows = []
    for side, word in (("current", "now"), ("proposed", "proposed")):
        total = sum(energy[side].values()) or 1
        rows += [
            [word, escape(name), f"{wh / 1e6:,.2f}", f"{100 * wh / total:.1f} %"] for name, wh in energy[side].items()
        ]
    return _rows(["Tariff", "Period", "MWh", "Share"], rows, 2)


def _kind_table(kinds: dict[str, dict[str, str]]) -> str:
    names = sorted({*kinds["current"], *kinds["proposed"]})
    rows = []
    for name in names:
        before, after = (Decimal(kinds[side].get(name, "0")) for side in ("current", "proposed"))
        rows.append([escape(name), f"{before:,.2f}", f"{after:,.2f}", percent(before, after)])
    return _rows(["Kind", "Now", "Proposed", "Change"], rows, 1)


def _hardest_table(hardest: list[dict[str, Any]]) -> str:
    if not hardest:
        return "<p>Nobody pays more.</p>"
    rows = [
        [
            escape(row["account"]),
            escape(row["contract"]),
            escape(row["class"]),
            f"{row['energy_wh'] / 1000:,.0f}",
            f"{Decimal(row['current']):,.2f}",
            f"{Decimal(row['proposed']):,.2f}",
            f"{Decimal(row['change']):+,.2f}",
            "-" if row["change_percent"] is None else f"{row['change_percent']:+.1f} %",
        ]
        for row in hardest
    ]
    return _rows(["Account", "Contract", "Class", "kWh", "Now", "Proposed", "More", "Change"], rows, 3)


def _missing(missing: dict[str, Any]) -> str:
    covered, partly = f"{missing['covered_min_percent']:.0f}", missing["partly_read"]
    rows = [
        ("contracts have no tariff and are left out", missing["without_tariff"]),
        ("contracts have no reading in these months and are left out", missing["without_readings"]),
        (f"contracts are read for less than {covered} % of their time; their bills are of what is there", partly),
    ]
    listed = "".join(
        f"<p>{len(names):,} {text}: {escape(', '.join(names[:10]))}{', …' if len(names) > 10 else ''}</p>"
        for text, names in rows
        if names
    )
    return (
        f"<section><h2>Missing data</h2>{listed or '<p>None: every contract has a tariff and readings.</p>'}</section>"
    )
