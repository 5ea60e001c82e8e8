// Keeps a page fresh: an event says that something changed, and the page asks for its live parts again.
// Without this script the page reloads every 15 seconds instead.
"use strict";
(() => {
  const source = document.getElementById("main").dataset.live;
  const banner = document.getElementById("stream-down");
  const pause = document.getElementById("pause");
  const DOWN_AFTER = 10_000, ASK_ANYWAY = 15_000, CONNECT_AGAIN = 3_000;
  let stream, heard = Date.now(), asked = 0, asking = false, again = false, paused = false;

  // Text somebody is typing must not vanish under their hands.
  const inUse = (part) =>
    part.contains(document.activeElement) && document.activeElement.matches("input, textarea") ||
    [...part.querySelectorAll("input")].some((input) => input.value !== input.defaultValue);

  function show(html) {
    const fresh = new DOMParser().parseFromString(html, "text/html");
    for (const text of fresh.querySelectorAll("[data-keep]")) {
      const old = document.getElementById(text.id);
      if (old && old.textContent !== text.textContent) old.textContent = text.textContent;
    }
    const focused = document.activeElement?.id;
    for (const part of fresh.querySelectorAll("[data-swap]")) {
      const old = document.getElementById(part.id);
      if (!old || inUse(old) || old.innerHTML === part.innerHTML) continue;
      for (const details of old.querySelectorAll("details[open][id]")) {
        part.querySelector("#" + CSS.escape(details.id))?.setAttribute("open", "");
      }
      old.replaceWith(part);
    }
    const tone = fresh.querySelector("[data-tone]");
    if (tone) document.getElementById(tone.id).className = tone.className;
    if (focused && document.activeElement?.id !== focused) {
      document.getElementById(focused)?.focus({ preventScroll: true });
    }
  }

  async function refresh() {
    if (paused || asking) { again = asking; return; }
    asking = true;
    asked = Date.now();
    try {
      const answer = await fetch(source, { headers: { accept: "text/html" }, cache: "no-store" });
      if (answer.redirected) location.reload(); // signed out meanwhile
      else if (answer.ok) { show(await answer.text()); heard = Date.now(); }
    } catch { /* the banner says it */ }
    asking = false;
    if (again) { again = false; setTimeout(refresh, 500); }
  }

  function connect() {
    stream?.close();
    stream = new EventSource("/events");
    stream.onopen = () => { heard = Date.now(); };
    stream.addEventListener("changed", () => { heard = Date.now(); refresh(); });
  }

  function words(seconds) {
    const [d, h, m, s] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, seconds % 60];
    return d ? `${d} day${d > 1 ? "s" : ""} ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s} s` : `${s} s`;
  }

  function tick() {
    const now = Date.now(), up = stream.readyState === EventSource.OPEN;
    if (up) heard = now;
    const down = now - heard > DOWN_AFTER;
    if (banner.hidden === down) {
      banner.textContent = down
        ? `Live updates have stopped. What you see is from ${document.getElementById("updated").textContent}. Trying again.` : "";
      banner.hidden = !down;
      document.body.classList.toggle("down", down);
    }
    if (stream.readyState === EventSource.CLOSED && now % CONNECT_AGAIN < 1000) connect();
    if (now - asked > ASK_ANYWAY && up) refresh();
    if (!paused && !down) for (const time of document.querySelectorAll("[data-since]")) {
      time.textContent = words(Math.max(0, Math.floor((now - Date.parse(time.dataset.since)) / 1000)));
    }
  }

  pause.hidden = false;
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.textContent = paused ? "Resume updates" : "Pause updates";
    document.body.classList.toggle("paused", paused);
    refresh();
  });
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  connect();
  setInterval(tick, 1000);
})();
