"use strict";
// Actions on alarms: each form posts to the REST interface with the name that was typed, then the page is read again.
(() => {
  const desk = document.getElementById("desk");
  if (!desk) return;
  const who = document.getElementById("who"), said = desk.querySelector("[data-said]");
  try { who.value = localStorage.getItem("user") || ""; } catch { /* kept nowhere */ }
  for (const one of [desk, ...desk.querySelectorAll("form[hidden]")]) one.hidden = false;
  for (const box of desk.querySelectorAll("input[type=checkbox]")) box.disabled = false;
  const bodyOf = form => {
    const values = Object.fromEntries(new FormData(form));
    delete values.user;
    switch (form.dataset.act) {
      case "acknowledge": {
        const chosen = form.dataset.alarm ? [form.dataset.alarm] : [...desk.querySelectorAll("input[name=alarm]:checked")].map(box => box.value);
        return { alarm_ids: chosen.map(Number), note: values.note || "" };
      }
      case "shelve": return { reason: values.reason, minutes: values.minutes ? Number(values.minutes) : null };
      case "assign": return { to: values.to || null };
      case "unshelve": return null;
      default: return { text: values.text };
    }
  };
  desk.addEventListener("submit", async event => {
    event.preventDefault();
    const form = event.target, act = form.dataset.act, body = bodyOf(form);
    if (!who.reportValidity()) return;
    if (act === "acknowledge" && !body.alarm_ids.length) return;
    try { localStorage.setItem("user", who.value); } catch { /* asked again next time */ }
    const path = act === "acknowledge" ? "/api/v1/alarms/acknowledge" : `/api/v1/alarms/${form.dataset.alarm}/${act}`;
    try {
      const answer = await fetch(path, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Gridtally-User": who.value },
        body: body === null ? undefined : JSON.stringify(body),
      });
      if (answer.ok) { location.reload(); return; }
      const problem = await answer.json();
      said.textContent = typeof problem.detail === "string" ? problem.detail : JSON.stringify(problem.detail);
    } catch (error) {
      said.textContent = String(error);
    }
  });
})();
