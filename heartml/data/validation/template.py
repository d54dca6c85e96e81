"""The page that `validate.page` fills: one Jinja template with its style sheet, nothing loaded from anywhere."""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Data validation: {{ "fit for training" if result.success else "not fit for training" }}</title>
<style>
:root { --paper: #fbfaf8; --card: #ffffff; --ink: #1d2129; --quiet: #646b78; --line: #e3e1dc; --bar: #4a6fa5;
  --s0: #4a6fa5; --s1: #d98a3d; --s2: #3f9a8a; --s3: #9a6fb0;
  --good: #1f7a4d; --warn: #a86400; --bad: #b3261e; --good-bg: #e6f3ec; --warn-bg: #fbf0dc; --bad-bg: #fbe7e5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14161a; --card: #1c1f25; --ink: #e7e8ea; --quiet: #9aa1ad; --line: #2e323a; --bar: #7fa3d8;
    --s0: #6d97d6; --s1: #e0a05a; --s2: #5cb8a6; --s3: #b893cc;
    --good: #63c293; --warn: #e2a64b; --bad: #f2867d; --good-bg: #16291f; --warn-bg: #2d2413; --bad-bg: #331a19; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 20px 64px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -.01em; }
h2 { font-size: 19px; margin: 40px 0 12px; }
h3 { font-size: 15px; margin: 0 0 4px; }
p { margin: 4px 0; }
.quiet { color: var(--quiet); }
.verdict { border-left: 6px solid var(--good); background: var(--good-bg); padding: 18px 20px; border-radius: 8px; }
.verdict.bad { border-color: var(--bad); background: var(--bad-bg); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(130px, 1fr)); gap: 12px; margin: 20px 0 0; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; }
.tile b { display: block; font-size: 22px; font-variant-numeric: tabular-nums; line-height: 1.25; }
.card { margin: 0 0 12px; border-left: 4px solid var(--quiet); }
.card.error { border-left-color: var(--bad); } .card.warning { border-left-color: var(--warn); }
.tag { display: inline-block; font-size: 12px; font-weight: 600; padding: 1px 8px; border-radius: 99px;
  margin-right: 8px; background: var(--line); }
.tag.error { color: var(--bad); background: var(--bad-bg); }
.tag.warning { color: var(--warn); background: var(--warn-bg); }
.tag.pass { color: var(--good); background: var(--good-bg); }
summary { cursor: pointer; color: var(--quiet); margin-top: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--quiet); white-space: nowrap; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.n, th.n { text-align: right; }
code { font: 12.5px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 12px; }
.charts .card { margin: 0; border-left-width: 1px; border-left-color: var(--line); }
svg { width: 100%; height: auto; display: block; }
.s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); }
svg .base { stroke: var(--line); }
svg .limit { stroke: var(--warn); stroke-width: 1.5; stroke-dasharray: 4 3; }
.key { display: inline-block; width: 11px; height: 11px; }
svg text { fill: var(--quiet); font-size: 12px; }
.classes { display: grid; grid-template-columns: repeat(auto-fit, minmax(310px, 1fr)); gap: 12px; }
.classes .card { margin: 0; border-left-width: 1px; border-left-color: var(--line); }
.meter { display: inline-block; height: 9px; border-radius: 2px; background: var(--bar); vertical-align: baseline; }
.thin .meter { background: var(--warn); } .thin td { color: var(--warn); }
</style>
</head>
<body><main>
<section class="verdict {{ "" if result.success else "bad" }}">
<h1>{{ "The data is fit for training" if result.success else "The data is not fit for training" }}</h1>
<p>{{ result.errors | length }} {{ "error" if result.errors | length == 1 else "errors" }},
{{ result.warnings | length }} {{ "warning" if result.warnings | length == 1 else "warnings" }} in
{{ result.checks | length }} checks.
{% if result.success %}Errors would have stopped the pipeline; warnings are carried into the report.{% else %}
The pipeline stops here. Each error below names its rows and the way out.{% endif %}</p>
</section>
<div class="tiles">
{% for title, value in [("recordings", result.counts.recordings), ("patients named", result.counts.patients),
  ("groups", result.counts.groups), ("hours", result.counts.hours | round(2)),
  ("pairs nearly the same", result.counts.near_duplicate_pairs), ("files quarantined", result.counts.quarantined)] %}
