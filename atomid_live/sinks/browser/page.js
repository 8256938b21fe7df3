"use strict";
// Every word from outside goes into the page as text, never as markup.
const byId = (id) => document.getElementById(id);
const say = (id, words) => { byId(id).textContent = words; };
const STEPS = [0.2, 0.5, 1, 2, 5, 10, 20, 50];
const BARS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
const BLUE_RED = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]];
const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const GREY = "#999";
let shown = null, picture = null, columns = new Float32Array(0), halfRange = STEPS[0], sequence = -1;

function colour(table, part) {
  const place = Math.min(Math.max(part, 0), 1) * (table.length - 1);
  const low = Math.min(Math.floor(place), table.length - 2), rest = place - low;
  return `rgb(${table[low].map((c, i) => Math.round(c + (table[low + 1][i] - c) * rest)).join(",")})`;
}
const strainColour = (value) => Number.isNaN(value) ? GREY : colour(BLUE_RED, 0.5 + value / (2 * halfRange));

function prepare(id) {
  const canvas = byId(id), ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio; canvas.height = canvas.clientHeight * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio); pen.font = "12px system-ui, sans-serif";
  return [pen, canvas.clientWidth, canvas.clientHeight];
}

function chooseRange() {
  const sizes = [];
  for (let k = 3; k < columns.length; k += 4) if (!Number.isNaN(columns[k])) sizes.push(Math.abs(columns[k]));
  if (!sizes.length) return;
  sizes.sort((a, b) => a - b);
  const wanted = sizes[Math.floor(0.98 * (sizes.length - 1))], old = STEPS.indexOf(halfRange);
  let place = STEPS.findIndex((step) => step >= wanted);
  if (place < 0) place = STEPS.length - 1;
  if (place > old || place <= old - 2) halfRange = STEPS[place];  // frames compare while the range stays
}

function fit(frame, width, height) {
  const scale = Math.min((width - 90) / frame.width_px, (height - 8) / frame.height_px);
  return [scale, Math.max(0, (width - 90 - scale * frame.width_px) / 2), 4];
}

function colourBar(pen, width, height, table, low, high, label) {
  const left = width - 62, top = 12, tall = height - 24;
  for (let k = 0; k < tall; k++) { pen.fillStyle = colour(table, 1 - k / tall); pen.fillRect(left, top + k, 12, 1.5); }
  pen.fillStyle = "#1f2328"; pen.textAlign = "left"; pen.textBaseline = "middle";
  for (const part of [0, 0.5, 1]) pen.fillText(String(+(low + (high - low) * part).toPrecision(3)), left + 16, top + tall * (1 - part));
  pen.save(); pen.translate(width - 6, height / 2); pen.rotate(-Math.PI / 2); pen.textAlign = "center"; pen.fillText(label, 0, 0); pen.restore();
}

function scaleBar(pen, frame, scale, left, top) {
  if (frame.pixel_x_nm === null) return;
  const fitting = BARS.filter((length) => length <= frame.width_px * frame.pixel_x_nm / 4);
  if (!fitting.length) return;
  const length = fitting[fitting.length - 1], wide = length / frame.pixel_x_nm * scale;
  const x = left + 12, y = top + frame.height_px * scale - 18;
  pen.fillStyle = "rgba(0,0,0,0.55)"; pen.fillRect(x - 6, y - 20, wide + 12, 32);
  pen.fillStyle = "#fff"; pen.fillRect(x, y, wide, 5);
  pen.textAlign = "center"; pen.textBaseline = "bottom"; pen.fillText(`${length} nm`, x + wide / 2, y - 2);
}

