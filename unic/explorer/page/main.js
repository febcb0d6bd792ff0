// The page: state, and who is told when it changes.

import { readAddress, writeAddress } from "./address.js";
import { colorAll, findRange } from "./colors.js";
import { applyFilters, showFilters } from "./filters.js";
import { count, make } from "./gallery.js";
import { pressKey, showKeys } from "./keys.js";
import { showLegend } from "./legend.js";
import { showClusters, showComparison, showImage, showSelection, swatch } from "./panels.js";
import { makePictures, Tip } from "./pointing.js";
import { getColumn, getJson, getPositions } from "./requests.js";
import { MAX_PICTURES, Scatter } from "./scatter.js";
import { listenToSearch } from "./search.js";
import { Steering } from "./steering.js";

const byId = (id) => document.getElementById(id);
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

  // Values that a filter asks for: of this run, or of the one that has them, whose images are the same.
  getFiltered(key) {
    const has = (run) => run.columns.some((column) => column.key === key);
    const number = has(this.run) ? this.state.run : this.runs.findIndex(has);
    return number < 0 ? null : this.getValues(key, number);
  }

  // Which color a category has: clusters of an earlier run have those of the ones they are paired with.
  tints(column, number = this.state.run) {
    const { paired } = this.runs[number];
    return (value) => (paired && value >= 0 && ["cluster", "before"].includes(column.key) ? paired[value] : value);
  }

  swatch(cluster, number = this.state.run) {
    return swatch(this.tints({ key: "cluster" }, number)(cluster), this.nameCluster(cluster));
  }

  // Colors, filters and selection anew.
  async recolor() {
    const { filters, picked } = this.state;
    const filtered = new Map(await Promise.all(filters.map(async ({ key }) => [key, await this.getFiltered(key)])));
    const isShown = applyFilters(this.n, filters, (key) => filtered.get(key));
    const isChosen = new Uint8Array(this.n);
    for (const row of picked) isChosen[row] = 1;
    for (const map of this.maps) {
      const run = this.runs[map.number], { color } = this.state;
      const column = run.columns.find(({ key }) => key === color) ?? run.columns[0];
      const values = await this.getValues(column.key, map.number);
      const range = column.kind === "number" ? findRange(values) : null;
      const tint = this.tints(column, map.number);
      map.setData({ positions: run.positions, colors: colorAll(column, values, range, tint), isShown, isChosen });
      map.describe(`Map of ${run.n_images} images of ${run.name}, colored by ${column.title}`);
      if (map !== this.maps[0]) continue;
      const nameOf = (column, value) => this.nameValue(column, value);
      showLegend(byId("legend"), column, { values, range, tint, nameOf, onChoose: (filter) => this.setFilter(filter) });
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

  nameValue(column, value) {
    if (column.kind === "flag") return value ? "yes" : "no";
    if (value < 0) return "none";
    if (column.key === "cluster") return this.nameCluster(value);
    const name = column.names[value];
    return column.key === "before" && name ? `${value} ${name}` : name || String(value);
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
    this.maps.forEach((map, i) => {
      map.number = i ? 1 - number : number;
      map.parent.querySelector(".name").textContent = this.runs[map.number].name;
    });
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
    this.state.filters = [{ key: "moved", low: 1, high: 1 }, { key: "cluster", values: [move.to] }, { key: "before", values: [move.from] }];
    this.state.tab = "selection";
    const latest = this.runs.length - 1;
    return this.state.run === latest ? this.refresh() : this.setRun(latest);
  }

  setOverlay(overlay) {
    this.maps.forEach((map) => { map.overlay = overlay; map.drawTop(); });
  }

  point(row) {
    this.maps.forEach((map) => { map.hovered = row; map.drawTop(); });
  }

  hover(row, event, map) {
    this.maps.filter((other) => other !== map && other.hovered !== row).forEach((other) => { other.hovered = row; other.drawTop(); });
    this.tip.show(row, event, map.number, async () => {
      if (!this.runs[map.number].n_clusters) return [`row ${row}`];
      const cluster = (await this.getValues("cluster", map.number))[row];
      return [`row ${row} `, this.swatch(cluster, map.number)];
    });
  }

  setPictures(isOn) {
    byId("pictures").ariaPressed = String(isOn);
    const draw = isOn ? makePictures() : null;
    this.maps.forEach((map) => { map.pictures = draw; map.redraw(); });
    if (isOn && this.maps[0].inView.length > MAX_PICTURES) this.say(`come closer until at most ${MAX_PICTURES} images are in view`);
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

  listen() {
    this.tip = new Tip(byId("tip"));
    byId("color").onchange = (event) => this.setColor(event.target.value);
    byId("lasso").onclick = () => this.setLasso(!this.maps[0].lassoing);
    byId("pictures").onclick = () => this.setPictures(!this.maps[0].pictures);
    byId("fit").onclick = () => this.maps[0].fit();
    byId("theme").onclick = () => this.toggleTheme();
    byId("help").onclick = showKeys;
    listenToSearch(this);
    document.addEventListener("keydown", (event) => pressKey(this, event));
  }
}

const app = new App();
app.start().catch((error) => {
  byId("panel").replaceChildren(make("p", { className: "error" }, error.message));
  byId("status").textContent = error.message;
});
