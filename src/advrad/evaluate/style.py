"""The look of a report: one style sheet, light and dark, on screen and on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --page: #ffffff;
  --card: #f6f8fa; --line: #d8dee4; --accent: #0072b2; --good: #1a7f37; --bad: #b42318;
  --unsure: #8a5a00; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa4af; --page: #0f1318; --card: #181d24; --line: #303841;
    --accent: #58a6e8; --good: #4ac26b; --bad: #ff8a7a; --unsure: #e3b341; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui,
  -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 28px; }
header { padding-top: 44px; }
.name { margin: 0; color: var(--soft); font-size: 15px; font-weight: 600; letter-spacing: .01em; }
.finding { margin: 8px 0 0; font-size: 27px; line-height: 1.32; font-weight: 600;
  letter-spacing: -.012em; max-width: 34em; text-wrap: pretty; }
nav { margin-top: 18px; display: flex; flex-wrap: wrap; gap: 4px 20px; font-size: 14px; }
a { color: var(--accent); text-underline-offset: 3px; }
h2 { margin: 46px 0 12px; padding-top: 14px; border-top: 1px solid var(--line); font-size: 20px;
  line-height: 1.3; letter-spacing: -.01em; }
p { margin: 10px 0; max-width: 46em; }
bdi { overflow-wrap: anywhere; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 12px;
  margin: 26px 0 8px; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 13px 16px 12px; }
.facts dt { color: var(--soft); font-size: 13px; }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.facts .value { font-size: 26px; font-weight: 650; letter-spacing: -.015em; line-height: 1.35; }
.facts .note { color: var(--soft); font-size: 12.5px; line-height: 1.4; }
.figures { display: flex; flex-wrap: wrap; gap: 20px; margin: 16px 0; }
.figures figure { margin: 0; flex: 1 1 400px; min-width: 0; max-width: 600px; display: flex;
  flex-direction: column; }
.figures .frame { background: #fff; border: 1px solid var(--line); border-radius: 10px;
  padding: 12px; }
.figures img { display: block; width: 100%; height: auto; max-height: 430px; }
figcaption, caption { color: var(--soft); font-size: 13.5px; line-height: 1.45; }
.figures figcaption { margin-top: 7px; max-width: 46em; }
.scroll { overflow-x: auto; margin: 16px 0; }
table { border-collapse: collapse; min-width: min(100%, 640px); font-size: 14.5px;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 0 0 8px; }
th, td { text-align: left; padding: 7px 22px 7px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
thead th { color: var(--soft); font-size: 13px; font-weight: 600; vertical-align: bottom; }
tbody th { font-weight: 500; min-width: 8.5em; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
.gallery { list-style: none; margin: 14px 0; padding: 0; display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(480px, 1fr)); }
.gallery li { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 12px 14px 10px; break-inside: avoid; min-width: 0; }
.gallery .row { display: flex; flex-wrap: wrap; align-items: baseline; gap: 2px 10px;
  margin-bottom: 9px; font-size: 14px; }
.gallery .file { font-weight: 600; }
.gallery .soft { color: var(--soft); font-size: 13px; font-variant-numeric: tabular-nums; }
.gallery .pictures { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
.gallery .pictures:has(:nth-child(5)) { grid-template-columns: repeat(5, 1fr); }
.gallery:has(.pictures > :nth-child(5)) { grid-template-columns: 1fr; }
.gallery figure { margin: 0; min-width: 0; }
.gallery img { display: block; width: 100%; height: auto; border-radius: 5px; }
.gallery figcaption { font-size: 12px; margin-top: 3px; }
.badge { font-size: 12px; font-weight: 700; letter-spacing: .03em; padding: 1px 8px;
  border-radius: 99px; border: 1.5px solid currentColor; white-space: nowrap; }
.badge.ng { color: var(--bad); } .badge.ok { color: var(--good); }
.badge.unsure { color: var(--unsure); }
.remark { color: var(--bad); font-size: 13px; font-weight: 600; }
.scale { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 10px; margin: 12px 0;
  font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums; }
.scale img { width: 220px; height: 12px; border-radius: 3px; border: 1px solid var(--line); }
details { margin: 14px 0; } summary { cursor: pointer; font-weight: 600; }
footer { margin-top: 52px; padding-top: 14px; padding-bottom: 40px; color: var(--soft);
  font-size: 13px; }
@media (max-width: 560px) { main, header, footer { padding-left: 16px; padding-right: 16px; }
  .finding { font-size: 22px; } .gallery { grid-template-columns: 1fr; }
  .gallery .pictures, .gallery .pictures:has(:nth-child(5)) {
    grid-template-columns: repeat(2, 1fr); } }
@media print {
  :root { color-scheme: light; --ink: #000; --soft: #444; --page: #fff; --card: #fff;
    --line: #bbb; --accent: #000; --good: #1a7f37; --bad: #b42318; --unsure: #8a5a00; }
  body { font-size: 10.5pt; } header { padding-top: 0; } nav { display: none; }
  main, header, footer { max-width: none; padding-left: 0; padding-right: 0; }
  h2, caption, thead { break-after: avoid; } figure, tr, .facts div { break-inside: avoid; }
  .facts { grid-template-columns: repeat(5, 1fr); gap: 6px; } .facts div { padding: 7px 9px; }
  .facts .value { font-size: 16pt; } .gallery figcaption { font-size: 7pt; }
  .scroll { overflow: visible; break-inside: avoid; }
  details::details-content { content-visibility: visible; display: block; height: auto; }
  .finding { font-size: 17pt; } .gallery { grid-template-columns: 1fr 1fr; gap: 8px; }
  .figures figure { flex-basis: 45%; } .gallery img { print-color-adjust: exact; } }
"""
