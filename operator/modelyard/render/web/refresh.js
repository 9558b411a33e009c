// Reads the page again every 10 s and puts its content in place. Without it the page is as useful, and is reloaded by
// hand. What a screen reader says: only a change of the summary, politely.
"use strict";
(() => {
  const SECONDS = 10;
  const live = document.getElementById("live");
  const button = document.createElement("button");
  let paused = false;
  const label = () => { button.textContent = paused ? "Resume updates" : "Pause updates"; };
  button.type = "button";
  button.addEventListener("click", () => { paused = !paused; label(); });
  label();
  document.getElementById("controls").append(button);

  const summary = () => document.getElementById("summary")?.textContent ?? "";
  // Where the keyboard is must survive: links are found again by their address, regions by their name.
  const find = (element) => {
    if (element.id) return document.getElementById(element.id);
    const links = [...document.querySelectorAll("main a, footer a")];
    return links.find((link) => link.getAttribute("href") === element.getAttribute("href"));
  };

  const update = async () => {
    if (paused || document.hidden) return;
    // Nothing moves under somebody who reads with a selection.
    if (!document.getSelection()?.isCollapsed) return;
    try {
      const reply = await fetch(location.href, { cache: "no-store" });
      if (!reply.ok) throw new Error(String(reply.status));
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
      const before = summary();
      const focused = document.activeElement;
      const scrolled = new Map([...document.querySelectorAll(".scroll")].map((box) => [box.id, box.scrollLeft]));
      for (const tag of ["main", "footer"]) {
        const next = fresh.querySelector(tag);
        const old = document.querySelector(tag);
        if (next && old && next.innerHTML !== old.innerHTML) {
          const inside = old.contains(focused);
          old.replaceChildren(...next.childNodes);
          if (inside && focused !== old) find(focused)?.focus({ preventScroll: true });
        }
      }
      for (const [id, left] of scrolled) {
        const box = document.getElementById(id);
        if (box) box.scrollLeft = left;
      }
      if (summary() !== before) live.textContent = summary();
    } catch {
      const text = "The page cannot be read again: it shows how things were.";
      if (live.textContent !== text) live.textContent = text;
    }
  };
  setInterval(update, SECONDS * 1000);
})();
