// What is under the pointer, and pictures in place of points.

import { drawCell, getAtlas } from "./requests.js";

const WAIT = 40; // milliseconds before a picture is asked for
const SIZE = 96; // pixels of the picture beside the pointer
const SIDE = 44; // of one in the map
const MAX_KEPT = 4096;

// The picture beside the pointer.
export class Tip {
  constructor(element) {
    this.element = element;
    this.wait = 0;
  }

  // `describe(row)` gives what is written below the picture.
  show(row, event, run, describe) {
    const tip = this.element;
    clearTimeout(this.wait);
    if (row < 0) {
      delete tip.dataset.row;
      tip.hidden = true;
      return;
    }
    const left = event.clientX + 266 < innerWidth ? event.clientX + 16 : event.clientX - 140;
    Object.assign(tip.style, { left: `${left}px`, top: `${Math.min(event.clientY + 16, innerHeight - 180)}px` });
    if (tip.dataset.row === String(row) && !tip.hidden) return;
    tip.dataset.row = row;
    this.wait = setTimeout(() => this.fill(row, run, describe).catch(() => {}), WAIT);
  }

  async fill(row, run, describe) {
    const [atlas, text] = await Promise.all([getAtlas(run, [row], SIZE), describe(row)]);
    if (this.element.dataset.row !== String(row)) return;
    drawCell(this.element.firstElementChild.getContext("2d"), atlas, 0, SIZE, 0, 0, SIZE);
    this.element.lastElementChild.replaceChildren(...text);
    this.element.hidden = false;
  }
}

// Draws pictures at the places of the images in view, once they have come.
export function makePictures() {
  const known = new Map(); // row to its atlas and its place in it; null until they have come
  return (map, pen) => {
    const missing = map.inView.filter((row) => !known.has(row));
    if (missing.length) {
      if (known.size > MAX_KEPT) known.clear();
      missing.forEach((row) => known.set(row, null));
      getAtlas(map.number, missing, 64).then((atlas) => {
        missing.forEach((row, i) => known.set(row, [atlas, i]));
        map.drawTop();
      }, () => missing.forEach((row) => known.delete(row)));
    }
    const side = SIDE * map.ratio;
    for (const row of map.inView) {
      const place = known.get(row), [x, y] = map.toPixel(row);
      if (place) drawCell(pen, place[0], place[1], 64, x - side / 2, y - side / 2, side);
    }
  };
}
