// The map: points drawn into an array of pixels, which a processor does in 20 ms for a million, and
// beside it the image that each pixel shows, so that pointing at one is a look-up.

import { colorBack, colorFaint, css, pack } from "./colors.js";

const PICK = 7; // pixels around the pointer in which a point is looked for
export const MAX_PICTURES = 160; // images in view that have pictures in place of points

export class Scatter {
  constructor(parent, { onHover, onPick, onLasso, onView }) {
    this.base = parent.appendChild(document.createElement("canvas"));
    this.cover = parent.appendChild(document.createElement("canvas"));
    this.cover.tabIndex = 0;
    this.cover.setAttribute("role", "img");
    this.pen = this.base.getContext("2d", { alpha: false });
    this.top = this.cover.getContext("2d");
    Object.assign(this, { parent, onHover, onPick, onLasso, onView });
    this.view = { x: 0, y: 0, zoom: 1 };
    this.positions = new Float32Array(0);
    this.colors = new Uint32Array(0);
    this.isShown = new Uint8Array(0);
    this.isChosen = new Uint8Array(0);
    this.anyHidden = this.anyChosen = false;
    this.faded = null; // colors of what is not chosen, where something is
    this.inView = [];
    this.overlay = null; // { row, lines: [{ row, kind }] }
    this.hovered = -1;
    this.lassoing = false;
    this.path = null;
    this.pictures = null; // gives pictures of rows, see setPictures
    this.frame = 0;
    this.listen();
    new ResizeObserver(() => this.resize()).observe(parent);
  }

  setData({ positions, colors, isShown, isChosen }) {
    Object.assign(this, { positions, colors, isShown, isChosen });
    this.anyHidden = isShown.includes(0);
    this.anyChosen = isChosen.includes(1);
    this.faded = this.anyChosen ? colors.map(fade) : null;
    this.redraw();
  }

  get n() { return this.positions.length / 2; }