function drawFrame() {
  const [pen, width, height] = prepare("frame"), frame = shown.frame, byStrain = byId("by-strain").checked && shown.strain.valid;
  const [scale, left, top] = fit(frame, width, height);
  pen.imageSmoothingEnabled = false;
  if (picture) pen.drawImage(picture, left, top, frame.width_px * scale, frame.height_px * scale);
  const dot = Math.max(1, Math.min(6, 0.3 * (frame.spacing_px || 8) * scale));
  for (let k = 0; k < columns.length; k += 4) {
    pen.fillStyle = byStrain ? strainColour(columns[k + 3]) : colour(VIRIDIS, columns[k + 2]);
    pen.fillRect(left + (columns[k] + 0.5) * scale - dot / 2, top + (columns[k + 1] + 0.5) * scale - dot / 2, dot, dot);
  }
  scaleBar(pen, frame, scale, left, top);
  if (byStrain) colourBar(pen, width, height, BLUE_RED, -halfRange, halfRange, "hydrostatic strain (%)");
  else colourBar(pen, width, height, VIRIDIS, 0, 1, "score");
  const sent = frame.columns_sent < frame.columns ? `, ${frame.columns_sent} drawn` : "";
  say("frame-title", `${frame.columns} columns${sent}${frame.pixel_x_nm === null ? ", no pixel size known" : ""}`);
}

function write(pen, words, x, y, wide) {
  const lines = [""];
  for (const word of words.split(" ")) {
    const longer = `${lines[lines.length - 1]} ${word}`.trim();
    if (pen.measureText(longer).width > wide && lines[lines.length - 1]) lines.push(word); else lines[lines.length - 1] = longer;
  }
  pen.fillStyle = "rgba(255,255,255,0.9)"; pen.fillRect(x - wide / 2 - 6, y - 9 * lines.length - 5, wide + 12, 18 * lines.length + 10);
  pen.fillStyle = "#1f2328"; pen.textAlign = "center"; pen.textBaseline = "middle";
  lines.forEach((line, k) => pen.fillText(line, x, y + 18 * (k - (lines.length - 1) / 2)));
}

function drawMap() {
  const [pen, width, height] = prepare("map"), frame = shown.frame, strain = shown.strain;
  const [scale, left, top] = fit(frame, width, height), wide = frame.width_px * scale, tall = frame.height_px * scale;
  pen.fillStyle = GREY; pen.fillRect(left, top, wide, tall);
  const side = 1.5 * (frame.spacing_px || 8) * scale;
  pen.save(); pen.beginPath(); pen.rect(left, top, wide, tall); pen.clip();
  for (let k = 0; k < columns.length; k += 4) {
    if (Number.isNaN(columns[k + 3])) continue;
    pen.fillStyle = strainColour(columns[k + 3]);
    pen.fillRect(left + (columns[k] + 0.5) * scale - side / 2, top + (columns[k + 1] + 0.5) * scale - side / 2, side, side);
  }
  pen.restore();
  scaleBar(pen, frame, scale, left, top);
  colourBar(pen, width, height, BLUE_RED, -halfRange, halfRange, "hydrostatic strain (%)");
  if (!strain.valid) write(pen, `strain not valid: ${strain.reason || "no reason given"}`, left + wide / 2, top + tall / 2, 0.7 * wide);
  else if (strain.alarm) write(pen, `ALARM: ${strain.alarm.split(";")[0]}`, left + wide / 2, top + tall - 60, 0.7 * wide);
  say("map-title", `Strain${strain.reference ? ` against ${strain.reference}` : ""}; grey: no strain known`);
}

function ticks(from, to, wanted) {  // round numbers, about as many as wanted
  const low = Math.min(from, to), high = Math.max(from, to), raw = (high - low) / wanted, ten = 10 ** Math.floor(Math.log10(raw));
  const step = ten * [1, 2, 5, 10].find((factor) => factor * ten >= raw), found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(+(k * step).toPrecision(6));
  return found;
}

