// What the page asks of its server. Addresses are relative, so each has the token of this page's own.

const ARRAYS = { category: Int32Array, number: Float32Array, flag: Uint8Array };

async function send(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("the explorer does not answer; is its command still running?");
  }
  if (response.ok) return response;
  const type = response.headers.get("Content-Type") ?? "";
  throw new Error(type.startsWith("application/json") ? (await response.json()).error : response.statusText);
}

function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return send(path, { method: "POST", headers, body: JSON.stringify(body) });
}

export const getJson = async (path) => (await send(path)).json();
export const postJson = async (path, body) => (await post(path, body)).json();
export const postText = async (path, body) => (await post(path, body)).text();

export async function getColumn(run, column) {
  const response = await send(`api/${run}/column/${column.key}`);
  return new ARRAYS[column.kind](await response.arrayBuffer());
}

export async function getPositions(run) {
  return new Float32Array(await (await send(`api/${run}/column/positions`)).arrayBuffer());
}

export async function getClusters() {
  return new Int32Array(await (await send("api/steering/clusters")).arrayBuffer());
}

export const pictureAddress = (run, row) => `api/${run}/picture/${row}`;

const ATLAS_COLUMNS = 16;

// Draws the small picture of each row into its canvas; one request for up to 128 of them.
export async function drawPictures(run, rows, canvases, size = 64) {
  const parts = [];
  for (let start = 0; start < rows.length; start += 128) parts.push(start);
  await Promise.all(parts.map(async (start) => {
    const part = rows.slice(start, start + 128);
    const atlas = await getAtlas(run, part, size);
    part.forEach((_, i) => {
      const canvas = canvases[start + i];
      canvas.width = canvas.height = size;
      drawCell(canvas.getContext("2d"), atlas, i, size, 0, 0, size);
    });
  }));
}

export async function getAtlas(run, rows, size) {
  const response = await send(`api/${run}/atlas?size=${size}&rows=${rows.join(",")}`);
  return createImageBitmap(await response.blob());
}

export function drawCell(pen, atlas, i, size, x, y, side) {
  const left = (i % ATLAS_COLUMNS) * size, top = Math.floor(i / ATLAS_COLUMNS) * size;
  pen.drawImage(atlas, left, top, size, size, x, y, side, side);
}
