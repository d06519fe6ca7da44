"""Stage report: one self-contained HTML page of a run, that opens with a double click and asks no server for anything.

contents  a finished run, and its clips' media -> Page, plain values
html      Page -> HTML: report.html.j2 lays it out, report.js draws it with Plotly

Nothing is imported here: clip_facts and playback work in the processes that read clips, which need none of the rest.
"""
