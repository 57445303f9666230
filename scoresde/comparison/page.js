// The slider walks the states of the chosen run: small pictures, or points with the lines they came along.
"use strict";
const { kind, runs } = JSON.parse(document.getElementById("walks").textContent);
const choice = document.getElementById("run");
const slider = document.getElementById("step");
const place = document.getElementById("place");

function dots(flat) {
  let path = "";
  for (let k = 0; k < flat.length; k += 2) path += `M${flat[k]} ${flat[k + 1]}h0`;
  return path;
}

function trails(steps) {
  let path = "";
  for (let k = 0; k < steps[0].length; k += 2) path += "M" + steps.map((at) => `${at[k]} ${at[k + 1]}`).join("L");
  return path;
}

function show() {
  const run = runs[choice.value];
  const step = Number(slider.value);
  const where = `t = ${run.times[step]}, after ${run.calls[step]} network calls`;
  for (const part of ["x", "x0"]) {
    const shown = document.getElementById(part);
    if (kind === "images") {
      shown.src = run[part][step];
      shown.alt = `${shown.dataset.what} of ${run.label} at ${where}`;
    } else {
      shown.querySelector(".now").setAttribute("d", dots(run[part][step]));
      shown.querySelector(".trail").setAttribute("d", part === "x" ? trails(run.x.slice(0, step + 1)) : "");
      shown.setAttribute("aria-label", `${shown.dataset.what} of ${run.label} at ${where}`);
    }
  }
  place.textContent = where;
  slider.setAttribute("aria-valuetext", where);
}

function choose() {
  const share = slider.value / slider.max; // stay at about the same place
  slider.max = runs[choice.value].times.length - 1;
  slider.value = Math.round(share * slider.max);
  show();
}

slider.addEventListener("input", show);
choice.addEventListener("change", choose);
choose();
