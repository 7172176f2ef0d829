"use strict";
const lineage = JSON.parse(document.getElementById("lineage-data").textContent);
const element = (name, text = "", attributes = {}) => {
  const made = document.createElement(name);
  made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
};
const list = (pairs) => {
  const made = element("dl");
  for (const [name, value] of pairs) made.append(element("dt", name), element("dd", value));
  return made;
};

// From a sample to its model, its settings, and the training pictures nearest to it.
const dialog = document.getElementById("lineage");
const samples = [...document.querySelectorAll("button[data-sample]")];
let shown = 0;
const show = (number) => {
  shown = (number + samples.length) % samples.length;
  const button = samples[shown];
  const sample = lineage.samples[button.dataset.sample];
  const model = lineage.models[sample.model];
  document.getElementById("lineage-name").textContent = `${sample.prompt}, drawn by ${sample.model}`;
  const whole = element("div", "", { class: "whole" });
  const picture = button.querySelector("img").cloneNode();
  picture.loading = "eager";
  const words = element("div");
  words.append(element("h3", "Drawn with"), list(sample.settings), element("h3", "Its model"), list(model.facts));
  if (model.about) {
    const more = element("details");
    more.append(element("summary", "all that its file says"), element("pre", model.about));
    words.append(more);
  }
  whole.append(picture, words);
  const body = document.getElementById("lineage-body");
  body.replaceChildren(whole);
  if (sample.near.length) {
    body.append(element("h3", "The training pictures nearest to it"));
    if (sample.too_close) body.append(element("p", "It is nearer to one of them than nearly all held-out pictures are: it may be a copy.", { class: "note" }));
    const near = element("div", "", { class: "near" });
    for (const { key, says } of sample.near) {
      const found = lineage.training[key];
      const figure = element("figure");
      const caption = element("figcaption");
      caption.append(element("b", found.caption));
      for (const line of [says, found.path, found.license, found.attribution]) if (line) caption.append(element("br"), line);
      figure.append(element("img", "", { src: found.picture, alt: found.caption, class: "crisp" }), caption);
      near.append(figure);
    }
    body.append(near);
  }
  if (!dialog.open) dialog.showModal();
};
samples.forEach((button, number) => button.addEventListener("click", () => show(number)));
dialog.addEventListener("close", () => samples[shown].focus());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(shown + 1);
  if (event.key === "ArrowLeft") show(shown - 1);
});
for (const [id, step] of [["lineage-before", -1], ["lineage-after", 1]])
  document.getElementById(id).addEventListener("click", () => show(shown + step));
document.querySelectorAll("button[data-opens]").forEach((button) =>
  button.addEventListener("click", () => show(samples.findIndex((sample) => sample.dataset.sample === button.dataset.opens))));

// Arrow keys go from sample to sample.
document.querySelector(".samples").addEventListener("keydown", (event) => {
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  const row = event.target.closest("tr");
  if (!steps || !row) return;
  const line = [...row.querySelectorAll("button")];
  const place = line.indexOf(event.target.closest("button"));
  const other = steps[0] > 0 ? row.nextElementSibling : steps[0] < 0 ? row.previousElementSibling : row;
  const next = other && [...other.querySelectorAll("button")][place + steps[1]];
  if (next) { event.preventDefault(); next.focus(); }
});

// Previews over the steps.
for (const slider of document.querySelectorAll(".slider")) {
  const figures = [...slider.querySelectorAll("figure")];
  const input = slider.querySelector("input");
  const look = () => {
    figures.forEach((figure, number) => { figure.hidden = number !== Number(input.value); });
    slider.querySelector("output").textContent = figures[input.value].dataset.step;
  };
  input.closest("label").hidden = false;
  input.addEventListener("input", look);
  figures.forEach((figure) => { figure.querySelector("figcaption").hidden = true; });
  look();
}

// What each stage took, if its file lies beside the page.
if (typeof times !== "undefined" && Object.keys(times).length) {
  const clock = (seconds) => {
    if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds), minutes = Math.round(seconds / 60);
    return seconds < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  const rows = Object.entries(times);
  const total = rows.reduce((sum, [, row]) => sum + row.seconds, 0);
  const cost = rows.reduce((sum, [, row]) => sum + row.seconds / 3600 * row.price, 0);
  const longest = Math.max(...rows.map(([, row]) => row.seconds));
  const table = document.getElementById("times-rows");
  for (const [name, row] of rows) {
    const line = element("tr");
    const bar = element("span", "", { class: "bar" });
    bar.append(element("i", "", { style: `width:${(10 * row.seconds / longest).toFixed(2)}rem` }));
    const cell = element("td");
    cell.append(bar);
    line.append(element("th", name, { scope: "row" }), element("td", clock(row.seconds), { class: "number" }), cell,
      element("td", `${row.megabytes.toLocaleString("en")} MB`, { class: "number" }),
      element("td", row.price ? (row.seconds / 3600 * row.price).toFixed(2) : "–", { class: "number" }), element("td", row.on));
    table.append(line);
  }
  document.getElementById("times-total").textContent = `${clock(total)} in all${cost ? `, which cost ${cost.toFixed(2)}` : ""}.`;
  document.getElementById("times").hidden = false;
}
