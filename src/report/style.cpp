// The look of a report: one column of cards, tables that scroll sideways on their own, nothing that
// moves. Sizes are relative, so a reader's own text size holds; print is black on white, opens what
// is folded and keeps figures whole.
#include "report/style.h"

namespace pare {

std::string page_style() {
  return R"css(
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
@media (prefers-reduced-motion:reduce){html{scroll-behavior:auto}}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.55;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","DejaVu Sans",sans-serif;overflow-wrap:break-word}
header,main,footer{max-width:66rem;margin:0 auto;padding:0 1.5rem}
header{padding-top:2.6rem}
h1{font-size:2rem;line-height:1.2;letter-spacing:-.015em;margin:0 0 .4rem}
h2{font-size:1.3rem;letter-spacing:-.01em;margin:0 0 .8rem;scroll-margin-top:1rem}
h3{font-size:1.02rem;margin:1.6rem 0 .5rem}
.sub{color:var(--muted);margin:0 0 1.2rem}
p{margin:.5rem 0;max-width:46rem}
.note{color:var(--muted);font-size:.94rem}
code{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.92em;background:var(--page);border:1px solid var(--grid);
border-radius:.25rem;padding:.05em .3em;overflow-wrap:anywhere;-webkit-box-decoration-break:clone;box-decoration-break:clone}
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;list-style:none;margin:.8rem 0 0;padding:0;font-size:.9rem}
a{color:var(--accent)}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px;border-radius:3px}
main:focus{outline:none}
.skip{position:absolute;left:-999rem;background:var(--surface);color:var(--accent);padding:.6rem 1rem;z-index:2}
.skip:focus{left:1rem;top:1rem}
nav ul{display:flex;flex-wrap:wrap;gap:.4rem;list-style:none;margin:0 0 1.6rem;padding:0}
nav a{display:block;padding:.28rem .7rem;border:1px solid var(--grid);border-radius:2rem;background:var(--surface);
text-decoration:none;font-size:.9rem}
nav a:hover{border-color:var(--accent)}
section{background:var(--surface);border:1px solid var(--grid);border-radius:.8rem;padding:1.5rem 1.6rem;margin:0 0 1.3rem}
section>:last-child{margin-bottom:0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,19rem),1fr));gap:1rem}
.card{border:1px solid var(--grid);border-radius:.6rem;padding:1rem 1.1rem;border-top:4px solid var(--c)}
.card h3{margin:0 0 .3rem}
.card p{font-size:.94rem}
svg.key{display:inline-block;vertical-align:-.14em;width:1rem;height:1rem;margin-right:.4rem}
.stats{display:grid;grid-template-columns:repeat(3,1fr);gap:.6rem;margin:.7rem 0 .2rem}
.stats div{display:flex;flex-direction:column-reverse;justify-content:flex-end}
.stats dt{color:var(--muted);font-size:.8rem;line-height:1.3}
.stats dd{margin:0;font-size:1.35rem;font-weight:650;letter-spacing:-.02em;font-variant-numeric:tabular-nums}
.gates{list-style:none;margin:.6rem 0 0;padding:0;font-size:.9rem}
.good{color:var(--good)}.bad{color:var(--bad)}
.good b,.bad b{font-weight:650}
figure{margin:1.1rem 0 0}
figcaption{color:var(--muted);font-size:.92rem;max-width:46rem;margin-top:.5rem}
.narrow{display:none}
.grid{align-items:start;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,13rem),1fr));gap:1rem 1.2rem}
.grid.large{grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr))}
details{margin-top:.8rem}
summary{cursor:pointer;color:var(--accent);font-size:.94rem;width:fit-content;padding:.15rem 0}
.framed{border:1px solid var(--grid);border-radius:.5rem;padding:.5rem .9rem}
.framed>summary{font-weight:600}
.framed>.inner{padding:.2rem 0 .4rem}
.framed figure:first-child{margin-top:.4rem}
.scroll{overflow-x:auto;margin-top:.7rem}
table{border-collapse:collapse;font-size:.92rem;min-width:100%}
caption{text-align:left;color:var(--muted);font-size:.88rem;padding:.2rem 0 .4rem}
caption span{display:inline-block;position:sticky;left:0;max-width:min(46rem,calc(100vw - 4.2rem))}
th:first-child{position:sticky;left:0;background:var(--surface)}
th,td{text-align:left;padding:.38rem .9rem .38rem 0;border-bottom:1px solid var(--grid);white-space:nowrap;
font-weight:400}
th:last-child,td:last-child{padding-right:0}
thead th{color:var(--muted);font-size:.85rem;border-bottom:1.5px solid var(--axis)}
tbody th{font-weight:600}
.num{text-align:right;font-variant-numeric:tabular-nums}
.facts{margin:.6rem 0 0}
.facts>div{display:grid;grid-template-columns:10rem minmax(0,1fr);gap:.2rem 1rem;padding:.3rem 0;border-bottom:1px solid var(--grid)}
.facts>div:last-child{border-bottom:0}
.facts dt{color:var(--muted);font-size:.92rem}
.facts dd{margin:0;font-size:.94rem;overflow-wrap:anywhere}
pre{margin:.2rem 0;padding:.7rem .9rem;background:var(--page);border:1px solid var(--grid);border-radius:.4rem;
overflow-x:auto;font-size:.85rem;line-height:1.45;font-family:ui-monospace,"DejaVu Sans Mono",monospace}
footer{color:var(--muted);font-size:.88rem;padding-bottom:2.5rem}
@media screen and (max-width:44rem){
header,main,footer{padding-left:1rem;padding-right:1rem}
header{padding-top:1.5rem}
h1{font-size:1.6rem}
section{padding:1.1rem 1rem}
.wide{display:none}.narrow{display:block}
.facts>div{grid-template-columns:minmax(0,1fr)}
}
@media print{
@page{margin:14mm 13mm}
body{font-size:10pt}
header,main,footer{max-width:none;padding:0}
header{padding-top:0}
nav,.skip{display:none}
section{border:0;border-radius:0;padding:0;margin:0 0 1.4rem}
h2{border-bottom:1.5px solid var(--axis);padding-bottom:.2rem}
h2,h3,caption,summary{break-after:avoid}
.card,.grid>div,svg,tr,.facts>div{break-inside:avoid}
details:not([open]){display:none}
.scroll{overflow:visible}th:first-child,caption span{position:static}
table{font-size:8pt}th,td{white-space:normal;padding-right:.5rem}
pre{white-space:pre-wrap}
}
)css";
}

}  // namespace pare
