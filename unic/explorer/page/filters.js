// Filters: which images are shown, by their columns.

import { make } from "./gallery.js";

// 1 for every image that passes all filters.
export function applyFilters(n, filters, valuesOf) {
  const isShown = new Uint8Array(n).fill(1);
  for (const filter of filters) {
    const values = valuesOf(filter.key);
    if (!values) continue;
    if (filter.values) {
      const wanted = new Set(filter.values);
      for (let i = 0; i < n; i++) if (!wanted.has(values[i])) isShown[i] = 0;
    } else {
      const { low, high } = filter;
      for (let i = 0; i < n; i++) if (!(values[i] >= low && values[i] <= high)) isShown[i] = 0;
    }
  }
  return isShown;
}

// The filters in words, each with a button that takes it away, and a form that adds one.
export function showFilters(parent, { filters, columns, nameOf, rangeOf, onChange }) {
  const chips = filters.map((filter, i) => make("span", { className: "chip" },
    describe(filter, columns, nameOf),
    make("button", { type: "button", title: "Take this filter away", onclick: () => onChange(filters.filter((_, j) => j !== i)) }, "×")));
  const key = make("select", { ariaLabel: "Filter by" }, make("option", { value: "" }, "Filter by…"),
    ...columns.map((column) => make("option", { value: column.key }, column.title)));
  const form = make("span", {});
  key.onchange = async () => {
    const column = columns.find((each) => each.key === key.value);
    form.replaceChildren();
    if (!column) return;
    const add = (filter) => onChange([...filters, { key: column.key, ...filter }]);
    form.append(...(await makeForm(column, { nameOf, rangeOf, add })));
    form.querySelector("input, select")?.focus();
  };
  parent.replaceChildren(...chips, key, form);
}

async function makeForm(column, { nameOf, rangeOf, add }) {
  if (column.kind === "flag") {
    return [["yes", 1], ["no", 0]].map(([text, value]) => make("button", { type: "button", onclick: () => add({ low: value, high: value }) }, text));
  }
  if (column.kind === "category") {
    const values = await rangeOf(column);
    const choice = make("select", { ariaLabel: column.title }, make("option", { value: "" }, "is…"),
      ...values.map((value) => make("option", { value }, nameOf(column, value))));
    choice.onchange = () => add({ values: [Number(choice.value)] });
    return [choice];
  }
  const [low, high] = await rangeOf(column);
  const fields = [low, high].map((value, i) => make("input", { type: "number", step: "any", value: Number(value.toPrecision(4)), ariaLabel: i ? "at most" : "at least" }));
  const apply = () => {
    const [from, to] = fields.map((field) => Number(field.value));
    if (Number.isFinite(from) && Number.isFinite(to)) add({ low: from, high: to });
  };
  fields.forEach((field) => field.addEventListener("keydown", (event) => event.key === "Enter" && apply()));
  return [fields[0], " to ", fields[1], make("button", { type: "button", onclick: apply }, "Apply")];
}

function describe(filter, columns, nameOf) {
  const column = columns.find((each) => each.key === filter.key);
  if (!column) return filter.key;
  if (filter.values) return `${column.title}: ${filter.values.map((value) => nameOf(column, value)).join(", ")}`;
  if (column.kind === "flag") return `${column.title}: ${filter.low ? "yes" : "no"}`;
  return `${column.title}: ${filter.low} to ${filter.high}`;
}
