// The panels beside the map: an image, the clusters, what is selected, two runs compared.

import { colorCategory, css } from "./colors.js";
import { count, make, makeFacts, makeGallery, makeTable, number, percent, save } from "./gallery.js";
import { getJson, pictureAddress, postText } from "./requests.js";

export async function showImage(panel, app) {
  const { image, run } = app.state;
  if (image === null) {
    app.setOverlay(null);
    return panel.replaceChildren(note("Click a point, or search by name, to see an image and its neighbors."));
  }
  const about = await getJson(`api/${run}/image/${image}`);
  if (app.state.image !== image || app.state.tab !== "image") return;
  const photo = make("img", { className: "photo", src: pictureAddress(run, image), alt: about.id });
  photo.onload = () => photo.classList.toggle("tiny", photo.naturalWidth <= 96);
  const neighbors = about.neighbors.slice(1);
  const negatives = new Map(about.negatives.map((each) => [each.row, each]));
  const near = new Map(neighbors.map((each) => [each.row, each]));
  app.setOverlay({
    row: image,
    lines: [
      ...about.second_order.slice(0, 400).map((row) => ({ row, kind: "second" })),
      ...about.negatives.map(({ row }) => ({ row, kind: "far" })),
      ...neighbors.map((each) => ({ row: each.row, kind: each.is_mutual ? "mutual" : "near" })),
    ],
  });
  const go = { onClick: (row) => app.chooseImage(row), onHover: (row) => app.point(row) };
  const kept = about.is_clean === null ? null : about.is_clean ? "kept" : "discarded";
  panel.replaceChildren(
    make("h2", {}, about.id), photo,
    app.steering ? app.steering.makeImageActions([image]) : "",
    makeFacts([
      ["row", String(image)],
      ...about.seeds.map(({ seed, cluster, confidence }) => [`seed ${seed}`, clusterLink(app, cluster, `, confidence ${percent(confidence)}`)]),
      ["known label", about.known],
      ["true label", about.truth],
      ["its neighbors", kept === null ? null : `${kept} (union of ${about.union_size}, at most ${about.max_union_size} are kept)`],
      ["mutual", percent(about.reciprocity)],
      ["far radius", `${about.far_radius.toFixed(4)}, rank ${about.far_rank.toLocaleString("en-US")}`],
    ]),
    make("h3", {}, `${count(neighbors.length, "neighbor")}, nearest first; solid lines are mutual`),
    makeGallery(run, neighbors.map((each) => each.row), {
      ...go,
      look: (row) => {
        const each = near.get(row);
        const state = each.is_clean === undefined ? "" : each.is_clean ? "kept" : "dropped";
        return {
          text: each.distance.toFixed(3), className: state,
          title: `${each.rank}: ${each.image_id}\ndistance ${each.distance.toFixed(4)}${each.is_mutual ? ", mutual" : ""}${state ? `, its own neighbors ${state === "kept" ? "kept" : "discarded"}` : ""}`,
        };
      },
    }),
    make("h3", {}, `${count(about.second_order.length, "image")} more in the union of their lists (second order)`),
    makeGallery(run, about.second_order, { ...go, look: (row) => ({ title: `row ${row}` }) }),
    ...(about.n_negatives ? [
      make("h3", {}, `Negatives, ${negatives.size} of ${about.n_negatives} (crosses in the map)`),
      makeGallery(run, [...negatives.keys()], {
        ...go,
        look: (row) => ({ text: negatives.get(row).distance?.toFixed(3) ?? "", title: negatives.get(row).image_id }),
      }),
    ] : []),
  );
}

export async function showClusters(panel, app) {
  if (!app.run.n_clusters) return panel.replaceChildren(note("There are no clusters yet: run the experiment to its end."));
  if (app.state.cluster !== null) return showCluster(panel, app);
  const about = await app.getClusters();
  if (app.state.tab !== "clusters") return;
  const rows = about.map((each) => ({
    onClick: () => app.chooseCluster(each.cluster),
    cells: [app.swatch(each.cluster), each.size, number(percent(each.confidence)), number(percent(each.agreement))],
  }));
  panel.replaceChildren(
    make("h2", {}, count(about.length, "cluster")),
    makeTable(["cluster", "images", "confidence", "neighbors within"], rows),
  );
}

