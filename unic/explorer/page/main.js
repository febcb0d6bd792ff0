// The page: state, and who is told when it changes.

import { readAddress, writeAddress } from "./address.js";
import { colorAll, colorCategory, colorFlag, colorNumber, css, findRange } from "./colors.js";
import { applyFilters, showFilters } from "./filters.js";
import { count, make } from "./gallery.js";
import { showClusters, showComparison, showImage, showSelection, swatch } from "./panels.js";
import { drawCell, getAtlas, getColumn, getJson, getPositions } from "./requests.js";
import { Scatter } from "./scatter.js";
import { Steering } from "./steering.js";

const byId = (id) => document.getElementById(id);
const KEYS = [
  ["/", "search images by name, #5 is row 5"], ["l", "lasso on or off; Shift and drag draws one"], ["c, C", "next, previous color"],
  ["t", "pictures in place of points, where few are in view"], ["f", "show all"], ["+ −", "closer, farther"], ["n, p", "next, previous image of the list"],
  ["1 … 5", "panels"], ["r, w", "the image is right, wrong in its cluster"], ["u", "undo the latest mark"], ["x", "the other run, where there are two"],
  ["d", "light or dark"], ["Esc", "clear what is selected"], ["?", "these keys"],
];

class App {
  async start() {
    this.setTheme(localStorage.getItem("unic-theme") ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
    const { runs, can_steer: canSteer } = await getJson("api/runs");
    this.runs = runs.map((about) => ({ ...about, values: new Map(), positions: null, clusters: null }));
    this.state = { ...readAddress(), picked: new Set() };
    this.state.run = runs.length > 1 && location.hash ? Math.min(this.state.run, runs.length - 1) : runs.length - 1;
    this.state.view ??= { x: 0, y: 0, zoom: 1 };
    if (!this.run.columns.some(({ key }) => key === this.state.color)) this.state.color = this.run.columns[0].key;
    this.state.tab ??= "image";
    this.steering = null;
    await Promise.all(this.runs.map(async (run, i) => { run.positions = await getPositions(i); }));
    this.maps = [this.makeMap(this.state.run)];
    this.maps[0].view = this.state.view;
    this.listen();
    await this.recolor();
    if (canSteer) {
      this.steering = new Steering(this);
      await this.steering.load();
    }
    if (this.state.lasso) this.state.picked = new Set(this.maps[0].findWithin(this.state.lasso));
    if (this.state.beside) this.setBeside(true);
    await this.refresh();
    document.documentElement.dataset.ready = "1";
  }

  get run() { return this.runs[this.state.run]; }
  get n() { return this.run.n_images; }
  column(key) { return this.run.columns.find((each) => each.key === key); }

  makeMap(number) {
    const box = byId("maps").appendChild(make("div", { className: "map" }));
    const map = new Scatter(box, {
      onHover: (row, event) => this.hover(row, event, map),
      onPick: (row) => row >= 0 && this.chooseImage(row),
      onLasso: (polygon) => this.chooseWithin(polygon, map),
      onView: () => this.saveView(map),
    });
    map.number = number;
    box.append(make("span", { className: "name" }, this.runs.length > 1 ? this.runs[number].name : ""));
    return map;
  }

  async getValues(key, number = this.state.run) {
    const run = this.runs[number];
    if (key === "cluster" && run.clusters) return run.clusters;
    if (!run.values.has(key)) run.values.set(key, getColumn(number, run.columns.find((each) => each.key === key)));
    return run.values.get(key);
  }

  // Colors, filters and selection anew.
  async recolor() {
    const { filters, picked } = this.state;
    for (const map of this.maps) {
      const run = this.runs[map.number];
      const key = run.columns.some((each) => each.key === this.state.color) ? this.state.color : run.columns[0].key;
      const column = run.columns.find((each) => each.key === key), values = await this.getValues(key, map.number);
      const range = column.kind === "number" ? findRange(values) : null;
      const own = filters.filter((filter) => run.columns.some((each) => each.key === filter.key));
      const filtered = new Map(await Promise.all(own.map(async ({ key }) => [key, await this.getValues(key, map.number)])));
      const isChosen = new Uint8Array(run.n_images);
      for (const row of picked) isChosen[row] = 1;
      map.setData({
        positions: run.positions,
        colors: colorAll(column, values, range),
        isShown: applyFilters(run.n_images, own, (key) => filtered.get(key)),
        isChosen,
      });
      map.describe(`Map of ${run.n_images} images of ${run.name}, colored by ${column.title}`);
      if (map === this.maps[0]) this.showLegend(column, values, range);
    }
    showFilters(byId("filters"), {
      filters, columns: this.run.columns, nameOf: (column, value) => this.nameValue(column, value),
      rangeOf: (column) => this.findValues(column),
      onChange: (changed) => { this.state.filters = changed; this.refresh(); },
    });
    const n = this.maps[0].isShown.reduce((sum, is) => sum + is, 0);
    byId("status").textContent = `${n === this.n ? "" : `${n.toLocaleString("en-US")} of `}${count(this.n, "image")}, ${count(this.run.n_neighbors, "neighbor")} each`;
    writeAddress(this.state);
  }

  async refresh() {
    await this.recolor();
    this.showTop();
    this.showTabs();
    await this.showPanel();
  }

  async showPanel() {
    const panel = byId("panel"), { tab } = this.state;
    if (tab !== "image") this.setOverlay(null);
    const shows = { image: showImage, clusters: showClusters, selection: showSelection, compare: showComparison, steer: (p) => this.steering.show(p) };
    await this.attempt(() => shows[tab](panel, this));
  }

  showTop() {
    byId("title").textContent = this.runs.map((run) => run.name).join(" → ");
    document.title = `${byId("title").textContent} – UNIC explorer`;
    byId("color").replaceChildren(...this.run.columns.map(({ key, title }) => make("option", { value: key, selected: key === this.state.color }, title)));
    byId("runs").hidden = this.runs.length < 2;
    byId("runs").replaceChildren(...this.runs.map((run, i) => make("button", { type: "button", ariaPressed: String(i === this.state.run), onclick: () => this.setRun(i) }, run.name)));
  }

  get tabs() {
    return [["image", "Image"], ["clusters", "Clusters"], ["selection", "Selection"],
      ...(this.steering ? [["steer", "Steer"]] : []), ...(this.runs.length > 1 ? [["compare", "Compare"]] : [])];
  }

  showTabs() {
    if (!this.tabs.some(([key]) => key === this.state.tab)) this.state.tab = "image";
    byId("tabs").replaceChildren(...this.tabs.map(([key, text]) => {
      const tab = make("button", { type: "button", onclick: () => this.setTab(key) }, text);
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-selected", String(key === this.state.tab));
      return tab;
    }));
  }

  showLegend(column, values, range) {
    const legend = byId("legend");
    if (column.kind === "number") {
      const bar = make("canvas", { width: 140, height: 12 }), pen = bar.getContext("2d");
      for (let x = 0; x < 140; x++) {
        pen.fillStyle = css(colorNumber(x / 139));
        pen.fillRect(x, 0, 1, 12);
      }
      const [low, high] = range.map((value) => make("span", {}, String(Number(value.toPrecision(3)))));
      return legend.replaceChildren(make("span", {}, column.title), low, bar, high);
    }
    const found = [...new Set(values)].sort((a, b) => a - b).slice(0, 120);
    legend.replaceChildren(make("span", {}, column.title), ...found.map((value) => {
      const dot = make("span", { className: "swatch" });
      dot.style.background = css(column.kind === "flag" ? colorFlag(value) : colorCategory(value));
      const filter = column.kind === "flag" ? { key: column.key, low: value, high: value } : { key: column.key, values: [value] };
      return make("button", { type: "button", title: "Show these alone", onclick: () => this.setFilter(filter) }, dot, this.nameValue(column, value));
    }));
  }

  nameValue(column, value) {
    if (column.kind === "flag") return value ? "yes" : "no";
    if (value < 0) return "none";
    return column.key === "cluster" ? this.nameCluster(value) : column.names[value] || String(value);
  }

  nameCluster(cluster) {
    const name = (this.state.run === this.runs.length - 1 && this.steering?.nameCluster(cluster)) || this.column("cluster")?.names[cluster];
    return name && name !== String(cluster) ? `${cluster} ${name}` : String(cluster);
  }

  async findValues(column) {
    const values = await this.getValues(column.key);
    if (column.kind === "category") return [...new Set(values)].sort((a, b) => a - b);
    let low = Infinity, high = -Infinity;
    for (const value of values) [low, high] = [Math.min(low, value), Math.max(high, value)];
    return [low, high];
  }

  async getClusters() {
    this.run.about ??= await getJson(`api/${this.state.run}/clusters`);
    const clusters = await this.getValues("cluster"), sizes = new Map();
    for (const cluster of clusters) sizes.set(cluster, (sizes.get(cluster) ?? 0) + 1);
    const known = new Map(this.run.about.clusters.map((each) => [each.cluster, each]));
    const isGiven = !this.run.clusters;
    return this.listClusters().map((cluster) => {
      const each = known.get(cluster);
      const size = sizes.get(cluster) ?? 0;
      const isSame = each && each.size === size;
      return {
        cluster, size,
        confidence: isSame || isGiven ? each?.confidence : null, agreement: isSame || isGiven ? each?.neighbor_agreement : null,
        seeds: each?.seed_agreement ?? null, majority: each?.majority_class ?? null, purity: each?.purity ?? null, nearest: each?.nearest ?? [],
      };
    }).filter(({ size, cluster }) => size || known.has(cluster));
  }

  listClusters() { return Array.from({ length: this.run.n_clusters }, (_, i) => i); }

  async listCluster(cluster) {
    const [clusters, confidence] = await Promise.all([this.getValues("cluster"), this.getValues("confidence")]);
    const rows = [];
    for (let row = 0; row < clusters.length; row++) if (clusters[row] === cluster) rows.push(row);
    return rows.sort((a, b) => confidence[b] - confidence[a] || a - b);
  }

  setClusters(clusters, nClusters) {
    const last = this.runs[this.runs.length - 1];
    last.clusters = clusters;
    last.n_clusters = nClusters;
  }

  // Rows that are picked, or else those that filters leave.
  selected() {
    const { picked, filters } = this.state, { isShown } = this.maps[0];
    if (picked.size) return [...picked].filter((row) => isShown[row]);
    if (!filters.length) return [];
    const rows = [];
    for (let row = 0; row < this.n; row++) if (isShown[row]) rows.push(row);
    return rows;
  }

  galleryOptions(look) {
    const { picked } = this.state;
    return {
      look: (row) => ({ ...look(row), isPressed: picked.has(row) }),
      onHover: (row) => this.point(row),
      onClick: (row, event, button) => {
        if (!event.ctrlKey && !event.metaKey) return this.chooseImage(row);
        picked.has(row) ? picked.delete(row) : picked.add(row);
        button.ariaPressed = String(picked.has(row));
        this.say(`${count(picked.size, "image")} selected`);
        return this.recolor();
      },
    };
  }

  chooseImage(row) {
    Object.assign(this.state, { image: row, tab: "image" });
    this.maps.forEach((map) => map.center(row));
    return this.refresh();
  }

  chooseCluster(cluster) {
    Object.assign(this.state, { cluster, tab: "clusters" });
    byId("panel").scrollTop = 0;
    return this.refresh();
  }

  chooseWithin(polygon, map) {
    Object.assign(this.state, { lasso: polygon, picked: new Set(map.findWithin(polygon)), tab: "selection" });
    this.setLasso(false);
    return this.refresh();
  }

  clearSelection() {
    Object.assign(this.state, { lasso: null, picked: new Set(), filters: [] });
    return this.refresh();
  }

  setFilter(filter) {
    this.state.filters = [...this.state.filters.filter((each) => each.key !== filter.key), filter];
    return this.refresh();
  }

  setTab(tab) {
    if (tab === "clusters" && this.state.tab === "clusters") this.state.cluster = null;
    this.state.tab = tab;
    return this.refresh();
  }

  setColor(key) { this.state.color = key; return this.refresh(); }

  async setRun(number) {
    if (number === this.state.run) return;
    this.state.run = number;
    if (!this.column(this.state.color)) this.state.color = this.run.columns[0].key;
    this.maps[0].number = number;
    this.maps[0].parent.querySelector(".name").textContent = this.run.name;
    await this.maps[0].moveTo(this.run.positions);
    await this.refresh();
  }

  toggleRun() { return this.runs.length > 1 ? this.setRun(1 - this.state.run) : null; }
  toggleBeside() { this.setBeside(!this.state.beside); return this.refresh(); }

  setBeside(isBeside) {
    this.state.beside = isBeside && this.runs.length > 1;
    if (this.maps.length > 1) this.maps.pop().parent.remove();
    if (!this.state.beside) return;
    const other = this.makeMap(1 - this.state.run);
    other.view = this.maps[0].view;
    this.maps.push(other);
  }

  showMove(move) {
    const other = this.runs.length - 1;
    if (this.state.run !== other) this.state.run = this.maps[0].number = other;
    this.state.filters = [{ key: "moved", low: 1, high: 1 }, { key: "cluster", values: [move.to] }, { key: "before", values: [move.from] }];
    this.state.tab = "selection";
    return this.refresh();
  }

  setOverlay(overlay) {
    this.maps.forEach((map) => { map.overlay = overlay; map.drawTop(); });
  }

  point(row) {
    this.maps.forEach((map) => { map.hovered = row; map.drawTop(); });
  }

  hover(row, event, map) {
    const tip = byId("tip");
    this.maps.filter((other) => other !== map && other.hovered !== row).forEach((other) => { other.hovered = row; other.drawTop(); });
    if (row < 0) return (tip.hidden = true);
    const left = event.clientX + 16 + 250 < innerWidth ? event.clientX + 16 : event.clientX - 140;
    Object.assign(tip.style, { left: `${left}px`, top: `${Math.min(event.clientY + 16, innerHeight - 180)}px` });
    if (tip.dataset.row === String(row) && !tip.hidden) return;
    tip.dataset.row = row;
    clearTimeout(this.tipWait);
    this.tipWait = setTimeout(() => this.fillTip(tip, row, map.number), 40);
  }

  async fillTip(tip, row, number) {
    const canvas = tip.firstElementChild, cluster = this.runs[number].n_clusters ? (await this.getValues("cluster", number))[row] : null;
    try {
      const atlas = await getAtlas(number, [row], 96);
      if (tip.dataset.row !== String(row)) return;
      const pen = canvas.getContext("2d");
      drawCell(pen, atlas, 0, 96, 0, 0, 96);
    } catch { return; }
    tip.lastElementChild.replaceChildren(`row ${row} `, cluster === null ? "" : swatch(cluster, this.nameCluster(cluster)));
    tip.hidden = false;
  }

  // Pictures in place of points, where few are in view.
  setPictures(isOn) {
    byId("pictures").ariaPressed = String(isOn);
    const known = new Map(); // row to [atlas, place]
    const draw = (map, pen) => {
      const missing = map.inView.filter((row) => !known.has(row));
      if (missing.length) {
        missing.forEach((row) => known.set(row, null));
        getAtlas(map.number, missing, 64).then((atlas) => {
          missing.forEach((row, i) => known.set(row, [atlas, i]));
          map.drawTop();
        }, () => {});
      }
      const side = 44 * map.ratio;
      for (const row of map.inView) {
        const place = known.get(row), [x, y] = map.toPixel(row);
        if (place) drawCell(pen, place[0], place[1], 64, x - side / 2, y - side / 2, side);
      }
    };
    this.maps.forEach((map) => { map.pictures = isOn ? draw : null; map.redraw(); });
    if (isOn && this.maps[0].inView.length > 160) this.say("come closer until at most 160 images are in view");
  }

  setLasso(isOn) {
    byId("lasso").ariaPressed = String(isOn);
    this.maps.forEach((map) => { map.lassoing = isOn; });
  }

  setTheme(theme) {
    document.documentElement.dataset.theme = theme;
    localStorage.setItem("unic-theme", theme);
  }

  toggleTheme() {
    this.setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    return this.refresh();
  }

  saveView(map) {
    this.state.view = { ...map.view };
    this.maps.filter((other) => other !== map).forEach((other) => { other.view = { ...map.view }; other.redraw(); });
    clearTimeout(this.viewWait);
    this.viewWait = setTimeout(() => writeAddress(this.state), 200);
  }

  // The images that n and p go through: those selected, those of the cluster, or all.
  async step(by) {
    const { cluster, image } = this.state;
    let rows = this.selected();
    if (!rows.length && cluster !== null) rows = await this.listCluster(cluster);
    if (!rows.length) rows = Array.from({ length: this.n }, (_, row) => row);
    const place = rows.indexOf(image);
    return this.chooseImage(rows[(place + by + rows.length) % rows.length]);
  }

  say(text) {
    const status = byId("status");
    status.className = "";
    status.textContent = text;
  }

  async attempt(action) {
    try {
      return await action();
    } catch (error) {
      const status = byId("status");
      status.className = "error";
      status.textContent = error.message;
      return null;
    }
  }

  async search(text) {
    const list = byId("found");
    const { images } = text ? await getJson(`api/${this.state.run}/search?q=${encodeURIComponent(text)}`) : { images: [] };
    if (byId("search").value.trim() !== text) return;
    list.hidden = !text;
    const choose = (row) => {
      list.hidden = true;
      byId("search").value = "";
      byId("search").blur();
      this.chooseImage(row);
    };
    list.replaceChildren(...(images.length ? images.map(({ row, id }) => make("li", {}, make("button", { type: "button", onclick: () => choose(row) }, id)))
      : [make("li", { className: "note" }, "no image has this in its name")]));
  }

  listen() {
    byId("color").onchange = (event) => this.setColor(event.target.value);
    byId("lasso").onclick = () => this.setLasso(!this.maps[0].lassoing);
    byId("pictures").onclick = () => this.setPictures(!this.maps[0].pictures);
    byId("fit").onclick = () => this.maps[0].fit();
    byId("theme").onclick = () => this.toggleTheme();
    byId("help").onclick = () => this.showKeys();
    const field = byId("search");
    field.oninput = () => this.attempt(() => this.search(field.value.trim()));
    field.onkeydown = (event) => {
      if (event.key === "Enter") byId("found").querySelector("button")?.click();
      if (event.key === "Escape") { field.value = ""; byId("found").hidden = true; field.blur(); }
    };
    document.addEventListener("keydown", (event) => this.press(event));
    document.addEventListener("click", (event) => { if (!event.target.closest(".search")) byId("found").hidden = true; });
  }

  press(event) {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const { columns } = this.run, at = columns.findIndex(({ key }) => key === this.state.color);
    const { image } = this.state, one = image === null ? [] : [image];
    const actions = {
      "/": () => byId("search").focus(),
      l: () => this.setLasso(!this.maps[0].lassoing),
      c: () => this.setColor(columns[(at + 1) % columns.length].key),
      C: () => this.setColor(columns[(at + columns.length - 1) % columns.length].key),
      t: () => this.setPictures(!this.maps[0].pictures),
      f: () => this.maps[0].fit(),
      "+": () => this.maps[0].zoomBy(1.4),
      "-": () => this.maps[0].zoomBy(1 / 1.4),
      n: () => this.step(1),
      p: () => this.step(-1),
      r: () => this.steering && one.length && this.steering.attempt({ action: "right", rows: one }),
      w: () => this.steering && one.length && this.steering.attempt({ action: "wrong", rows: one }),
      u: () => this.steering?.undo(),
      x: () => this.toggleRun(),
      d: () => this.toggleTheme(),
      "?": () => this.showKeys(),
      Escape: () => this.clearSelection(),
    };
    const tab = this.tabs[Number(event.key) - 1];
    const action = tab ? () => this.setTab(tab[0]) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    this.attempt(action);
  }

  showKeys() {
    const dialog = byId("keys");
    dialog.replaceChildren(make("h2", {}, "Keys"), make("dl", {}, ...KEYS.flatMap(([key, text]) => [make("dt", {}, make("kbd", {}, key)), make("dd", {}, text)])),
      make("div", { className: "actions" }, make("button", { type: "button", onclick: () => dialog.close() }, "Close")));
    dialog.showModal();
  }
}

const app = new App();
app.start().catch((error) => {
  byId("panel").replaceChildren(make("p", { className: "error" }, error.message));
  byId("status").textContent = error.message;
});
