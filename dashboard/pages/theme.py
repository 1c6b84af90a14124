"""Style of the pages, light and dark: Streamlit's theme options, and our own rules."""

from __future__ import annotations

THEME = {
    "theme.light.primaryColor": "#1756c2",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f4f5f7",
    "theme.light.textColor": "#1c2128",
    "theme.light.borderColor": "#d5d9df",
    "theme.dark.primaryColor": "#6cb0ff",
    "theme.dark.backgroundColor": "#14171c",
    "theme.dark.secondaryBackgroundColor": "#1f242b",
    "theme.dark.textColor": "#e8eaed",
    "theme.dark.borderColor": "#3a414b",
    "theme.baseFontSize": 15,
    "theme.headingFontSizes": ["1.6rem", "1.25rem", "1.05rem"],
    "theme.showWidgetBorder": True,
}
"""Option to value, for ``streamlit.config.set_option``."""

STYLE = """<style>
.stMainBlockContainer { padding-top: 4.2rem; padding-bottom: 2rem; max-width: 100rem; }
/* The names of the pages begin where the pages begin, which Streamlit sets further in on wide screens. */
@media (min-width: calc(736px + 8rem)) { .stAppHeader { padding-left: calc(max(0px, (100vw - 100rem) / 2) + 4rem); } }
.wd-foot { font-size: 0.8rem; opacity: 0.85; margin-top: 1rem; }
.wd-weak { color: color-mix(in srgb, var(--wd-text) 74%, var(--wd-back)); }
.wd { --wd-text: currentColor; font-size: 0.925rem; line-height: 1.5; }
.wd h1 { font-size: 1.35rem; font-weight: 600; margin: 0; padding: 0; overflow-wrap: anywhere; }
.wd h2.name { font-size: 1.2rem; margin: 0 0 0.2rem; overflow-wrap: anywhere; }
.wd h2 { font-size: 1.05rem; font-weight: 600; margin: 1.2rem 0 0.4rem; padding: 0; }
.wd h3 { font-size: 0.925rem; font-weight: 600; margin: 0.9rem 0 0.2rem; padding: 0; }
.wd p { margin: 0 0 0.4rem; }
.wd code { font-size: 0.86em; overflow-wrap: anywhere; background: none; color: inherit; padding: 0; }
.wd .scroll { overflow-x: auto; }
.wd-metrics table { table-layout: fixed; min-width: 50rem; }
.wd-metrics th:nth-child(1) { width: 21%; } .wd-metrics th:nth-child(2) { width: 15%; }
.wd-metrics th:nth-child(4) { width: 19%; }
.wd table { border-collapse: collapse; width: 100%; margin: 0.2rem 0 0.8rem; }
.wd th, .wd td { text-align: left; vertical-align: top; padding: 0.32rem 0.9rem 0.32rem 0; border: 0;
  border-bottom: 1px solid rgb(128 128 128 / 28%); }
.wd th { font-weight: 600; }
.wd thead th { white-space: nowrap; font-size: 0.85rem; }
.wd .narrow table { width: auto; min-width: min(34rem, 100%); }
.wd .n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.wd .s { white-space: nowrap; }
.wd .w { overflow-wrap: break-word; min-width: 9rem; }
.wd .narrow .w { min-width: 0; }
.wd .w bdi { overflow-wrap: anywhere; }
.wd .chip { display: inline-block; padding: 0 0.55rem; border-radius: 1rem; font-size: 0.82rem; line-height: 1.55;
  white-space: nowrap; border: 1px solid rgb(128 128 128 / 40%); }
.wd .chip.green { color: #0b5d3b; background: #e6f6ed; }
.wd .chip.orange { color: #8a3d0f; background: #fdf0e3; }
.wd .chip.red { color: #97262f; background: #fdebec; }
.wd .chip.blue { color: #1c4ea8; background: #e9f1fd; }
.wd .chip.grey { color: #4c535c; background: #f0f1f3; }
/* The page's menu, on wide and on narrow screens. */
:is([data-testid^="stTopNav"], [data-testid^="stSidebarNav"], [data-testid^="stSidebarCollapse"],
  [data-testid="stExpandSidebarButton"]):is(a, button):focus-visible,
:is([data-testid="stHeader"], [data-testid="stSidebar"]) :is(a, button):focus-visible {
  outline: 2px solid currentColor !important; outline-offset: 2px; }
@media (max-width: 640px) {
  /* Facts: each name above its value. */
  .wd table:not(:has(thead)), .wd table:not(:has(thead)) :is(tbody, tr, th, td) { display: block; width: auto; }
  .wd table:not(:has(thead)) th { border: 0; padding: 0.4rem 0 0; }
  .wd table:not(:has(thead)) td { padding: 0 0 0.4rem; }
  /* Other tables are read by moving them to the side. */
  .wd .scroll:not(.narrow) table:has(thead) { width: max-content; max-width: 60rem; }
}
@supports (color: light-dark(red, red)) {
  .wd .chip.green { color: light-dark(#0b5d3b, #86dcae); background: light-dark(#e6f6ed, #14352a); }
  .wd .chip.orange { color: light-dark(#8a3d0f, #f3b27a); background: light-dark(#fdf0e3, #3d2815); }
  .wd .chip.red { color: light-dark(#97262f, #ff9fa6); background: light-dark(#fdebec, #4a2025); }
  .wd .chip.blue { color: light-dark(#1c4ea8, #97c2ff); background: light-dark(#e9f1fd, #1c3152); }
  .wd .chip.grey { color: light-dark(#4c535c, #c9ced6); background: light-dark(#f0f1f3, #2b3138); }
}
</style>"""
"""For ``st.html``. A browser without ``light-dark`` shows chips in their light colours in the dark theme as well."""
