// The one EventSource of a page: numbers and ages change in place; order, scroll and focus never do.
"use strict";
const $ = s => document.querySelector(s), $$ = s => [...document.querySelectorAll(s)], body = document.body.dataset;
const skew = Number(body.now) - Date.now(), now = () => Date.now() + skew;
const set = (id, text) => { const e = document.getElementById(id); if (e && e.textContent !== text) e.textContent = text; };
const kw = w => w === null || w === undefined ? "–" : (w / 1000).toLocaleString("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });
const ago = ms => { const s = Math.max(0, Math.round(ms / 1000)); return s < 60 ? `${s} s` : s < 3600 ? `${Math.floor(s / 60)} min` : s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`; };
let at = 0, heard = Date.now(), wait = 1, source = null;

$("#theme")?.addEventListener("click", e => {
  e.preventDefault();
  const dark = (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", document.documentElement.dataset.theme); } catch { /* private mode */ }
});

function figures(f) {
  at = f.at;
  set("load", kw(f.load_w)); set("export", kw(f.export_w));
  set("heard", f.meters ? `${f.heard} / ${f.meters}` : "–");
  set("readings", String(f.readings_per_s)); set("charges", String(f.charges_per_s));
  set("delay", f.delay_p50_ms === null ? "–" : `${f.delay_p50_ms} / ${f.delay_max_ms}`);
  set("letters-count", String(f.dead_letters));
  const top = new Map(f.top.map(r => [r.id, r]));
  for (const tr of $$("#top tr[data-meter]")) {
    const r = top.get(tr.dataset.meter);
    if (r) { tr.querySelector("[data-w]").textContent = (r.w / 1000).toFixed(2); if (r.money) tr.querySelector("[data-money]").textContent = `${r.money} ${r.currency}`; }
  }
  for (const p of [1, 2, 3, 4]) {
    set(`count-${p}`, String(f.alarms.filter(a => a.priority === p && a.state === "unacknowledged").length));
    set(`active-${p}`, String(f.alarms.filter(a => a.priority === p).length));
  }
  const shown = new Set($$("#alarm-rows tr[data-alarm]").map(r => r.dataset.alarm));
  const fresh = f.alarms.filter(a => !shown.has(String(a.id))).length, button = $("#new-alarms");
  if (button) { button.hidden = !fresh; if (fresh) button.textContent = `${fresh} ${body.new}`; }
  const meter = $("[data-meter-page]")?.dataset.meterPage, mine = meter && top.get(meter);
  if (mine) set("power", (mine.w / 1000).toFixed(2));
}

async function rows() {                        // only when the person asks: new rows, new order
  const text = await (await fetch(location.pathname)).text(), page = new DOMParser().parseFromString(text, "text/html");
  for (const id of ["alarm-rows", "top", "chart", "letters"]) { const e = document.getElementById(id), n = page.getElementById(id); if (e && n) e.replaceChildren(...n.childNodes); }
  const b = $("#new-alarms"); if (b) b.hidden = true;
}
$("#new-alarms")?.addEventListener("click", rows);
document.addEventListener("keydown", e => { if (e.key === "r" && !e.target.closest("input,textarea,select") && !e.ctrlKey && !e.metaKey && !e.altKey && $("[data-room]")) rows(); });

function connect() {
  source = new EventSource(`/stream?from=${at}`);
  source.addEventListener("figures", e => { heard = Date.now(); wait = 1; figures(JSON.parse(e.data)); });
  source.onerror = () => { source.close(); setTimeout(connect, 1000 * wait * (0.5 + Math.random())); wait = Math.min(30, wait * 2); };
}
async function chart() {                       // the curve's right end: once a minute, the picture alone
  const e = $("#chart"); if (!e || document.hidden) return;
  try { const page = new DOMParser().parseFromString(await (await fetch(location.pathname)).text(), "text/html"), n = page.getElementById("chart"); if (n) e.replaceChildren(...n.childNodes); } catch { /* the banner says it */ }
}
setInterval(chart, 60000);
setInterval(() => {
  const quiet = Date.now() - heard, off = quiet > 20000, gone = quiet > 60000;
  set("clock", new Date(now()).toLocaleTimeString("sv"));
  for (const e of $$("[data-age]")) e.textContent = at ? ago(now() - at) : "–";
  for (const e of $$("[data-since]")) e.textContent = ago(now() - Number(e.dataset.since));
  for (const e of $$("[data-live-panel]")) { e.classList.toggle("stale", off); e.classList.toggle("gone", gone); }
  const live = $("#live"); live.classList.toggle("off", off);
  live.textContent = off ? `${body.stale} ${new Date(heard + skew).toLocaleTimeString("sv")}` : body.live;
  const banner = $("#banner"); banner.hidden = !gone; if (gone) banner.textContent = live.textContent;
}, 1000);
if ($("[data-room],[data-meter-page]")) connect();
