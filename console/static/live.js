// The one EventSource of a page. Numbers, ages and states change in place; order, scroll and focus never do: new rows and a
// new order come when the person asks (the button, or the key r), except for alarms of priority 1, which enter at once.
"use strict";

const told = document.body.dataset, words = JSON.parse(told.words), main = document.getElementById("main");
const QUIET_MS = 20000, GONE_MS = 40000, RETRY_MAX_S = 30, SPEAK_EVERY_MS = 10000, CHART_EVERY_MS = 60000;
const byId = id => document.getElementById(id), all = (css, inside = document) => [...inside.querySelectorAll(css)];
const put = (element, text) => { if (element && element.textContent !== text) element.textContent = text; };
const remember = (name, value) => { document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=strict`; };

let skew = Number(told.now) - Date.now();      // the server's clock against ours
let heardAt = performance.now(), isLost = false, limitMs = Number(told.limit), wait = 1, number = -1, ages = {}, latest = null;
const now = () => Date.now() + skew;
const clockOf = ms => new Date(ms).toLocaleTimeString("sv", { timeZone: told.zone });

function span(ms) {                            // as console/figure.py writes it
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 172800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86400)} d`;
}

// -- what the stream says --------------------------------------------------------------------------------------------

function takeFigures(figures) {
  latest = figures; number = figures.id; ages = figures.ages; limitMs = figures.stale_after_ms; skew = figures.at - Date.now();
  for (const [id, text] of Object.entries(figures.text)) put(byId(id), text);
  for (const p of [1, 2, 3, 4]) {              // no colour without an alarm; filled while one is unacknowledged
    const link = byId(`active-${p}`).closest("a");
    link.classList.toggle("none", ["0", "–"].includes(figures.text[`active-${p}`]));
    link.querySelector(".pr").classList.toggle("ack", figures.text[`unacked-${p}`] === "0");
  }
  const top = new Map(figures.top.map(row => [row.id, row]));
  for (const tr of all("#top tr[data-meter]")) {
    const row = top.get(tr.dataset.meter);
    if (!row) continue;                        // it left the list: its age goes on
    put(tr.querySelector("[data-kw]"), row.kw);
    put(tr.querySelector("[data-money]"), row.currency ? `${row.money} ${words.units[row.currency] ?? row.currency}` : row.money);
    tr.querySelector("[data-since]").dataset.since = row.at;
  }
  for (const stage of figures.stages) {
    const tr = document.querySelector(`#stages [data-stage="${stage.name}"]`);
    if (!tr) continue;
    for (const name of ["lag", "waiting", "done"]) put(tr.querySelector(`[data-${name}]`), stage[name]);
    tr.querySelector("[data-behind]").hidden = !stage.behind;
  }
  const letters = byId("new-letters");
  if (letters) letters.hidden = byId("letters-body").dataset.count === figures.text["letters-count"];
  takeAlarms(figures.alarms);
}

function takeAlarms(alarms) {
  const rows = byId("alarm-rows"), button = byId("new-alarms");
  const fresh = rows ? alarms.filter(a => !rows.querySelector(`[data-alarm="${a.alarm_id}"]`)) : [];
  if (button) { button.hidden = !fresh.length; put(button, fresh.length ? `${fresh.length} ${words.new_rows}` : ""); }
  if (fresh.some(a => a.priority === 1)) insertCritical(fresh.filter(a => a.priority === 1).map(a => String(a.alarm_id)));
  for (const alarm of rows ? alarms : []) {    // a state that changed, in the row's own place
    const tr = rows.querySelector(`[data-alarm="${alarm.alarm_id}"]`), state = tr?.querySelector("[data-state]");
    if (state && state.dataset.state !== alarm.state) copyRow(tr, alarm.alarm_id);
  }
  speak(alarms.find(a => a.state === "unacknowledged"));
}

let spokenAt = 0, spoken = null;
function speak(alarm) {                        // the newest unacknowledged alarm only, now and then
  if (spoken === null) { spoken = alarm?.alarm_id ?? 0; return; }
  if (!alarm || alarm.alarm_id === spoken || Date.now() - spokenAt < SPEAK_EVERY_MS) return;
  spoken = alarm.alarm_id; spokenAt = Date.now();
  put(byId("say"), `${alarm.subject} ${words.kinds[alarm.kind] ?? alarm.kind}`);
}

function takeMeter(row) {                      // a meter's page: a newer reading renews the figures, not the lists
  if (!row || row.id !== main.dataset.meterPage || row.at <= Number(main.dataset.at)) return;
  main.dataset.at = row.at;
  refresh(main.dataset.parts.split(" "));
  const button = byId("new-intervals");
  if (button) button.hidden = false;
}

// -- fragments: the server draws, this only puts them in place -----------------------------------------------------------

async function fetchPage(address = location.pathname + location.search) {
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (!answer.ok) throw new Error(answer.status);
  return new DOMParser().parseFromString(await answer.text(), "text/html");
}

async function refresh(ids) {
  let page;
  try { page = await fetchPage(); } catch { return false; }
  for (const id of ids) {
    const old = byId(id), fresh = page.getElementById(id);
    if (!old || !fresh) continue;
    const held = old.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    const open = all("details", old).map(e => e.open);
    old.replaceChildren(...fresh.childNodes);
    for (const name of Object.keys(fresh.dataset)) old.dataset[name] = fresh.dataset[name];
    all("details", old).forEach((e, place) => { e.open = open[place] ?? false; });
    if (held) all("a", old).find(e => e.getAttribute("href") === held)?.focus({ preventScroll: true });
  }
  reveal();
  return true;
}

