// The legend: what the colors of a column mean; a click shows one value alone.

import { colorCategory, colorFlag, colorNumber, css } from "./colors.js";
import { make } from "./gallery.js";

const WIDTH = 140; // pixels of the bar of numbers
const MAX_VALUES = 120;

export function showLegend(parent, column, { values, range, tint, nameOf, onChoose }) {
  const title = make("span", {}, column.title);
  if (column.kind === "number") {
    const [low, high] = range.map((value) => make("span", {}, String(Number(value.toPrecision(3)))));
    return parent.replaceChildren(title, low, drawBar(), high);
  }
  const found = [...new Set(values)].sort((a, b) => a - b).slice(0, MAX_VALUES);
  return parent.replaceChildren(title, ...found.map((value) => {
    const dot = make("span", { className: "swatch" });
    dot.style.background = css(column.kind === "flag" ? colorFlag(value) : colorCategory(tint(value)));
    const filter = column.kind === "flag" ? { key: column.key, low: value, high: value } : { key: column.key, values: [value] };
    return make("button", { type: "button", title: "Show these alone", onclick: () => onChoose(filter) }, dot, nameOf(column, value));
  }));
}

function drawBar() {
  const bar = make("canvas", { width: WIDTH, height: 12 }), pen = bar.getContext("2d");
  for (let x = 0; x < WIDTH; x++) {
    pen.fillStyle = css(colorNumber(x / (WIDTH - 1)));
    pen.fillRect(x, 0, 1, 12);
  }
  return bar;
}
