"""The page's style sheet: light, dark and on paper, from a telephone's width on."""

from __future__ import annotations

from m3retriever.palette import DARK, LIGHT, STEPS, variables

FONTS = (
    'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", '
    '"Noto Sans CJK SC", "Noto Sans SC", sans-serif'
)
NUMBERS = 'ui-monospace, "SF Mono", Menlo, Consolas, "Noto Sans Mono", monospace'

LAYOUT = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
body{margin:0;background:var(--background);color:var(--text);font:15px/1.5 FONTS}
main{max-width:72rem;margin:0 auto;padding:1.5rem 1.25rem 3rem}
h1{font-size:1.55rem;line-height:1.25;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.5rem 0 .5rem;padding-top:.9rem;border-top:1px solid var(--grid);scroll-margin-top:.5rem}
h3{font-size:.95rem;margin:0 0 .25rem}
p{margin:.4rem 0;max-width:62rem}
a{color:inherit;text-underline-offset:.2em;text-decoration-color:var(--other)}
nav{display:flex;flex-wrap:wrap;gap:.25rem 1rem;margin:.5rem 0 1rem;font-size:.87rem}
.muted{color:var(--muted)}
.note{color:var(--muted);font-size:.87rem}
.lead{font-size:1.06rem}
.empty{color:var(--muted);border-left:3px solid var(--grid);padding-left:.75rem}
dl.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.5rem 1.5rem;margin:1rem 0}
dl.tiles div{border-top:3px solid var(--grid);padding-top:.4rem}
dl.tiles dt{color:var(--muted);font-size:.83rem}
dl.tiles dd{margin:0;font-size:1.45rem;line-height:1.3;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;margin:.75rem 0}
.scroll:focus-visible,a:focus-visible,summary:focus-visible{outline:2px solid var(--dense);outline-offset:2px}
table{border-collapse:collapse;font-size:.87rem;font-variant-numeric:tabular-nums}
table{min-width:min(100%,36rem)}
caption{max-width:min(62rem,calc(100vw - 2.5rem));text-align:left;color:var(--muted);padding-bottom:.35rem}
th,td{text-align:left;white-space:nowrap;font-weight:400;padding:.35rem .9rem .35rem 0;
border-bottom:1px solid var(--grid);vertical-align:top}
thead th{color:var(--muted);font-size:.83rem;vertical-align:bottom}
table.stacked{width:100%}
.question{white-space:normal;min-width:16rem;overflow-wrap:anywhere}
.id{color:var(--muted);font-size:.8rem}
.value{white-space:nowrap}
.between{color:var(--muted);display:inline-block;white-space:nowrap}
.best{font-weight:650}
.mark{font-size:.72rem;font-weight:600;border:1px solid currentColor;border-radius:3px;padding:0 .25em;margin-left:.45em}
.key{display:flex;flex-wrap:wrap;gap:.15rem 1.2rem;font-size:.87rem;margin:.5rem 0;padding:0;list-style:none}
svg{display:block;width:100%;height:auto}
svg.swatch,svg.sample{display:inline-block;width:.7rem;height:.7rem;margin-right:.4rem;vertical-align:-.05rem}
svg.sample{width:1.8rem}
svg text{font:11.5px FONTS;fill:var(--text);font-variant-numeric:tabular-nums}
svg text.muted{fill:var(--muted)}
svg text.strong{font-weight:650}
svg text.halo{paint-order:stroke;stroke:var(--background);stroke-width:3px;stroke-linejoin:round}
.bar{height:.5rem;min-width:4.5rem}
.strip{height:.8rem;min-width:9rem}
.weights{height:1.1rem;max-width:26rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.5rem 2rem;margin:1rem 0}
.charts.small{grid-template-columns:repeat(auto-fit,minmax(min(100%,14rem),1fr))}
figure{margin:0;max-width:34rem;break-inside:avoid}
.small figure{max-width:21rem}
.beside{display:grid;grid-template-columns:minmax(0,28rem) minmax(0,1fr);gap:1rem 2.5rem;align-items:start}
.dense{fill:var(--dense)}.sparse{fill:var(--sparse)}.colbert{fill:var(--colbert)}.hybrid{fill:var(--hybrid)}
.other{fill:var(--other)}.track{fill:var(--track)}
.axis{stroke:var(--grid);stroke-width:1;fill:none}
.zero{stroke:var(--muted);stroke-width:1}
.whisker{stroke:var(--text);stroke-width:1.4;vector-effect:non-scaling-stroke}
.line{fill:none;stroke:var(--text);stroke-width:1.6;stroke-linejoin:round}
.recall{stroke-dasharray:5 3}.precision{stroke-dasharray:1.5 2.5}.f1{stroke-width:2.4}
.limit{stroke:var(--limit);stroke-width:2}
.ring{fill:var(--background);stroke:var(--text);stroke-width:2}
.leader{stroke:var(--text);stroke-width:1;fill:none}
.leader.under{stroke:var(--background);stroke-width:3}
.point{fill-opacity:.75;stroke:var(--background);stroke-width:1}
footer{margin-top:2.5rem}
details summary{cursor:pointer}
pre{font:.8rem/1.45 MONO;background:var(--track);padding:.75rem 1rem;overflow-x:auto;border-radius:4px}
@media (max-width:60rem){.beside{grid-template-columns:minmax(0,1fr)}}
@media (max-width:30rem){main{padding:1rem 1rem 2rem}body{font-size:14.5px}}
@media screen and (max-width:40rem){table.stacked,.stacked caption,.stacked tbody{display:block}
.stacked thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stacked tr{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));column-gap:1rem;padding:.5rem 0;
border-bottom:1px solid var(--grid)}
.stacked th,.stacked td{border:0;padding:.15rem 0}.stacked tbody th{grid-column:1/-1;font-weight:600}
.stacked td::before{content:attr(data-name);color:var(--muted);font-size:.78rem;display:block}
.question{min-width:0;font-weight:400}.stacked .value{white-space:normal}}
@media print{main{max-width:none;padding:0}nav{display:none}body{font-size:10.5pt}.scroll{overflow:visible}
.value{white-space:normal}h2{break-after:avoid}tr{break-inside:avoid}.charts{grid-template-columns:1fr 1fr}
.charts.small{grid-template-columns:repeat(4,1fr)}}
"""


def style() -> str:
    """The style sheet. Dark is for screens only, so that paper stays white."""
    steps = "".join(f".step-{step}{{fill:var(--step-{step})}}" for step in range(STEPS))
    return (
        f":root{{color-scheme:light dark;{variables(LIGHT)}}}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
        + LAYOUT.replace("FONTS", FONTS).replace("MONO", NUMBERS)
        + steps
    )