  resize() {
    const box = this.parent.getBoundingClientRect();
    if (!box.width || !box.height) return;
    this.ratio = Math.min(window.devicePixelRatio || 1, Math.sqrt(3e6 / (box.width * box.height)));
    this.width = Math.max(1, Math.round(box.width * this.ratio));
    this.height = Math.max(1, Math.round(box.height * this.ratio));
    for (const canvas of [this.base, this.cover]) Object.assign(canvas, { width: this.width, height: this.height });
    this.image = this.pen.createImageData(this.width, this.height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.rows = new Int32Array(this.pixels.length); // row + 1 of the image that a pixel shows
    this.draw();
  }

  get scale() { return 0.48 * Math.min(this.width, this.height) * this.view.zoom; }

  toPixel(row) {
    const s = this.scale, p = this.positions;
    return [(p[2 * row] - this.view.x) * s + this.width / 2, (this.view.y - p[2 * row + 1]) * s + this.height / 2];
  }

  toMap(px, py) {
    const s = this.scale;
    return [(px - this.width / 2) / s + this.view.x, this.view.y - (py - this.height / 2) / s];
  }

  // Diameter in pixels: what fills a tenth of the picture, within what can be seen.
  get size() {
    const share = Math.sqrt((0.06 * this.width * this.height) / Math.max(this.n, 1));
    return Math.max(1, Math.min(14 * this.ratio, Math.min(share, 5.5 * this.ratio) * Math.sqrt(this.view.zoom)));
  }

  redraw() {
    if (!this.frame) this.frame = requestAnimationFrame(() => { this.frame = 0; this.draw(); });
  }

  draw() {
    if (!this.pixels) return;
    this.pixels.fill(pack(colorBack()));
    this.rows.fill(0);
    this.inView = [];
    const size = this.size, { isShown, isChosen, colors } = this;
    if (this.anyHidden) this.stamp(Math.max(1, size * 0.7), { mask: isShown, wanted: 0, color: pack(colorFaint()) });
    if (this.anyChosen) {
      this.stamp(size, { mask: isShown, wanted: 1, colors: this.faded, canPick: true });
      this.stamp(size * 1.15, { mask: isChosen, wanted: 1, and: isShown, colors, canPick: true });
    } else this.stamp(size, { mask: isShown, wanted: 1, colors, canPick: true });
    this.pen.putImageData(this.image, 0, 0);
    this.drawTop();
  }

  // Draws a disc for every image whose mask is as wanted, and keeps which image each pixel shows.
  stamp(size, { mask, wanted, and = mask, color, colors = null, canPick = false }) {
    const { width, height, positions, pixels, rows, view, scale, inView, n } = this;
    const cells = makeDisc(size, n <= 60000), reach = Math.ceil(size / 2), nCells = cells.length;
    const dx = width / 2 - view.x * scale + 0.5, dy = height / 2 + view.y * scale + 0.5;
    const right = width - reach, bottom = height - reach;
    for (let row = 0; row < n; row++) {
      if (mask[row] !== wanted || and[row] !== wanted) continue;
      const x = Math.floor(positions[2 * row] * scale + dx), y = Math.floor(dy - positions[2 * row + 1] * scale);
      if (x < reach || y < reach || x >= right || y >= bottom) continue;
      const ink = colors === null ? color : colors[row], at = y * width + x;
      if (canPick && inView.length <= MAX_PICTURES) inView.push(row);
      for (let i = 0; i < nCells; i += 3) {
        const place = at + cells[i + 1] * width + cells[i], alpha = cells[i + 2];
        pixels[place] = alpha === 255 ? ink : blend(pixels[place], ink, alpha);
        if (canPick && alpha > 127) rows[place] = row + 1;
      }
    }
  }

  find(px, py) {
    let best = -1, nearest = Infinity;
    const reach = Math.round(PICK * this.ratio);
    for (let y = Math.max(0, py - reach); y <= Math.min(this.height - 1, py + reach); y++)
      for (let x = Math.max(0, px - reach); x <= Math.min(this.width - 1, px + reach); x++) {
        const row = this.rows[y * this.width + x] - 1;
        const distance = (x - px) ** 2 + (y - py) ** 2;
        if (row >= 0 && distance < nearest) [best, nearest] = [row, distance];
      }
    return best;
  }

  drawTop() {
    const pen = this.top, r = this.ratio;
    pen.clearRect(0, 0, this.width, this.height);
    const ink = getComputedStyle(document.documentElement);
    const color = (name) => ink.getPropertyValue(name).trim();
    if (this.pictures && this.inView.length <= MAX_PICTURES) this.pictures(this, pen);
    if (this.overlay) this.drawOverlay(pen, color);
    if (this.hovered >= 0) this.ring(pen, this.hovered, this.size / 2 + 3 * r, color("--ink"), 2 * r);
    if (this.path) {
      pen.beginPath();
      this.path.forEach(([x, y]) => pen.lineTo(x, y));
      pen.closePath();
      pen.fillStyle = color("--accent") + "22";
      pen.strokeStyle = color("--accent");
      pen.lineWidth = 1.5 * r;
      pen.fill();
      pen.stroke();
    }
  }

  drawOverlay(pen, color) {
    const r = this.ratio, [x, y] = this.toPixel(this.overlay.row);
    const looks = { mutual: ["--good", []], near: ["--accent", [5 * r, 4 * r]], far: ["--bad", null], second: ["--muted", null] };
    for (const { row, kind } of this.overlay.lines) {
      const [name, dashes] = looks[kind], [toX, toY] = this.toPixel(row);
      pen.strokeStyle = color(name);
      pen.lineWidth = 1.5 * r;
      if (dashes) {
        pen.setLineDash(dashes);
        pen.beginPath();
        pen.moveTo(x, y);
        pen.lineTo(toX, toY);
        pen.stroke();
        pen.setLineDash([]);
        this.ring(pen, row, this.size / 2 + 1.5 * r, color(name), 1.5 * r);
      } else if (kind === "far") {
        const d = 4 * r;
        pen.beginPath();
        pen.moveTo(toX - d, toY - d); pen.lineTo(toX + d, toY + d);
        pen.moveTo(toX - d, toY + d); pen.lineTo(toX + d, toY - d);
        pen.stroke();
      } else this.ring(pen, row, this.size / 2 + 1.5 * r, color(name), r);
    }
    this.ring(pen, this.overlay.row, this.size / 2 + 5 * r, color("--ink"), 3 * r);
  }

  ring(pen, row, radius, color, width) {
    const [x, y] = this.toPixel(row);
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.strokeStyle = color;
    pen.lineWidth = width;
    pen.stroke();
  }

  listen() {
    const at = (event) => {
      const box = this.cover.getBoundingClientRect();
      return [Math.round((event.clientX - box.left) * this.ratio), Math.round((event.clientY - box.top) * this.ratio)];
    };
    let drag = null;
    this.cover.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      this.cover.setPointerCapture(event.pointerId);
      const [x, y] = at(event);
      if (this.lassoing || event.shiftKey) this.path = [[x, y]];
      drag = { x, y, view: { ...this.view }, moved: false };
    });
    this.cover.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (!drag) return this.hover(this.find(x, y), event);
      if (Math.hypot(x - drag.x, y - drag.y) > 4 * this.ratio) drag.moved = true;
      if (this.path) {
        this.path.push([x, y]);
        this.drawTop();
      } else if (drag.moved) {
        this.view = { ...drag.view, x: drag.view.x - (x - drag.x) / this.scale, y: drag.view.y + (y - drag.y) / this.scale };
        this.redraw();
      }
    });
    this.cover.addEventListener("pointerup", (event) => {
      if (!drag) return;
      const { moved } = drag, path = this.path;
      drag = this.path = null;
      if (path && moved) this.onLasso(path.map(([x, y]) => this.toMap(x, y)));
      else if (!moved) this.onPick(this.find(...at(event)));
      else this.onView();
      this.drawTop();
    });
    this.cover.addEventListener("pointerleave", (event) => this.hover(-1, event));
    this.cover.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * 0.0016), at(event));
    }, { passive: false });
    this.cover.addEventListener("dblclick", (event) => this.zoomBy(2, at(event)));
  }

  hover(row, event) {
    if (row !== this.hovered) {
      this.hovered = row;
      this.drawTop();
    }
    this.onHover(row, event);
  }

  zoomBy(factor, [px, py] = [this.width / 2, this.height / 2]) {
    const before = this.toMap(px, py);
    this.view.zoom = Math.min(Math.max(this.view.zoom * factor, 0.5), 5000);
    const after = this.toMap(px, py);
    this.view.x += before[0] - after[0];
    this.view.y += before[1] - after[1];
    this.redraw();
    this.onView();
  }

  fit() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.redraw();
    this.onView();
  }

  center(row) {
    const [x, y] = this.toPixel(row), edge = 40 * this.ratio;
    if (x > edge && y > edge && x < this.width - edge && y < this.height - edge) return;
    [this.view.x, this.view.y] = [this.positions[2 * row], this.positions[2 * row + 1]];
    this.redraw();
    this.onView();
  }

  // The images within a polygon of map coordinates, by filling it once.
  findWithin(polygon) {
    const side = 1024, canvas = new OffscreenCanvas(side, side), pen = canvas.getContext("2d", { willReadFrequently: true });
    const xs = polygon.map(([x]) => x), ys = polygon.map(([, y]) => y);
    const [left, bottom] = [Math.min(...xs), Math.min(...ys)];
    const step = side / Math.max(Math.max(...xs) - left, Math.max(...ys) - bottom, 1e-9);
    pen.beginPath();
    polygon.forEach(([x, y]) => pen.lineTo((x - left) * step, (y - bottom) * step));
    pen.fill();
    const filled = pen.getImageData(0, 0, side, side).data, found = [];
    for (let row = 0; row < this.n; row++) {
      if (!this.isShown[row]) continue;
      const x = Math.floor((this.positions[2 * row] - left) * step), y = Math.floor((this.positions[2 * row + 1] - bottom) * step);
      if (x >= 0 && y >= 0 && x < side && y < side && filled[4 * (y * side + x) + 3] > 127) found.push(row);
    }
    return found;
  }

  // Moves the points to other places within half a second.
  async moveTo(positions) {
    const from = this.positions, start = performance.now(), during = 600;
    const between = new Float32Array(positions.length);
    await new Promise((resolve) => {
      const step = (now) => {
        const t = Math.min((now - start) / during, 1), share = t * t * (3 - 2 * t);
        for (let i = 0; i < between.length; i++) between[i] = from[i] + (positions[i] - from[i]) * share;
        this.positions = t < 1 ? between : positions;
        this.draw();
        t < 1 ? requestAnimationFrame(step) : resolve();
      };
      requestAnimationFrame(step);
    });
  }

  describe(text) { this.cover.setAttribute("aria-label", text); }
}

const discs = new Map();

// Offsets and coverage of the pixels of a disc: x, y, alpha, one after the other.
function makeDisc(size, isSmooth) {
  const key = `${Math.round(size * 4)} ${isSmooth}`;
  if (!discs.has(key)) {
    const cells = [], radius = size / 2, reach = Math.ceil(radius);
    for (let y = -reach; y <= reach; y++)
      for (let x = -reach; x <= reach; x++) {
        const cover = Math.min(Math.max(radius + 0.5 - Math.hypot(x, y), 0), 1);
        const alpha = isSmooth ? Math.round(255 * cover) : cover > 0.5 ? 255 : 0;
        if (alpha > 8) cells.push(x, y, alpha > 247 ? 255 : alpha);
      }
    if (!cells.length) cells.push(0, 0, 255);
    discs.set(key, Int16Array.from(cells));
  }
  return discs.get(key);
}

function blend(under, over, alpha) {
  const mix = (shift) => {
    const low = (under >>> shift) & 255;
    return ((low + ((((over >>> shift) & 255) - low) * alpha) / 255) | 0) << shift;
  };
  return (0xff000000 | mix(16) | mix(8) | mix(0)) >>> 0;
}

const fade = (color) => blend(color, pack(colorBack()), 190);
