// Keeps the page as the server sees it. Everything works without it, a reload later.
"use strict";
(() => {
  const state = document.getElementById("live");
  const silence = 20e3; // longer than the server is ever silent
  let heard = 0;

  function say(on, text) {
    state.className = on ? "on" : "off";
    if (state.textContent !== text) state.textContent = text;
  }

  const key = (node) => node.id || node.dataset?.key;

  // morph makes old what fresh is and leaves alone what is equal, so that focus, selection, open details and what was
  // typed survive: a page that moves under the reader's hands cannot be used.
  function morph(old, fresh) {
    if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || key(old) !== key(fresh)) {
      old.replaceWith(fresh); // never another alert's button under a finger that was about to press
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const {name} of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
    }
    for (const {name, value} of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    morphChildren(old, [...fresh.childNodes]);
  }

  // morphChildren finds children that have a key by that, wherever they were, and all others by their place.
  function morphChildren(old, news) {
    const wanted = new Set(news.map(key).filter(Boolean));
    const kept = new Map();
    for (const child of [...old.childNodes]) {
      if (!key(child)) continue;
      wanted.has(key(child)) ? kept.set(key(child), child) : child.remove();
    }
    let at = old.firstChild;
    for (const child of news) {
      const same = key(child) ? kept.get(key(child)) : at && !key(at) && at;
      if (same && same === at) at = at.nextSibling;
      else old.insertBefore(same || child, at);
      if (same) morph(same, child);
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  function show(section) {
    const fresh = new DOMParser().parseFromString(section.html, "text/html").body.firstElementChild;
    const old = document.getElementById(section.id);
    if (!old || !fresh) return;
    morph(old, document.adoptNode(fresh));
    if (old.dataset.title && document.title !== old.dataset.title) document.title = old.dataset.title;
  }

  function open() {
    const source = new EventSource("/events");
    let lost;
    source.onopen = () => { clearTimeout(lost); heard = Date.now(); say(true, "live"); };
    source.addEventListener("sections", (e) => {
      heard = Date.now();
      JSON.parse(e.data).forEach(show);
      say(true, "live");
    });
    source.addEventListener("beat", () => { heard = Date.now(); });
    source.onerror = () => {
      clearTimeout(lost);
      if (source.readyState !== EventSource.CLOSED) { // streams end now and then, and begin again
        lost = setTimeout(() => say(false, "connection lost, trying again"), 4e3);
        return;
      }
      say(false, "not live: signed out, or too many watch; reload to see");
      setTimeout(open, 15e3);
    };
  }

  setInterval(() => {
    if (heard && Date.now() - heard > silence) say(false, "nothing heard for " + Math.round((Date.now() - heard) / 1e3) + " s");
  }, 5e3);
  open();
})();
