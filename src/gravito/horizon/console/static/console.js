// The console without this file works: pages load, forms post. This adds live values, local times and some comfort.
"use strict";
(() => {
  const link = document.getElementById("link");
  const said = document.getElementById("link-text");

  function state(name, text) {
    if (!link || link.dataset.state === name) return; // a screen reader hears changes only
    link.dataset.state = name;
    said.textContent = text;
  }

  // -- times ---------------------------------------------------------------------------------------------------
  const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
  function localTimes(root) {
    for (const time of root.querySelectorAll("time[datetime]:not([title])")) {
      time.title = time.textContent;
      time.textContent = format.format(new Date(time.dateTime));
    }
  }

  // -- behaviours of attributes --------------------------------------------------------------------------------
  function here(root) {
    for (const field of root.querySelectorAll("[data-here]")) field.value = location.pathname + location.search;
  }

  document.addEventListener("change", (event) => {
    const box = event.target;
    if (box.matches("[data-select-all]")) {
      const form = box.closest("form");
      for (const one of form.querySelectorAll("input[type=checkbox][name=job]")) one.checked = box.checked;
      counted(form);
    } else if (box.matches("input[type=checkbox][name=job]")) {
      counted(box.closest("form"));
    } else if (box.matches("[data-submit]")) {
      box.form.requestSubmit();
    }
  });

  function counted(form) {
    const place = form && form.querySelector("[data-count]");
    if (place) place.textContent = form.querySelectorAll("input[name=job]:checked").length;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    await navigator.clipboard.writeText(button.dataset.copy);
    const before = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1200);
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !window.confirm(question)) { event.preventDefault(); return; }
    const button = event.submitter; // no second post by a second click
    if (button) setTimeout(() => { button.disabled = true; setTimeout(() => { button.disabled = false; }, 5000); });
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, textarea, select")) return;
    const field = document.querySelector("input[type=search]");
    if (field) { event.preventDefault(); field.focus(); }
  });

  // -- charts: the value under the pointer, also below the chart -------------------------------------------------
  document.addEventListener("pointerover", (event) => {
    const hit = event.target.closest && event.target.closest(".hit");
    if (!hit) return;
    tell(hit);
  });

  function tell(hit) {
    const figure = hit.closest("figure");
    let tip = figure.querySelector(".tip");
    if (!tip) {
      tip = document.createElement("figcaption");
      tip.className = "tip";
      tip.setAttribute("aria-live", "polite");
      figure.append(tip);
    }
    for (const one of figure.querySelectorAll(".hit.at")) one.classList.remove("at");
    hit.classList.add("at");
    tip.textContent = hit.querySelector("title").textContent;
  }

  document.addEventListener("keydown", (event) => { // the same by keys
    if (!event.target.matches("figure.chart")) return;
    const hits = [...event.target.querySelectorAll(".hit")];
    const at = hits.findIndex((hit) => hit.classList.contains("at"));
    const last = hits.length - 1;
    const next = { ArrowLeft: at < 0 ? last : Math.max(0, at - 1), ArrowRight: Math.min(last, at + 1), Home: 0, End: last }[event.key];
    if (next === undefined || !hits[next]) return;
    event.preventDefault();
    tell(hits[next]);
  });

  // -- live values -----------------------------------------------------------------------------------------------
  const plain = new Set(["d", "width"]); // attributes that a value may go to
  let elements = new Map();

  function collect() {
    elements = new Map();
    for (const one of document.querySelectorAll("[data-key]")) {
      const known = elements.get(one.dataset.key);
      if (known) known.push(one); else elements.set(one.dataset.key, [one]);
    }
  }

  function show(values) {
    for (const [key, value] of Object.entries(values)) {
      for (const one of elements.get(key) || []) {
        const to = one.dataset.to;
        if (to) {
          if (plain.has(to)) one.setAttribute(to, value);
        } else if (one.textContent !== value) {
          one.textContent = value;
          one.classList.toggle("zero", value === "0");
        }
      }
    }
    if (values.shape !== undefined) wanted = values.shape;
    follow();
  }

  // -- a search goes on by itself until a page is full: each answer is of a part of the jobs ---------------------
  async function seek(place, first) {
    let at = first;
    place.setAttribute("aria-busy", "true"); // a screen reader hears the end of it
    while (at && place.isConnected) {
      const answer = await fetch(at, { headers: { accept: "text/html" }, credentials: "same-origin" }).catch(() => null);
      const found = answer && answer.ok && !answer.redirected && parsed(await answer.text()).getElementById("found");
      const rows = place.querySelector("tbody");
      if (!found || (rows ? place.querySelector(".pager") : place).contains(document.activeElement)) break; // the link stays
      localTimes(found);
      if (rows) {
        const more = found.querySelector("tbody");
        if (more) rows.append(...more.children);
        place.querySelector(".pager").replaceWith(found.querySelector(".pager"));
        const seen = place.querySelector("[data-seen]");
        if (seen) seen.textContent = found.dataset.seen;
      } else {
        place.replaceChildren(...found.childNodes);
        here(place);
      }
      const number = place.querySelectorAll("tbody tr").length;
      const told = place.querySelector("[data-found]");
      if (told) told.textContent = number;
      at = number < Number(found.dataset.size) ? found.dataset.seek : null;
    }
    place.removeAttribute("aria-busy");
  }

  async function find(place) {
    const link = [...place.childNodes]; // not to be focused while it goes away
    place.textContent = "Looking ...";
    await seek(place, place.dataset.find);
    if (!place.firstElementChild) place.replaceChildren(...link);
  }

  function sought(root) {
    root.querySelectorAll("[data-find]").forEach(find);
    for (const place of root.querySelectorAll("#found[data-seek]")) seek(place, place.dataset.seek);
  }

  function parsed(text) {
    return new DOMParser().parseFromString(text, "text/html");
  }

  let wanted; // the shape that was said last, until the page has it: it is said once, and may come at a bad moment
  function follow() {
    const main = document.getElementById("main");
    if (wanted !== undefined && main.dataset.shape !== undefined && wanted !== main.dataset.shape) anew(main, wanted);
  }

  const pause = 5000; // ms, at least, between two readings of the page
  let reading = false;
  let readAt = performance.now();
  async function anew(main, shape) {
    // A row has come or gone. Whoever is typing or choosing just now is not disturbed.
    if (reading || main.contains(document.activeElement) && document.activeElement !== main) return;
    if (main.querySelector("input[type=checkbox]:checked, figure.chart:hover")) return;
    if (performance.now() - readAt < pause * (1 + Math.random())) return; // open pages do not all ask at once
    reading = true;
    readAt = performance.now();
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html", "x-live": "1" }, credentials: "same-origin" });
      if (!answer.ok || answer.redirected) return;
      const page = parsed(await answer.text()).getElementById("main");
      const open = new Set([...main.querySelectorAll("details[open]")].map((_, index) => index));
      main.replaceChildren(...page.childNodes);
      main.dataset.shape = page.dataset.shape || shape;
      [...main.querySelectorAll("details")].forEach((one, index) => { if (open.has(index)) one.open = true; });
      prepare(main);
    } finally {
      reading = false;
    }
  }

  function prepare(root) {
    localTimes(root);
    here(root);
    collect();
    sought(root);
  }

  function listen(address) {
    const events = new EventSource(address);
    setInterval(follow, 1000);
    const take = (event) => { state("live", "live"); show(JSON.parse(event.data)); };
    events.addEventListener("all", take);
    events.addEventListener("some", take);
    events.addEventListener("away", (event) => state("away", "No figures: " + JSON.parse(event.data).why));
    events.addEventListener("error", () => {
      // Each answer ends after half a minute, and the browser asks anew; only a refusal is the end.
      if (events.readyState === EventSource.CLOSED) { state("away", "not live; load the page again"); events.close(); }
      else setTimeout(() => { if (events.readyState !== EventSource.OPEN) state("away", "connection lost"); }, 4000);
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && events.readyState === EventSource.CLOSED) location.reload();
    });
  }

  prepare(document);
  const onward = document.querySelector("form[data-onward]"); // long work: the next part of it
  if (onward) onward.requestSubmit();
  if (document.body.dataset.live) listen(document.body.dataset.live);
})();
