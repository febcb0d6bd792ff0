// Colors that people who see fewer of them can tell apart, as far as numbers allow.

const OKABE_ITO = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#6b4fbb"];
const VIRIDIS = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
const NONE = { light: [190, 196, 203], dark: [74, 82, 92] };
const FLAG = { light: [[178, 188, 198], [213, 94, 0]], dark: [[84, 94, 106], [255, 138, 61]] };

export const isDark = () => document.documentElement.dataset.theme === "dark";
const theme = () => (isDark() ? "dark" : "light");

export const pack = ([r, g, b]) => (0xff000000 | (b << 16) | (g << 8) | r) >>> 0; // as canvases have it
export const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

const parse = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// Of n categories: eight known to be told apart, then hues by the golden angle in three lightnesses.
export function colorCategory(i) {
  if (i < 0) return NONE[theme()];
  if (i < OKABE_ITO.length) return parse(OKABE_ITO[i]);
  const hue = (i * 137.508) % 360;
  const lightness = (isDark() ? [0.62, 0.72, 0.52] : [0.48, 0.58, 0.38])[i % 3];
  return fromHsl(hue, 0.62, lightness);
}

export function colorNumber(share) {
  const place = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[low].map((value, i) => Math.round(value + (VIRIDIS[low + 1][i] - value) * (place - low)));
}

export const colorFlag = (is) => FLAG[theme()][is ? 1 : 0];
export const colorFaint = () => (isDark() ? [36, 41, 48] : [232, 235, 238]);
export const colorBack = () => (isDark() ? [15, 18, 21] : [250, 250, 250]);

function fromHsl(hue, saturation, lightness) {
  const spread = saturation * Math.min(lightness, 1 - lightness);
  return [0, 8, 4].map((n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (lightness - spread * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

// The range that numbers are colored over: all but a hundredth at either end.
export function findRange(values) {
  const step = Math.max(1, Math.floor(values.length / 20000));
  const some = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) some.push(values[i]);
  some.sort((a, b) => a - b);
  if (!some.length) return [0, 1];
  const at = (share) => some[Math.round(share * (some.length - 1))];
  const [low, high] = [at(0.01), at(0.99)];
  return high > low ? [low, high] : [some[0], some[some.length - 1] > some[0] ? some[some.length - 1] : some[0] + 1];
}

// Packed colors of all images by a column; `tint` says which color a category has.
export function colorAll(column, values, range, tint) {
  const colors = new Uint32Array(values.length);
  if (column.kind === "number") {
    const table = Uint32Array.from({ length: 256 }, (_, i) => pack(colorNumber(i / 255)));
    const [low, high] = range, none = pack(colorCategory(-1));
    for (let i = 0; i < values.length; i++) {
      const share = (values[i] - low) / (high - low);
      colors[i] = Number.isNaN(share) ? none : table[Math.round(255 * Math.min(Math.max(share, 0), 1))];
    }
    return colors;
  }
  const of = column.kind === "flag" ? colorFlag : (value) => colorCategory(tint(value));
  const known = new Map();
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    let color = known.get(value);
    if (color === undefined) known.set(value, (color = pack(of(value))));
    colors[i] = color;
  }
  return colors;
}
