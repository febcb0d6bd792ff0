// Search: images whose name holds a text, or a row.

import { make } from "./gallery.js";
import { getJson } from "./requests.js";

export function listenToSearch(app) {
  const field = document.getElementById("search"), list = document.getElementById("found");
  const choose = (row) => {
    list.hidden = true;
    field.value = "";
    field.blur();
    app.chooseImage(row);
  };
  const search = async () => {
    const text = field.value.trim();
    const { images } = text ? await getJson(`api/${app.state.run}/search?q=${encodeURIComponent(text)}`) : { images: [] };
    if (field.value.trim() !== text) return;
    list.hidden = !text;
    const found = images.map(({ row, id }) => make("li", {}, make("button", { type: "button", onclick: () => choose(row) }, id)));
    list.replaceChildren(...(found.length ? found : [make("li", { className: "note" }, "no image has this in its name")]));
  };
  field.oninput = () => app.attempt(search);
  field.onkeydown = (event) => {
    if (event.key === "Enter") list.querySelector("button")?.click();
    if (event.key !== "Escape") return;
    field.value = "";
    list.hidden = true;
    field.blur();
  };
  document.addEventListener("click", (event) => {
    if (!event.target.closest(".search")) list.hidden = true;
  });
}
