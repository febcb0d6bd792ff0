// Keys: what each does, and the list of them.

import { make } from "./gallery.js";

const KEYS = [
  ["/", "search images by name, #5 is row 5"], ["l", "lasso on or off; Shift and drag draws one"], ["c, C", "next, previous color"],
  ["t", "pictures in place of points, where few are in view"], ["f", "show all"], ["+ −", "closer, farther"], ["n, p", "next, previous image of the list"],
  ["1 … 5", "panels"], ["r, w", "the image is right, wrong in its cluster"], ["u", "undo the latest mark"], ["x", "the other run, where there are two"],
  ["d", "light or dark"], ["Esc", "clear what is selected"], ["?", "these keys"],
];

// Does what the key of an event stands for.
export function pressKey(app, event) {
  if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  const tab = app.tabs[Number(event.key) - 1];
  const action = tab ? () => app.setTab(tab[0]) : listActions(app)[event.key];
  if (!action) return;
  event.preventDefault();
  app.attempt(action);
}

function listActions(app) {
  const { columns } = app.run, at = columns.findIndex(({ key }) => key === app.state.color);
  const mark = (action) => app.state.image !== null && app.steering?.attempt({ action, rows: [app.state.image] });
  return {
    "/": () => document.getElementById("search").focus(),
    l: () => app.setLasso(!app.maps[0].lassoing),
    c: () => app.setColor(columns[(at + 1) % columns.length].key),
    C: () => app.setColor(columns[(at + columns.length - 1) % columns.length].key),
    t: () => app.setPictures(!app.maps[0].pictures),
    f: () => app.maps[0].fit(),
    "+": () => app.maps[0].zoomBy(1.4),
    "-": () => app.maps[0].zoomBy(1 / 1.4),
    n: () => app.step(1),
    p: () => app.step(-1),
    r: () => mark("right"),
    w: () => mark("wrong"),
    u: () => app.steering?.undo(),
    x: () => app.toggleRun(),
    d: () => app.toggleTheme(),
    "?": showKeys,
    Escape: () => app.clearSelection(),
  };
}

export function showKeys() {
  const dialog = document.getElementById("keys");
  const lines = KEYS.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)]);
  const close = make("button", { type: "button", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(make("h2", {}, "Keys"), make("dl", {}, ...lines), make("div", { className: "actions" }, close));
  dialog.showModal();
}
