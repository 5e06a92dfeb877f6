"""What the page of an exploration does in a browser, as JavaScript for bokeh's callbacks."""

#: the axes were chosen: moves the points, and draws their front
MOVE = """
const [a, b] = [x.value, y.value];
for (const source of [points, ...marks]) {
  source.data.x = Array.from(source.data[a]);
  source.data.y = Array.from(source.data[b]);
}
// of what has one figure only: a line at it
const one = (values, others) => values.map((v, i) => Number.isNaN(others[i]) ? v : NaN);
for (const {data} of marks) {
  data.across = one(data.y, data.x);
  data.up = one(data.x, data.y);
  if ("across_label" in data) {
    data.across_label = data[`${b} label`];
    data.up_label = data[`${a} label`];
  }
}
for (const source of [points, ...marks]) source.change.emit();
for (const [axis, grid, name] of [[x_axis, x_grid, a], [y_axis, y_grid, b]]) {
  axis.axis_label = labels[name];
  axis.ticker = grid.ticker = tickers[name] ?? tickers.other;
}
const all = points.data.x.map((value, i) => [value, points.data.y[i], i]);
const every = a == "parts" || b == "parts";
all.sort((p, q) => p[0] - q[0] || p[1] - q[1] || p[2] - q[2]);
let found = [];
if (every) {
  // K is neither good nor bad in itself: the least of the other figure for each
  const [key, other] = a == "parts" ? [0, 1] : [1, 0];
  const least = new Map();
  for (const p of all) {
    if (!least.has(p[key]) || p[other] < least.get(p[key])[other]) least.set(p[key], p);
  }
  found = [...least.values()].sort((p, q) => p[key] - q[key]);
} else {
  let low = Infinity;
  for (const p of all) {
    if (p[1] < low) { found.push(p); low = p[1]; }
  }
}
const line = {x: [], y: []};
found.forEach((p, i) => {
  if (!every && i) { line.x.push(p[0]); line.y.push(found[i - 1][1]); }
  line.x.push(p[0]);
  line.y.push(p[1]);
});
front_line.data = line;
front.data = {x: found.map(p => p[0]), y: found.map(p => p[1])};
"""

#: 1, 2, 5, 10, ... where the axis shows more than a decade; else even steps
TICKS = """
const [low, high] = [Math.min(cb_data.start, cb_data.end), Math.max(cb_data.start, cb_data.end)];
const ticks = [];
if (high > 10 * low) {
  const dense = high < 1000 * low ? [1, 2, 5] : [1];
  for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) {
    for (const m of dense) ticks.push(m * 10 ** p);
  }
} else {
  const rough = (high - low) / 6, unit = 10 ** Math.floor(Math.log10(rough));
  const step = unit * [1, 2, 5, 10].find(m => m * unit >= rough);
  for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(i * step);
}
return ticks.filter(tick => tick >= low && tick <= high);
"""

#: a number at a tick
TICK = """
return tick >= 1000 ? Math.round(tick).toLocaleString("en") : String(+tick.toPrecision(3));
"""

#: a colouring was chosen: shows its points and its names in the legend
COLOUR = """
for (const [name, items] of Object.entries(groups)) {
  for (const item of items) {
    item.visible = name == colour.value;
    for (const one of item.renderers) one.visible = name == colour.value;
  }
}
"""

#: what the bars stand for was chosen
BARS = """
const table = tables[of.value], share = unit.value == "share of time";
const data = {label: table.labels};
for (const name of names) {
  data[name] = table[name].map((value, i) => share ? 100 * value / table.total[i] : value);
}
x_range.factors = table.labels;
bars.data = data;
axis.axis_label = share ? "share of time (%)" : "seconds";
"""