async function showCluster(panel, app) {
  const { cluster } = app.state;
  const [about, rows] = await Promise.all([app.getClusters(), app.listCluster(cluster)]);
  if (app.state.cluster !== cluster || app.state.tab !== "clusters") return;
  const one = about.find((each) => each.cluster === cluster) ?? { size: 0, nearest: [] };
  const confidence = await app.getValues("confidence");
  panel.replaceChildren(
    make("div", { className: "actions" }, make("button", { type: "button", onclick: () => app.chooseCluster(null) }, "All clusters")),
    make("h2", {}, app.swatch(cluster)),
    makeFacts([
      ["images", one.size.toLocaleString("en-US")],
      ["mean confidence", percent(one.confidence)],
      ["neighbors within", percent(one.agreement)],
      ["other seeds agree", one.seeds === null ? null : percent(one.seeds)],
      ["most are", one.majority ? `${one.majority} (${percent(one.purity)})` : null],
    ]),
    make("div", { className: "actions" }, "Nearest: ", ...one.nearest.map((other) => make("button", { type: "button", onclick: () => app.chooseCluster(other) }, app.swatch(other)))),
    app.steering ? app.steering.makeClusterActions(cluster) : "",
    make("h3", {}, "From most to least confident"),
    makeGallery(app.state.run, rows, app.galleryOptions((row) => ({ text: percent(confidence[row]), title: `row ${row}, confidence ${confidence[row].toFixed(3)}` }))),
    make("div", { className: "actions" }, exportButton(app, rows, `cluster_${cluster}`)),
  );
}

export async function showSelection(panel, app) {
  const rows = app.selected();
  const hint = "Draw a lasso (l, or Shift and drag), pick pictures with Ctrl and a click, or add a filter below.";
  if (!rows.length) return panel.replaceChildren(note(hint));
  panel.replaceChildren(
    make("h2", {}, `${count(rows.length, "image")} selected`),
    make("div", { className: "actions" }, exportButton(app, rows, "selection"), copyButton(app, rows),
      make("button", { type: "button", onclick: () => app.clearSelection() }, "Clear (Esc)")),
    app.steering ? app.steering.makeImageActions(rows) : "",
    makeGallery(app.state.run, rows, app.galleryOptions((row) => ({ title: `row ${row}` }))),
  );
}

export async function showComparison(panel, app) {
  const about = await getJson("api/comparison");
  if (app.state.tab !== "compare") return;
  const [before, after] = about.names;
  const name = (cluster) => (cluster === null ? "none" : String(cluster));
  panel.replaceChildren(
    make("h2", {}, `${before} and ${after}`),
    make("p", {}, `${percent(about.stayed)} of ${count(about.n_images, "image")} stayed, once clusters are paired.`),
    make("div", { className: "actions" },
      make("button", { type: "button", onclick: () => app.toggleRun() }, "From one map to the other (x)"),
      make("button", { type: "button", ariaPressed: String(app.state.beside), onclick: () => app.toggleBeside() }, "Side by side")),
    make("h3", {}, "What moved"),
    about.moves.length ? makeTable([`from (${before})`, `to (${after})`, "images", "share"], about.moves.map((move) => ({
      onClick: () => app.showMove(move),
      cells: [name(move.from), name(move.to), move.n_images, number(percent(move.share))],
    }))) : note("Nothing."),
    make("h3", {}, "Clusters that were paired"),
    makeTable([before, after, "images", "", "stayed"], about.matching.map((pair) => ({
      onClick: () => pair.other !== null && app.chooseCluster(pair.other),
      cells: [name(pair.cluster), name(pair.other), pair.size, pair.other_size, number(percent(pair.stayed))],
    }))),
    about.scores.length ? make("h3", {}, "Scores (percent)") : "",
    about.scores.length ? makeTable(["", before, after], about.scores.map((score) => ({
      cells: [`${score.split} ${score.score}`, number(formatScore(score.score, score.one)), number(formatScore(score.score, score.other))],
    }))) : "",
  );
}

const formatScore = (name, value) => (value === null ? "–" : name === "used_clusters" ? value.toFixed(0) : (100 * value).toFixed(2));
const note = (text) => make("p", { className: "note" }, text);

export function swatch(tint, text) {
  const dot = make("span", { className: "swatch" });
  dot.style.background = css(colorCategory(tint));
  return make("span", {}, dot, text);
}

function clusterLink(app, cluster, more) {
  const link = make("button", { type: "button", onclick: () => app.chooseCluster(cluster) }, app.swatch(cluster));
  return make("span", {}, link, more);
}

function exportButton(app, rows, name) {
  const write = async () => save(`${app.run.name}_${name}.csv`, await postText(`api/${app.state.run}/csv`, { rows }));
  return make("button", { type: "button", className: "export", onclick: () => app.attempt(write) }, "Save as CSV");
}

function copyButton(app, rows) {
  const copy = async () => {
    const lines = (await postText(`api/${app.state.run}/ids`, { rows }));
    await navigator.clipboard.writeText(lines);
    app.say(`${count(rows.length, "name")} copied`);
  };
  return make("button", { type: "button", onclick: () => app.attempt(copy) }, "Copy names");
}