<div class="tile"><b>{{ "{:,}".format(value) }}</b><span class="quiet">{{ title }}</span></div>
{% endfor %}
</div>

<h2>What does not hold</h2>
{% for check in findings %}
<section class="card {{ check.severity }}">
<h3><span class="tag {{ check.severity }}">{{ check.severity }}</span>{{ check.title }}</h3>
{% if check.suite == "quarantine" %}
<p><b>{{ "{:,}".format(check.unexpected) }}</b> were. <span class="quiet">{{ check.way_out }}</span></p>
<p>{% for reason, count in result.quarantined_by_reason.items() %}
<span class="tag">{{ reason | words }} {{ count }}</span>
{% endfor %}</p>
{% else %}
<p>Not so for <b>{{ "{:,}".format(check.unexpected) }}</b> of {{ "{:,}".format(check.checked) }}
{{ check.suite }}. <span class="quiet">{{ check.way_out }}</span></p>
{% endif %}
{% if check.rows %}
<details {{ "open" if check.severity == "error" }}>
<summary>{% if check.unexpected > check.rows | length %}the first {{ check.rows | length }} of {{ check.unexpected }}
{% elif check.rows | length == 1 %}the row{% else %}all {{ check.rows | length }} rows{% endif %}</summary>
<div class="scroll"><table>
<tr>{% for name in check.rows[0] %}<th>{{ name | words }}</th>{% endfor %}</tr>
{% for row in check.rows %}
<tr>{% for value in row.values() %}<td>{{ value | cell }}</td>{% endfor %}</tr>
{% endfor %}
</table></div></details>
{% endif %}
</section>
{% else %}
<p class="quiet">Nothing: every check passed.</p>
{% endfor %}

<h2>Signals</h2>
<p class="quiet">Recordings from {% for name in sources %}
<svg class="key" viewBox="0 0 10 10"><rect class="s{{ loop.index0 }}" width="10" height="10" rx="2"/></svg> {{ name }}
{%- if not loop.last %}, {% endif %}
{% endfor %}; dashed: the limits that warn.</p>
<div class="charts">
{% for axis, chart in charts %}
<div class="card"><h3>{{ axis.title }} <span class="quiet">{{ axis.unit }}</span></h3>{{ chart }}</div>
{% endfor %}
</div>

<h2>Classes</h2>
<p class="quiet">Groups are people (or days, where people are unknown); nearly the same audio joins them. A class with
fewer than {{ least_groups }} is not estimable.</p>
<div class="classes">
{% for (dataset, label), rows in classes.items() %}
<div class="card"><h3>{{ dataset }} <span class="quiet">{{ label | words }}</span></h3><table>
<tr><th>class</th><th class="n">recordings</th><th class="n">groups</th><th style="width: 35%"></th></tr>
{% for row in rows %}
<tr {% if row.groups < least_groups %}class="thin"{% endif %}>
<td>{{ row.value }}</td><td class="n">{{ row.recordings }}</td>
<td class="n">{{ row.groups }}</td>
<td><span class="meter" style="width: {{ "%.1f" | format(100 * row.groups / most_groups) }}%"></span></td></tr>
{% endfor %}
</table></div>
{% endfor %}
</div>

<h2>Every check</h2>
<div class="scroll"><table>
<tr><th>result</th><th>about</th><th>expectation</th><th class="n">checked</th><th class="n">not so</th>
<th>observed</th></tr>
{% for check in result.checks %}
<tr><td>{% if check.success %}<span class="tag pass">holds</span>{% else %}
<span class="tag {{ check.severity }}">{{ check.severity }}</span>{% endif %}</td>
<td>{{ check.suite }}</td><td>{{ check.title }}<br><code class="quiet">{{ check.expectation }}</code></td>
<td class="n">{{ "{:,}".format(check.checked) }}</td><td class="n">{{ "{:,}".format(check.unexpected) }}</td>
<td>{{ check.observed | span }}</td></tr>
{% endfor %}
</table></div>
</main></body>
</html>
"""
