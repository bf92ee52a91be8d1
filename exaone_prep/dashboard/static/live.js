// Keeps the part of a page that is marked data-live up to date: fetches the page anew and takes that part from it.
"use strict";
(() => {
  const part = document.querySelector("[data-live]");
  if (!part) return;
  const every = Number(part.dataset.live) * 1000;
  let latest = part.innerHTML;

  function renew(fresh) {
    if (fresh.innerHTML === latest) return;
    latest = fresh.innerHTML;
    const open = [...part.querySelectorAll("details[open][id]")].map((one) => one.id);
    const focus = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    part.replaceChildren(...fresh.childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (focus) part.querySelector(`a[href="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
  }

  async function look() {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { credentials: "same-origin" });
        if (answer.ok) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          const fresh = page.getElementById(part.id);
          if (fresh) renew(document.adoptNode(fresh));
        }
      } catch {
        // The dashboard may be gone for a while; the page shows when it was last read.
      }
    }
    setTimeout(look, every);
  }
  setTimeout(look, every);
})();