function axes(pen, width, height, low, high, left, right, labels) {
  const box = { x: 62, y: 8, w: width - 76, h: height - 44 };
  const toX = (v) => box.x + (v - left) / (right - left) * box.w, toY = (v) => box.y + (high - v) / (high - low) * box.h;
  pen.strokeStyle = "#d0d7de"; pen.fillStyle = "#1f2328"; pen.lineWidth = 1;
  pen.strokeRect(box.x, box.y, box.w, box.h);
  for (const v of ticks(low, high, 4)) {
    pen.textAlign = "right"; pen.textBaseline = "middle"; pen.fillText(String(v), box.x - 5, toY(v));
    pen.beginPath(); pen.moveTo(box.x, toY(v)); pen.lineTo(box.x + box.w, toY(v)); pen.stroke();
  }
  pen.textAlign = "center"; pen.textBaseline = "top";
  for (const h of ticks(left, right, 6)) pen.fillText(String(h), toX(h), box.y + box.h + 4);
  pen.fillText(labels[0], box.x + box.w / 2, height - 15);
  pen.save(); pen.translate(12, box.y + box.h / 2); pen.rotate(-Math.PI / 2); pen.textBaseline = "middle"; pen.fillText(labels[1], 0, 0); pen.restore();
  return [toX, toY, box];
}

function line(pen, xs, ys, toX, toY, style, thick) {
  pen.strokeStyle = style; pen.lineWidth = thick; pen.beginPath();
  let gap = true;
  ys.forEach((y, k) => {
    if (y === null || xs[k] === null) { gap = true; return; }
    if (gap) pen.moveTo(toX(xs[k]), toY(y)); else pen.lineTo(toX(xs[k]), toY(y));
    gap = false;
  });
  pen.stroke();
}

function drawPath() {
  const [pen, width, height] = prepare("path"), drift = shown.drift;
  const known = drift.x.map((x, k) => [x, drift.y[k]]).filter(([x, y]) => x !== null && y !== null);
  say("path-title", `Drift since the segment's first frame: ${drift.speed}`);
  if (!known.length) { write(pen, "place unknown", width / 2, height / 2, 200); return; }
  const xs = known.map((p) => p[0]), ys = known.map((p) => p[1]);
  const minX = Math.min(...xs), maxX = Math.max(...xs), minY = Math.min(...ys), maxY = Math.max(...ys);
  const ratio = (width - 76) / (height - 44), sigma = Math.max(drift.sigma_x || 0, drift.sigma_y || 0);
  const least = Math.max(drift.unit === "nm" ? 0.02 : 2, 4.4 * sigma);
  const half = 0.58 * Math.max(maxY - minY, (maxX - minX) / ratio, least), midX = (minX + maxX) / 2, midY = (minY + maxY) / 2;
  // y downwards, as on the frame
  const labels = [`x (${drift.unit}, to the right)`, `y (${drift.unit}, downwards)`];
  const [toX, toY, box] = axes(pen, width, height, midY + half, midY - half, midX - half * ratio, midX + half * ratio, labels);
  line(pen, drift.x, drift.y, toX, toY, "#0969da", 1.5);
  const last = known[known.length - 1], perUnit = box.h / (2 * half);
  if (drift.sigma_x !== null && drift.sigma_y !== null && drift.x[drift.x.length - 1] !== null) {
    pen.fillStyle = "rgba(207,34,46,0.25)"; pen.beginPath();
    pen.ellipse(toX(last[0]), toY(last[1]), 2 * drift.sigma_x * perUnit, 2 * drift.sigma_y * perUnit, 0, 0, 7); pen.fill();
  }
  pen.fillStyle = "#cf222e"; pen.beginPath(); pen.arc(toX(last[0]), toY(last[1]), 4, 0, 7); pen.fill();
}

