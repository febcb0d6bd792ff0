// Elements, and pictures side by side. All text goes in as text: names of files may hold markup.

import { drawPictures } from "./requests.js";

export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const percent = (share) => (share === null || share === undefined ? "–" : `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`);
export const count = (n, noun) => `${n.toLocaleString("en-US")} ${noun}${n === 1 ? "" : "s"}`;

const PAGE = 96;

// Pictures of rows in order; the rest on demand. `look(row)` gives { text, title, className, isPressed }.
export function makeGallery(run, rows, { look, onClick, onHover = () => {} }) {
  const grid = make("div", { className: "gallery" });
  const more = make("button", { type: "button" });
  let shown = 0;
  const grow = () => {
    const part = rows.slice(shown, shown + PAGE);
    shown += part.length;
    const buttons = part.map((row) => {
      const { text = "", title = "", className = "", isPressed = null } = look(row);
      const button = make("button", { type: "button", title, className }, make("canvas", {}), make("small", {}, text));
      button.dataset.row = row;
      if (isPressed !== null) button.ariaPressed = String(isPressed);
      button.onclick = (event) => onClick(row, event, button);
      button.onpointerenter = () => onHover(row);
      button.onpointerleave = () => onHover(-1);
      return button;
    });
    grid.append(...buttons);
    drawPictures(run, part, buttons.map((button) => button.firstChild)).catch(() => {});
    more.hidden = shown >= rows.length;
    more.textContent = `Show more (${(rows.length - shown).toLocaleString("en-US")} left)`;
  };
  more.onclick = grow;
  grow();
  return make("div", {}, grid, make("div", { className: "actions" }, more));
}

export function makeTable(heads, rows) {
  const body = make("tbody", {}, ...rows.map(({ cells, onClick }) => {
    const line = make("tr", { tabIndex: 0 }, ...cells.map((cell) => make("td", { className: typeof cell === "number" || cell?.isNumber ? "number" : "" }, cell?.isNumber ? cell.text : typeof cell === "number" ? cell.toLocaleString("en-US") : cell)));
    if (onClick) {
      line.onclick = onClick;
      line.onkeydown = (event) => event.key === "Enter" && onClick();
    }
    return line;
  }));
  return make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", {}, head)))), body);
}

export const number = (text) => ({ isNumber: true, text: String(text) });

export function makeFacts(facts) {
  return make("dl", {}, ...facts.filter(([, value]) => value !== null && value !== undefined).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

export function save(name, text, type = "text/csv") {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  URL.revokeObjectURL(link.href);
}
