// What a person says of clusters and images; every mark is kept by the server before it is shown.

import { count, make } from "./gallery.js";
import { drawPictures, getClusters, getJson, postJson } from "./requests.js";

export class Steering {
  constructor(app) {
    this.app = app;
    this.state = null;
  }

  async load() {
    this.state = await getJson("api/steering/state");
    await this.takeClusters();
  }

  async takeClusters() {
    this.labels = new Map(this.state.labels);
    this.wrong = new Set(this.state.wrong);
    this.app.setClusters(await getClusters(), this.state.n_clusters);
  }

  nameCluster(cluster) { return this.state.names[cluster] ?? ""; }

  async mark(action) {
    this.state = await postJson("api/steering/marks", action);
    await this.takeClusters();
    this.app.say(this.state.said);
    await this.app.refresh();
  }

  attempt(action) { return this.app.attempt(() => this.mark(action)); }

  // What can be said of single images.
  makeImageActions(rows) {
    const label = make("input", { placeholder: "class", ariaLabel: "Class of the images", maxLength: 200, className: "label" });
    label.setAttribute("list", "names");
    const give = () => label.value.trim() && this.attempt({ action: "label", rows, label: label.value });
    label.addEventListener("keydown", (event) => event.key === "Enter" && give());
    const button = (text, title, action) => make("button", { type: "button", title, onclick: () => this.attempt({ action, rows }) }, text);
    const known = rows.length === 1 && this.labels.get(rows[0]);
    return make("div", { className: "actions marks" },
      button("Right", "Of the class that its cluster is named after (r)", "right"),
      button("Wrong", "Not of its cluster (w)", "wrong"),
      label, make("button", { type: "button", onclick: give }, "Is"),
      this.makeNames(),
      known || rows.some((row) => this.wrong.has(row) || this.labels.has(row)) ? button("Forget", "Take back what was said of it", "clear") : null,
      known ? make("span", { className: "note" }, `said: ${known}`) : null);
  }

  makeClusterActions(cluster) {
    const name = make("input", { value: this.nameCluster(cluster), placeholder: "name of the cluster", ariaLabel: "Name of the cluster", maxLength: 200, id: "name" });
    const give = () => this.attempt({ action: "name", cluster, name: name.value });
    name.addEventListener("keydown", (event) => event.key === "Enter" && give());
    const other = make("select", { ariaLabel: "Merge with" }, make("option", { value: "" }, "Merge with…"),
      ...this.app.listClusters().filter((each) => each !== cluster).map((each) => make("option", { value: each }, this.app.nameCluster(each))));
    other.onchange = () => this.attempt({ action: "merge", clusters: [cluster, Number(other.value)] });
    const parts = make("select", { ariaLabel: "Split" }, make("option", { value: "" }, "Split into…"),
      ...[2, 3, 4, 5, 6].map((n) => make("option", { value: n }, n)));
    parts.onchange = () => this.attempt({ action: "split", cluster, n_parts: Number(parts.value) });
    return make("div", { className: "actions marks" }, name, make("button", { type: "button", onclick: give }, "Name"), other, parts);
  }

  makeNames() {
    const names = [...new Set([...Object.values(this.state.names), ...this.labels.values()])].filter(Boolean).sort();
    return make("datalist", { id: "names" }, ...names.map((value) => make("option", { value })));
  }

  undo() { return this.attempt({ action: "undo" }); }

  async show(panel) {
    const { app, state } = this;
    const asked = make("div", {});
    panel.replaceChildren(
      make("h2", {}, "Steer"),
      make("p", {}, `${count(Object.keys(state.names).length, "cluster")} named, ${count(this.labels.size, "image")} labeled, ${this.wrong.size.toLocaleString("en-US")} marked as wrong; kept in ${state.file}.`),
      make("div", { className: "actions" },
        make("button", { type: "button", disabled: !state.can_undo, onclick: () => this.undo() }, "Undo (u)"),
        make("button", { type: "button", onclick: () => app.attempt(() => this.ask(asked)) }, "Ask me about 20 images")),
      asked,
      make("h3", {}, "Run again with what was said"),
      make("pre", {}, state.command),
      make("div", { className: "actions" }, make("button", { type: "button", onclick: () => app.attempt(async () => {
        await navigator.clipboard.writeText(state.command);
        app.say("copied");
      }) }, "Copy")),
      make("p", { className: "note" }, "Labels are known to the next run, which takes features and neighbors from this one. Then:"),
      make("pre", {}, state.look),
    );
  }

  // The images whose answers say the most, each with the likely answers as buttons.
  async ask(parent) {
    const { images } = await getJson("api/steering/suggestions?n=20");
    const canvases = images.map(() => make("canvas", {}));
    parent.replaceChildren(make("h3", {}, "What are these?"), ...images.map((image, i) => {
      const label = make("input", { placeholder: "another class", ariaLabel: "Class", maxLength: 200 });
      const box = make("div", { className: "ask" }, make("button", { type: "button", onclick: () => this.app.chooseImage(image.row) }, canvases[i]),
        make("div", {}, make("small", { className: "note" }, image.reason), make("div", { className: "actions" },
          ...image.choices.map((choice) => make("button", { type: "button", onclick: () => answer(choice) }, choice)),
          label, make("button", { type: "button", onclick: () => answer(label.value) }, "Is"))));
      label.setAttribute("list", "names");
      const answer = (text) => text.trim() && this.app.attempt(async () => {
        this.state = await postJson("api/steering/marks", { action: "label", rows: [image.row], label: text });
        await this.takeClusters();
        this.app.say(this.state.said);
        box.remove();
      });
      label.addEventListener("keydown", (event) => event.key === "Enter" && answer(label.value));
      return box;
    }), this.makeNames());
    await drawPictures(this.app.state.run, images.map((image) => image.row), canvases, 96);
  }
}