async function refreshLists() {
  const done = await refresh((main.dataset.refresh ?? "").split(" "));
  if (!done) return say(words.refresh_failed);
  for (const id of ["new-alarms", "new-intervals", "new-letters"]) { const e = byId(id); if (e) e.hidden = true; }
}

async function copyRow(tr, id) {
  const fresh = await fetchPage().then(page => page.querySelector(`[data-alarm="${id}"]`)).catch(() => null);
  if (fresh && !tr.contains(document.activeElement)) { tr.className = fresh.className; tr.replaceChildren(...fresh.childNodes); }
}

let inserting = false;
async function insertCritical(ids) {           // on top; under a hand in the list its rows stay where they are
  if (inserting) return;
  inserting = true;
  const page = await fetchPage().catch(() => null), rows = byId("alarm-rows"), first = rows.firstElementChild;
  const before = first.getBoundingClientRect().top;
  for (const id of page ? ids : []) {
    const fresh = page.querySelector(`[data-alarm="${id}"]`);
    if (fresh && !rows.querySelector(`[data-alarm="${id}"]`)) rows.prepend(fresh);
  }
  if (rows.matches(":hover,:focus-within")) scrollBy({ top: first.getBoundingClientRect().top - before, behavior: "instant" });
  inserting = false;
}

// -- ages, and what is stale -----------------------------------------------------------------------------------------------

function say(text) { const banner = byId("banner"); banner.hidden = !text; put(banner, text); }

function tick() {
  const quietMs = performance.now() - heardAt, lost = quietMs > QUIET_MS, live = byId("live");
  const since = clockOf(now() - quietMs);
  put(byId("clock"), clockOf(now()));
  live.classList.toggle("off", lost || number < 0);
  put(live, lost ? `${words.stale_since} ${since}` : number < 0 ? "…" : words.live);
  if (quietMs > QUIET_MS + GONE_MS) { isLost = true; say(`${words.stream_lost} ${since}`); }
  for (const e of all("[data-since]")) put(e, span(now() - Number(e.dataset.since)));
  if (number < 0 && !lost) return;             // nothing came yet: what the server wrote stands
  for (const e of all("[data-source]")) {
    const age = ages[e.dataset.source] ? now() - ages[e.dataset.source] : Infinity;
    const limit = Number(e.dataset.limit ?? limitMs);
    e.classList.toggle("stale", lost || age > limit);
    e.classList.toggle("gone", quietMs > QUIET_MS + GONE_MS || age > limit + GONE_MS);
  }
  for (const e of all("[data-age]")) {
    const at = ages[e.dataset.age], panel = e.closest("[data-source]");
    const stale = panel?.classList.contains("stale") && e.dataset.age === panel.dataset.source;
    put(e, !at ? words.missing : stale ? `${words.stale_since} ${clockOf(at)}` : span(now() - at));
  }
}

function connect() {
  const meter = main.dataset.meterPage ? `&meter=${encodeURIComponent(main.dataset.meterPage)}` : "";
  const source = new EventSource(`/stream?from=${number}${meter}`);
  source.addEventListener("figures", event => {
    if (isLost) { isLost = false; say(""); }
    heardAt = performance.now(); wait = 1;
    takeFigures(JSON.parse(event.data));
    tick();
  });
  source.addEventListener("meter", event => takeMeter(JSON.parse(event.data)));
  source.onerror = () => {                     // ours, not the browser's: with the number, a growing wait, and jitter
    source.close();
    setTimeout(connect, 1000 * wait * (0.5 + Math.random()));
    wait = Math.min(RETRY_MAX_S, wait * 2);
  };
  addEventListener("pagehide", () => source.close(), { once: true });
}

// -- what the person does ----------------------------------------------------------------------------------------------------

function reveal() {                            // controls that do nothing without this script
  for (const e of all("[data-refresh-now]:not([id])")) e.hidden = false;
  byId("still").hidden = !document.querySelector(".blink");
}

document.addEventListener("click", event => {
  if (event.target.closest("[data-refresh-now]")) refreshLists();
});
document.addEventListener("keydown", event => {
  if ("keysOff" in told || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input,textarea,select")) return;
  if (event.key === "r" && main.dataset.refresh) refreshLists();
  if (event.key === "/") { event.preventDefault(); byId("q").focus(); }
});
byId("keys").addEventListener("change", event => {
  if (event.target.checked) delete told.keysOff; else told.keysOff = "";
  remember("keys", event.target.checked ? 1 : 0);
});
byId("still").addEventListener("click", event => {
  const still = document.documentElement.toggleAttribute("data-still");
  event.currentTarget.setAttribute("aria-pressed", still);
  remember("still", still ? 1 : 0);
});
byId("theme").addEventListener("click", event => {
  event.preventDefault();
  const root = document.documentElement.dataset;
  root.theme = (root.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark" ? "light" : "dark";
  remember("theme", root.theme);
});
document.addEventListener("toggle", async event => {   // the raw message, where its details are opened
  const details = event.target, address = details.dataset?.raw;
  if (!address || !details.open || details.querySelector("pre")) return;
  const pre = await fetchPage(address).then(page => page.getElementById("payload")).catch(() => null);
  if (pre) { pre.removeAttribute("id"); details.append(pre); } else location.href = address;
}, true);
document.addEventListener("click", event => {
  const details = event.target.closest("summary")?.parentElement;
  if (details?.dataset.raw && event.target.closest("a")) { event.preventDefault(); details.open = !details.open; }
});

reveal();
setInterval(tick, 1000);
setInterval(() => { if (byId("load-panel") && !document.hidden) refresh(["chart"]); }, CHART_EVERY_MS);
connect();
