// The state of the page in its address, so that a link leads to what is seen.
// Filters: key:low:high of numbers and flags, key:=1,2,3 of categories, joined by ";".

export function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const whole = (key) => (/^\d+$/.test(given.get(key) ?? "") ? Number(given.get(key)) : null);
  const numbers = (key) => (given.get(key) ?? "").split(",").map(Number);
  const view = numbers("view");
  return {
    run: whole("run") ?? 0,
    color: given.get("color"),
    tab: given.get("tab"),
    image: whole("image"),
    cluster: whole("cluster"),
    beside: given.get("beside") === "1",
    view: view.length === 3 && view.every(Number.isFinite) && view[2] > 0 ? { x: view[0], y: view[1], zoom: view[2] } : null,
    filters: readFilters(given.get("filter") ?? ""),
    lasso: readPolygon(given.get("lasso")),
  };
}

export function writeAddress(state) {
  const round = (value) => Number(value.toPrecision(4));
  const parts = new URLSearchParams();
  if (state.run) parts.set("run", state.run);
  parts.set("color", state.color);
  parts.set("tab", state.tab);
  if (state.image !== null) parts.set("image", state.image);
  if (state.cluster !== null) parts.set("cluster", state.cluster);
  if (state.beside) parts.set("beside", 1);
  const { x, y, zoom } = state.view;
  if (x || y || zoom !== 1) parts.set("view", [x, y, zoom].map(round).join(","));
  if (state.filters.length) parts.set("filter", state.filters.map(formatFilter).join(";"));
  if (state.lasso) parts.set("lasso", thin(state.lasso, 60).flat().map(round).join(","));
  history.replaceState(null, "", "#" + parts.toString().replaceAll("%2C", ",").replaceAll("%3A", ":"));
}

export function formatFilter(filter) {
  return filter.values ? `${filter.key}:=${filter.values.join(",")}` : `${filter.key}:${filter.low}:${filter.high}`;
}

function readFilters(text) {
  return text.split(";").flatMap((part) => {
    const [key, low, high] = part.split(":");
    if (!key || low === undefined) return [];
    if (low.startsWith("=")) return [{ key, values: low.slice(1).split(",").map(Number).filter(Number.isInteger) }];
    const range = { key, low: Number(low), high: Number(high) };
    return Number.isFinite(range.low) && Number.isFinite(range.high) ? [range] : [];
  });
}

function readPolygon(text) {
  const numbers = (text ?? "").split(",").map(Number);
  if (numbers.length < 6 || numbers.length % 2 || !numbers.every(Number.isFinite)) return null;
  return Array.from({ length: numbers.length / 2 }, (_, i) => [numbers[2 * i], numbers[2 * i + 1]]);
}

function thin(points, n) {
  const step = Math.max(1, points.length / n);
  return Array.from({ length: Math.min(n, points.length) }, (_, i) => points[Math.floor(i * step)]);
}