function drawHistory() {
  const [pen, width, height] = prepare("history"), strain = shown.strain;
  const valid = strain.valid ? "valid" : `not valid: ${strain.reason}`;
  say("history-title", `Hydrostatic strain ± 1 standard error (band); exx violet, eyy orange; ${valid}`);
  const every = [...strain.exx, ...strain.eyy, ...strain.hydrostatic.map((v, k) => v === null ? null : Math.abs(v) + (strain.sem[k] || 0))];
  const top = 1.15 * Math.max(0.1, ...every.filter((v) => v !== null).map(Math.abs));
  const times = strain.minutes, end = Math.max(times[times.length - 1] || 0, 0.1);
  const [toX, toY] = axes(pen, width, height, -top, top, 0, end, ["time in this segment (min)", "strain (%)"]);
  pen.fillStyle = "rgba(9,105,218,0.25)";
  for (let k = 1; k < times.length; k++) {
    const pair = [k - 1, k];
    if (pair.some((i) => strain.hydrostatic[i] === null || strain.sem[i] === null || times[i] === null)) continue;
    pen.beginPath();
    for (const i of pair) pen.lineTo(toX(times[i]), toY(strain.hydrostatic[i] + strain.sem[i]));
    for (const i of pair.reverse()) pen.lineTo(toX(times[i]), toY(strain.hydrostatic[i] - strain.sem[i]));
    pen.fill();
  }
  line(pen, times, strain.exx, toX, toY, "#8250df", 1);
  line(pen, times, strain.eyy, toX, toY, "#bc4c00", 1);
  line(pen, times, strain.hydrostatic, toX, toY, "#0969da", 2);
  pen.fillStyle = "#cf222e";
  strain.alarms.forEach((on, k) => { if (on && strain.hydrostatic[k] !== null) pen.fillRect(toX(times[k]) - 3, toY(strain.hydrostatic[k]) - 3, 6, 6); });
}

function words(state) {
  byId("verdicts").replaceChildren(...state.verdicts.map((verdict) => {
    const box = document.createElement("span");
    box.className = "verdict";
    box.classList.add(["good", "watch", "bad"].includes(verdict.level) ? verdict.level : "unknown");
    box.textContent = `${verdict.title} ${verdict.word}`; box.title = verdict.detail;
    return box;
  }));
  const frame = state.frame, number = (v) => v === null ? "-" : v.toFixed(0);
  say("about", frame ? `frame ${frame.sequence}  ${frame.file}  ${frame.columns} columns  ${state.age} old` : "no frame yet");
  say("problem", state.recording ? state.problem : `NOT RECORDING: ${state.problem}`);
  const counted = Object.entries(state.counts).map(([name, count]) => `${count} ${name}`).join(" + ");
  say("counts", `received ${state.received} = ${counted}; missing ${state.missing}, behind ${state.behind}; ` +
    `latency ${state.latency_ms.map(number).join("/")} ms (p50/95/99); ${state.model}; ${state.session}${state.running ? "" : "; ended"}`);
  say("remarks", frame ? frame.remarks.join("; ") : "");
}

async function load(frame) {
  const [answer, image] = await Promise.all([fetch(`/columns/${frame.sequence}.f32`), fetch(`/frame/${frame.sequence}.jpg`)]);
  if (!answer.ok || !image.ok) return false;  // the session has gone on; the next state tells of a newer frame
  columns = new Float32Array(await answer.arrayBuffer());
  const blob = await image.blob();
  picture = blob.size ? await createImageBitmap(blob) : null;
  return true;
}

function redraw() { if (shown) { drawFrame(); drawMap(); drawPath(); drawHistory(); } }

async function look() {
  try {
    const state = await (await fetch("/state.json")).json();
    words(state);
    if (state.frame && state.frame.sequence !== sequence && await load(state.frame)) {
      sequence = state.frame.sequence; shown = state; chooseRange(); redraw();
    }
  } catch (error) {
    say("problem", "the session does not answer: it has ended, or was stopped");
  }
  setTimeout(look, 500);
}
byId("by-strain").addEventListener("change", redraw);
window.addEventListener("resize", redraw);
look();
