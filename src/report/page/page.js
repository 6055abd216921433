"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const text = (i) => data.strings[i];
  const byId = (id) => document.getElementById(id);

  // --- Small helpers -------------------------------------------------------------------------------------------------------
  const svgNames = "http" + "://www.w3.org/2000/svg";  // a name, not an address
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (key === "style") node.style.cssText = value; else node.setAttribute(key, value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
  };
  const draw = (tag, attributes = {}, ...children) => {
    const node = document.createElementNS(svgNames, tag);
    for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const digits = (v, n = 3) => {
    if (v === null || v === undefined || !Number.isFinite(v)) return "–";
    if (v === 0) return "0";
    const size = Math.abs(v);
    if (size >= 1e15 || size < 1e-5) return v.toExponential(n - 1);
    return v.toLocaleString("en", { maximumSignificantDigits: n, minimumSignificantDigits: size >= Math.pow(10, n) ? 1 : n });
  };
  const scaled = (v, base, steps) => {
    if (v === null || v === undefined || !Number.isFinite(v)) return "–";
    let chosen = steps[0];
    for (const step of steps) if (Math.abs(v) >= step[0]) chosen = step;
    return digits(v / chosen[0]) + "\u00a0" + chosen[1] + base;
  };
  const seconds = (v) => scaled(v, "s", [[1e-9, "n"], [1e-6, "µ"], [1e-3, "m"], [1, ""]]);
  const bytes = (v) => scaled(v, "B", [[1, ""], [1024, "Ki"], [1048576, "Mi"], [1073741824, "Gi"], [1099511627776, "Ti"]]);
  const perSecond = (v) => scaled(v, "B/s", [[1e6, "M"], [1e9, "G"], [1e12, "T"], [1e15, "P"]]);
  const flopPerSecond = (v) => scaled(v, "FLOP/s", [[1e6, "M"], [1e9, "G"], [1e12, "T"], [1e15, "P"], [1e18, "E"]]);
  const flop = (v) => scaled(v, "FLOP", [[1, ""], [1e3, "k"], [1e6, "M"], [1e9, "G"], [1e12, "T"], [1e15, "P"], [1e18, "E"]]);
  const joules = (v) => scaled(v, "J", [[1e-3, "m"], [1, ""], [1e3, "k"], [1e6, "M"], [1e9, "G"]]);
  const money = (v) => v === null ? "–" : "$" + (v >= 1 && v < 100 ? v.toFixed(2) : digits(v, v < 1 ? 2 : 3));
  const percent = (v) => v === null ? "–" : v > 0 && v < 0.001 ? "<0.1\u00a0%" : digits(v * 100, v < 0.1 ? 2 : v < 1 ? 2 : 3) + "\u00a0%";
  const gain = (ratio) => {
    if (!(ratio > 0)) return "–";
    const speed = 1 / ratio;
    if (speed >= 1.5) return digits(speed, 2) + "× faster";
    if (speed <= 1 / 1.5) return digits(ratio, 2) + "× slower";
    const change = Math.abs(speed - 1) * 100;
    if (change < 0.05) return "no faster";
    return digits(change, 2) + " % " + (speed > 1 ? "faster" : "slower");
  };
  const change = (ratio) => {
    if (ratio === null || !(ratio > 0)) return null;
    const c = (ratio - 1) * 100;
    return Math.abs(c) < 0.05 ? "same" : (c > 0 ? "+" : "−") + digits(Math.abs(c), 2) + "\u00a0%";
  };
  const words = (name) => ({ weight: "weights", activation: "activations", kv_cache: "KV cache", gradient: "gradients",
                             optimizer_state: "optimizer state" })[name] || name.replace(/_/g, " ");

  // --- Bounds: colour and shape ---------------------------------------------------------------------------------------------
  const groups = [
    { key: "memory", label: "memory", colour: "--memory", shape: "circle", of: ["memory"] },
    { key: "compute", label: "compute", colour: "--compute", shape: "square", of: ["compute"] },
    { key: "chip", label: "on chip", colour: "--chip", shape: "diamond", of: ["on-chip memory"] },
    { key: "link", label: "host link or disk", colour: "--link", shape: "triangle", of: ["host link", "disk"] },
    { key: "special", label: "element-wise units", colour: "--special", shape: "pentagon", of: ["special functions"] },
    { key: "other", label: "overhead", colour: "--other", shape: "cross", of: [] },
  ];
  const groupOf = (bound) => groups.find((g) => g.of.includes(bound)) || groups[groups.length - 1];
  // A path of the same area for every shape.
  const shapePath = (shape, x, y, r) => {
    const polygon = (n, radius, turn) => Array.from({ length: n }, (_, i) => {
      const a = turn + i * 2 * Math.PI / n;
      return (i ? "L" : "M") + (x + radius * Math.cos(a)).toFixed(2) + " " + (y + radius * Math.sin(a)).toFixed(2);
    }).join("") + "Z";
    switch (shape) {
      case "square": return polygon(4, r * 1.25, Math.PI / 4);
      case "diamond": return polygon(4, r * 1.25, 0);
      case "triangle": return polygon(3, r * 1.55, -Math.PI / 2);
      case "pentagon": return polygon(5, r * 1.15, -Math.PI / 2);
      case "cross": {
        const a = r * 0.4, b = r * 1.15;
        return `M${x - a} ${y - b}H${x + a}V${y - a}H${x + b}V${y + a}H${x + a}V${y + b}H${x - a}V${y + a}H${x - b}V${y - a}H${x - a}Z`;
      }
      default: return `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`;
    }
  };
  const mark = (group) => {
    const svg = draw("svg", { class: "mark", width: 14, height: 14, viewBox: "0 0 14 14", "aria-hidden": "true" });
    svg.append(draw("path", { d: shapePath(group.shape, 7, 7, 5), fill: `var(${group.colour})` }));
    return svg;
  };

  // --- Tooltip ----------------------------------------------------------------------------------------------------------------
  const tip = byId("tip");
  const showTip = (content, anchor) => {
    tip.replaceChildren(...content);
    tip.hidden = false;
    const box = anchor.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const page = document.documentElement;
    let left = box.left + box.width / 2 - own.width / 2;
    left = Math.max(8, Math.min(left, page.clientWidth - own.width - 8));
    let top = box.top - own.height - 10;
    if (top < 8) top = box.bottom + 10;
    tip.style.left = left + window.scrollX + "px";
    tip.style.top = top + window.scrollY + "px";
  };
  const hideTip = () => { tip.hidden = true; };
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  const pairs = (rows) => make("table", {}, make("tbody", {}, ...rows.map(([k, v]) => make("tr", {}, make("td", {}, k), make("td", {}, v)))));

  // --- State: four switches, kept in the address -------------------------------------------------------------------------------
  const axes = ["machine", "phase", "batch", "weights"];
  const state = data.cells.length ? [...data.cells[0].at] : [0, 0, 0, 0];
  const cellAt = (at) => data.cells.find((c) => c.at.every((v, i) => v === at[i]));
  const labelOf = (axis, choice) => axis === "machine" ? choice.name : choice;
  const keyOf = (axis, choice) => axis === "machine" ? choice.id : choice;
  const root = document.documentElement;
  const themeButton = byId("theme");
  const setTheme = (theme) => {
    if (theme === "auto") root.removeAttribute("data-theme"); else root.setAttribute("data-theme", theme);
    themeButton.textContent = "theme: " + theme;
  };
  themeButton.addEventListener("click", () => {
    const next = { null: "dark", dark: "light", light: "auto" }[root.getAttribute("data-theme")];
    setTheme(next);
  });
  const readAddress = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    axes.forEach((axis, i) => {
      const found = data.axes[axis].findIndex((choice) => keyOf(axis, choice) === wanted.get(axis));
      if (found >= 0) state[i] = found;
    });
    if (["dark", "light"].includes(wanted.get("theme"))) setTheme(wanted.get("theme"));
  };
  const writeAddress = () => {
    const params = new URLSearchParams();
    axes.forEach((axis, i) => { if (data.axes[axis].length > 1) params.set(axis, keyOf(axis, data.axes[axis][state[i]])); });
    if (root.getAttribute("data-theme")) params.set("theme", root.getAttribute("data-theme"));
    try { history.replaceState(null, "", "#" + params); } catch (error) { /* some viewers forbid it; the page works without */ }
  };

  const choose = (axis, index) => {
    state[axes.indexOf(axis)] = index;
    writeAddress();
    render();
  };
  const radios = (name, legend, labels, chosen, onChange, values) => make("fieldset", {}, make("legend", {}, legend),
    make("div", { class: "choices" }, ...labels.map((label, i) => {
      const input = make("input", { type: "radio", name, value: values ? values[i] : i });
      input.checked = i === chosen;
      input.addEventListener("change", () => onChange(i));
      return make("label", { class: "choice" }, input, make("span", {}, label));
    })));
  const buildSwitches = () => {
    const form = byId("switches");
    form.replaceChildren();
    const titles = { machine: "machine", phase: "phase", batch: "batch", weights: "weights" };
    axes.forEach((axis, i) => {
      const choices = data.axes[axis];
      if (choices.length < 2) return;
      if (axis === "machine") {
        const select = make("select", { id: "machine-select" }, ...choices.map((c, k) => make("option", { value: k }, c.name)));
        select.value = state[i];
        select.addEventListener("change", () => choose(axis, Number(select.value)));
        form.append(make("div", {}, make("label", { class: "label", for: "machine-select" }, titles[axis]), select));
      } else {
        // Batches in increasing order, whichever was asked for first.
        const order = choices.map((_, k) => k);
        if (axis === "batch") order.sort((a, b) => Number(choices[a]) - Number(choices[b]));
        form.append(radios(axis, titles[axis], order.map((k) => labelOf(axis, choices[k])), order.indexOf(state[i]), (k) => choose(axis, order[k]), order));
      }
    });
    form.hidden = form.children.length === 0;
    form.addEventListener("submit", (event) => event.preventDefault());
  };
  const syncSwitches = () => {
    axes.forEach((axis, i) => {
      const select = byId("machine-select");
      if (axis === "machine" && select) select.value = state[i];
      document.querySelectorAll(`#switches input[name="${axis}"]`).forEach((input) => { input.checked = Number(input.value) === state[i]; });
    });
  };

  // Operators as objects, in the order of the table.
  const operatorsOf = (cell) => {
    const total = cell.time_s[1];
    return cell.operators.map((o, index) => {
      const onChip = !(o[8] > 0) || groupOf(text(o[10])).key === "chip";
      const moved = onChip ? o[9] : o[8];
      return { index, block: text(o[0]), repeat: o[1], name: text(o[2]), kind: text(o[3]), pass: text(o[4]), count: o[5], time: o[6], flop: o[7],
               dram: o[8], chip: o[9], bound: text(o[10]), move: text(o[11]), share: total > 0 ? o[6] / total : 0, onChip,
               x: o[7] > 0 && moved > 0 ? o[7] / moved : null, y: o[7] > 0 && o[6] > 0 ? o[7] / o[6] : null };
    });
  };
  const operatorTip = (o) => [make("b", {}, o.name + (o.pass ? ` (${o.pass})` : "")), pairs([
    ["block", o.block + (o.repeat > 1 ? ` ×${o.repeat}` : "")], ["time", `${seconds(o.time)}, ${percent(o.share)}`], ["bound by", o.bound],
    ["work", flop(o.flop)], ["traffic", bytes(o.dram)], ["on chip", bytes(o.chip)],
    ["intensity", o.x === null ? "–" : digits(o.x) + " FLOP/byte" + (o.onChip ? " on chip" : "")], ["reaches", o.y === null ? "–" : flopPerSecond(o.y)],
    ...(o.move ? [["moves most", o.move]] : [])])];

  // --- Roofline ---------------------------------------------------------------------------------------------------------------
  const overlaps = (a, b) => a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
  const widthOf = (() => {
    const canvas = document.createElement("canvas").getContext("2d");
    return (label, size) => { canvas.font = `${size}px ${getComputedStyle(document.body).fontFamily}`; return canvas.measureText(label).width; };
  })();
  const light = (index, on) => document.querySelectorAll(`[data-operator="${index}"]`).forEach((n) => n.classList.toggle("lit", on));

  const drawRoofline = (cell) => {
    const figure = byId("roofline");
    const machine = data.axes.machine[cell.at[0]];
    const width = Math.max(300, Math.floor(figure.clientWidth));
    const small = width < 620;
    const height = small ? Math.round(width * 1.05) : Math.round(Math.min(600, Math.max(420, width * 0.46)));
    const margin = { left: small ? 42 : 62, right: small ? 10 : 18, top: 16, bottom: small ? 42 : 50 };
    const size = small ? 11 : 12.5;
    const operators = operatorsOf(cell);
    const placed = operators.filter((o) => o.x !== null && o.y !== null);
    const main = machine.memory.find((m) => m.main);
    const inUse = machine.compute.find((c) => c.name.split(" · ").includes(cell.arithmetic)) || machine.compute[0];
    if (!main || !inUse) { figure.replaceChildren(make("p", { style: "padding: 20px" }, "This machine states no roofs.")); return; }
    const ridge = inUse.flop_per_s / main.bytes_per_s;
    const step = cell.bytes_dram > 0 && cell.flop > 0 ? { x: cell.flop / cell.bytes_dram, y: cell.flop / cell.time_s[1] } : null;

    // Whole decades around everything that is drawn; points further than seven decades under the roof are pinned to the bottom.
    const decade = Math.log10;
    const xs = [ridge, ...placed.map((o) => o.x), ...(step ? [step.x] : [])].map(decade);
    const fastest = Math.max(...machine.compute.map((c) => c.flop_per_s));
    const ys = [...placed.map((o) => o.y), ...(step ? [step.y] : [])].map(decade);
    const x0 = Math.floor(Math.min(...xs) - 0.35), x1 = Math.ceil(Math.max(...xs) + 0.45);
    const yTop = decade(fastest) + 0.55;
    const y1 = yTop, y0 = Math.max(Math.floor(Math.min(...ys, decade(inUse.flop_per_s) - 2) - 0.1), Math.floor(yTop) - 8);
    const px = (v) => margin.left + (decade(v) - x0) / (x1 - x0) * (width - margin.left - margin.right);
    const py = (v) => height - margin.bottom - (decade(v) - y0) / (y1 - y0) * (height - margin.top - margin.bottom);
    const left = margin.left, right = width - margin.right, top = margin.top, bottom = height - margin.bottom;

    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group",
      "aria-label": `Roofline of ${machine.name}: ${placed.length} operators. Tab into it and use the arrow keys to walk through them.` });
    const clip = draw("clipPath", { id: "plot" });
    clip.append(draw("rect", { x: left, y: top, width: right - left, height: bottom - top }));
    svg.append(clip);

    // Grid and axes: a line per decade, labels where they have room.
    const power = (e) => e >= 0 && e <= 3 ? String(10 ** e) : e < 0 && e >= -3 ? (10 ** e).toFixed(-e) : null;
    const axis = draw("g", { "aria-hidden": "true" });
    const xRoom = (right - left) / (x1 - x0);
    const xEvery = Math.max(1, Math.ceil((small ? 40 : 52) / xRoom));
    for (let e = x0; e <= x1; ++e) {
      const x = px(10 ** e);
      axis.append(draw("line", { x1: x, x2: x, y1: top, y2: bottom, stroke: "var(--grid)" }));
      if ((e - x0) % xEvery === 0) {
        axis.append(draw("text", { class: "axis", x: Math.min(x, right - 12), y: bottom + 17, "text-anchor": "middle", "font-size": size }, power(e) || `1e${e}`));
      }
    }
    const prefix = (e) => { const k = Math.floor(e / 3); return String(10 ** (e - 3 * k)) + ({ "-1": "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E" }[k] ?? "e" + 3 * k); };
    const yRoom = (bottom - top) / (y1 - y0);
    const yEvery = Math.max(1, Math.ceil(20 / yRoom));
    for (let e = Math.ceil(y0); e <= y1; ++e) {
      const y = py(10 ** e);
      axis.append(draw("line", { x1: left, x2: right, y1: y, y2: y, stroke: "var(--grid)" }));
      if ((e - Math.ceil(y0)) % yEvery === 0) axis.append(draw("text", { class: "axis", x: left - 7, y: y + 4, "text-anchor": "end", "font-size": size }, prefix(e)));
    }
    axis.append(draw("text", { class: "axis", x: (left + right) / 2, y: height - 8, "text-anchor": "middle", "font-size": size },
                     "arithmetic intensity, FLOP per byte"));
    axis.append(draw("text", { class: "axis", x: left + 4, y: top + 9, "font-size": size }, "FLOP/s"));
    svg.append(axis);

    // Where the operators go: area by share of the time; labels keep clear of them.
    const radius = (share) => Math.max(small ? 3.6 : 4, Math.sqrt(share) * (small ? 19 : 30));
    const spots = [...placed].sort((a, b) => b.share - a.share).map((o) => ({ o, x: px(o.x), y: Math.min(py(o.y), bottom - 4), r: radius(o.share) }));
    const hitsSpot = (box, except = []) => spots.some((s) => !except.includes(s) && overlaps(box, { x: s.x - s.r, y: s.y - s.r, w: 2 * s.r, h: 2 * s.r }));

    // Roofs. Every level is a diagonal up to the fastest arithmetic, every arithmetic a horizontal from the fastest level on.
    const lines = draw("g", { "clip-path": "url(#plot)", "aria-hidden": "true" });
    const labels = draw("g", { "aria-hidden": "true" });
    const boxes = [{ x: left, y: top - 4, w: 60, h: 18 }];
    const quickest = Math.max(...machine.memory.map((m) => m.bytes_per_s));
    const strokes = (strong) => ({ stroke: strong ? "var(--roof)" : "var(--roof-faint)", "stroke-width": strong ? 2.4 : 1.1, fill: "none" });
    for (const c of [...machine.compute].sort((a, b) => (a === inUse) - (b === inUse))) {
      const from = Math.max(c.flop_per_s / quickest, 10 ** x0);
      lines.append(draw("line", { x1: px(from), x2: right, y1: py(c.flop_per_s), y2: py(c.flop_per_s), ...strokes(false), "stroke-dasharray": "4 4" }));
    }
    for (const m of [...machine.memory].sort((a, b) => a.main - b.main)) {
      const to = Math.min(10 ** x1, (m.main ? inUse.flop_per_s : fastest) / m.bytes_per_s);
      if (decade(to) <= x0) continue;
      lines.append(draw("line", { x1: left, x2: px(to), y1: py(m.bytes_per_s * 10 ** x0), y2: py(m.bytes_per_s * to), ...strokes(m.main), "stroke-dasharray": m.main ? null : "4 4" }));
    }
    // The strong roof from the ridge on, drawn over its dashed part.
    lines.append(draw("line", { x1: px(ridge), x2: right, y1: py(inUse.flop_per_s), y2: py(inUse.flop_per_s), ...strokes(true) }));
    svg.append(lines);

    // Labels of horizontals at the right edge, the one in use first; those without room stay unlabelled.
    for (const c of [inUse, ...machine.compute.filter((k) => k !== inUse)]) {
      const names = c.name.split(" · ");
      const short = small && names.length > 2 ? names.slice(0, 2).join(" · ") + " …" : c.name;
      const label = `${short} ${flopPerSecond(c.flop_per_s)}`;
      const w = widthOf(label, size);
      const y = py(c.flop_per_s);
      const places = [y - 6, y + size + 4].map((ty) => ({ x: right - w - 6, y: ty - size, w: w + 6, h: size + 3, ty }));
      const box = places.find((b) => b.y >= top - 2 && b.y + b.h <= bottom && !boxes.some((k) => overlaps(b, k)));
      if (!box || box.x < px(c.flop_per_s / quickest)) continue;
      boxes.push(box);
      labels.append(draw("text", { class: "halo", x: right - 4, y: box.ty, "text-anchor": "end", "font-size": size, "font-weight": c === inUse ? 600 : 400,
                                   fill: c === inUse ? null : "var(--faint)", style: c === inUse ? null : "fill: var(--faint)" }, label));
    }
    // Labels of diagonals along the line, near where it enters the plot.
    const angle = Math.atan2(yRoom, xRoom);
    for (const m of [main, ...machine.memory.filter((k) => k !== main)]) {
      const label = `${m.name} ${perSecond(m.bytes_per_s)}`;
      const w = widthOf(label, size);
      const end = Math.min(10 ** x1, (m === main ? inUse.flop_per_s : fastest) / m.bytes_per_s);
      const startX = Math.max(10 ** x0, 10 ** y0 / m.bytes_per_s);
      const sx = px(startX), sy = py(m.bytes_per_s * startX);
      const length = Math.hypot(px(end) - sx, sy - py(m.bytes_per_s * end));
      for (const along of [26, 80, 140, 200, 270, length - w - 40, length - w - 12]) {
        if (along < 0 || along + w > length - 6) continue;
        const ax = sx + Math.cos(angle) * along - Math.sin(angle) * 5, ay = sy - Math.sin(angle) * along - Math.cos(angle) * 5;
        // A chain of small boxes follows the slanted text.
        const chain = [];
        for (let d = 0; d <= w; d += size) chain.push({ x: ax + Math.cos(angle) * d - size / 2, y: ay - Math.sin(angle) * d - size, w: size, h: size + 2 });
        if (chain.some((b) => b.y < top - 2 || b.x < left - 2 || hitsSpot(b) || boxes.some((k) => overlaps(b, k)))) continue;
        boxes.push(...chain);
        labels.append(draw("text", { class: "halo", transform: `translate(${ax.toFixed(1)} ${ay.toFixed(1)}) rotate(${(-angle * 180 / Math.PI).toFixed(2)})`,
                                     "font-size": size, "font-weight": m === main ? 600 : 400, style: m === main ? null : "fill: var(--faint)" }, label));
        break;
      }
    }
    // Ridges of main memory with every arithmetic; the one in use is named.
    for (const c of machine.compute) {
      const r = c.flop_per_s / main.bytes_per_s;
      if (decade(r) > x1 || decade(r) < x0 || c.flop_per_s > inUse.flop_per_s * 1.001) continue;
      labels.append(draw("circle", { cx: px(r), cy: py(c.flop_per_s), r: c === inUse ? 4.5 : 2.5, fill: "var(--card)", stroke: c === inUse ? "var(--roof)" : "var(--roof-faint)", "stroke-width": c === inUse ? 2 : 1.2 }));
    }
    labels.append(draw("line", { x1: px(ridge), x2: px(ridge), y1: py(inUse.flop_per_s) + 5, y2: bottom, stroke: "var(--roof)", "stroke-dasharray": "1 4", "stroke-linecap": "round" }));
    const ridgeLabel = `ridge ${digits(ridge)}`;
    const ridgeWidth = widthOf(ridgeLabel, size);
    const ridgeLeft = px(ridge) + 6 + ridgeWidth > right ? px(ridge) - 6 - ridgeWidth : px(ridge) + 6;
    labels.append(draw("text", { class: "halo", x: ridgeLeft, y: bottom - 7, "font-size": size }, ridgeLabel));
    boxes.push({ x: ridgeLeft - 2, y: bottom - 7 - size, w: ridgeWidth + 4, h: size + 6 });

    // Colour and shape by bound; big ones first, so that small ones stay reachable.
    const layer = draw("g", {});
    const nodes = [];
    spots.forEach(({ o, x, y, r }, i) => {
      const group = groupOf(o.bound);
      const node = draw("g", { class: "point", tabindex: i === 0 ? 0 : -1, role: "img", "data-operator": o.index,
        "aria-label": `${o.name} in ${o.block}: ${percent(o.share)} of the time, ${seconds(o.time)}, bound by ${o.bound}, ${digits(o.x)} FLOP per byte, ${flopPerSecond(o.y)}` });
      node.append(draw("path", { d: shapePath(group.shape, x, y, r), fill: `var(${group.colour})`, "fill-opacity": 0.62, stroke: `var(${group.colour})`, "stroke-width": 1.2 }));
      if (r < 11) node.append(draw("circle", { cx: x, cy: y, r: 11, fill: "transparent" }));
      const enter = () => { light(o.index, true); showTip(operatorTip(o), node); };
      const leave = () => { light(o.index, false); hideTip(); };
      node.addEventListener("pointerenter", enter);
      node.addEventListener("pointerleave", leave);
      node.addEventListener("focus", enter);
      node.addEventListener("blur", leave);
      node.addEventListener("click", () => node.focus());
      node.addEventListener("keydown", (event) => {
        const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        const target = event.key === "Home" ? 0 : event.key === "End" ? nodes.length - 1 : move ? (i + move + nodes.length) % nodes.length : -1;
        if (target < 0) return;
        event.preventDefault();
        node.setAttribute("tabindex", -1);
        nodes[target].setAttribute("tabindex", 0);
        nodes[target].focus();
      });
      nodes.push(node);
      layer.append(node);
    });
    svg.append(labels, layer);
    if (step) {
      const sx = px(step.x), sy = Math.min(py(step.y), bottom - 4);
      const whole = draw("g", { "aria-hidden": "true", "pointer-events": "none" });
      whole.append(draw("path", { d: `M${sx - 7} ${sy}H${sx + 7}M${sx} ${sy - 7}V${sy + 7}`, stroke: "var(--card)", "stroke-width": 5, "stroke-linecap": "round" }));
      whole.append(draw("path", { d: `M${sx - 7} ${sy}H${sx + 7}M${sx} ${sy - 7}V${sy + 7}`, stroke: "var(--ink)", "stroke-width": 2.2, "stroke-linecap": "round" }));
      svg.append(whole);
      boxes.push({ x: sx - 8, y: sy - 8, w: 16, h: 16 });
    }
    // Names keep off the two strong roofs.
    for (let x = left; x < right; x += 8) {
      const y = py(Math.min(inUse.flop_per_s, 10 ** (x0 + (x - left) / xRoom) * main.bytes_per_s));
      if (y < bottom) boxes.push({ x: x - 3, y: y - 3, w: 6, h: 6 });
    }
    // Names beside the largest points, wherever there is room for them.
    const names = draw("g", { "aria-hidden": "true", "pointer-events": "none" });
    let named = 0;
    const tryLabel = (label, x, y, r, weight, own = []) => {
      const w = widthOf(label, size) * (weight > 500 ? 1.1 : 1);
      const options = [[x + r + 5, y + 4], [x - r - 5 - w, y + 4], [x - w / 2, y - r - 5], [x - w / 2, y + r + size + 2]];
      for (const [lx, ly] of options) {
        const box = { x: lx - 2, y: ly - size, w: w + 4, h: size + 4 };
        if (box.x < left || box.x + box.w > right || box.y < top || box.y + box.h > bottom) continue;
        if (boxes.some((k) => overlaps(box, k))) continue;
        if (hitsSpot(box, own)) continue;
        boxes.push(box);
        names.append(draw("text", { class: "halo", x: lx, y: ly, "font-size": size, "font-weight": weight }, label));
        return true;
      }
      return false;
    };
    if (step) tryLabel("whole step", px(step.x), Math.min(py(step.y), bottom - 4), 8, 600);
    // Points that lie on each other share one label.
    const done = new Set();
    for (const spot of spots) {
      if (named >= (small ? 5 : 12) || spot.o.share < 0.002) break;
      if (done.has(spot)) continue;
      const together = spots.filter((s) => !done.has(s) && Math.hypot(s.x - spot.x, s.y - spot.y) < Math.max(8, spot.r));
      const list = together.map((s) => s.o.name).filter((n, i, all) => all.indexOf(n) === i);
      for (let count = Math.min(list.length, small ? 2 : 4); count >= 1; --count) {
        const label = list.slice(0, count).join(", ") + (count < list.length ? ` +${list.length - count}` : "");
        if (!tryLabel(label, spot.x, spot.y, spot.r, 400, together)) continue;
        ++named;
        together.forEach((s) => done.add(s));
        break;
      }
    }
    svg.append(names);
    figure.replaceChildren(svg);

    const outside = operators.filter((o) => o.x === null || o.y === null);
    const share = outside.reduce((sum, o) => sum + o.share, 0);
    byId("roofline-note").textContent = `Diagonals are memory levels, horizontals arithmetic types; solid are the two that this plan uses. The larger a point, the more time it takes.` +
      (outside.length ? ` ${outside.length} operator${outside.length > 1 ? "s" : ""} without arithmetic or traffic (${percent(share)} of the time) ${outside.length > 1 ? "have" : "has"} no place in it.` : "");
    const present = groups.filter((g) => operators.some((o) => groupOf(o.bound) === g));
    byId("legend").replaceChildren(...present.map((g) => make("span", {}, mark(g), "bound by " + (g.key === "other" ? "launch and overhead" : g.label))), make("span", {}, "+ the whole step"));
  };

  // --- Numbers ------------------------------------------------------------------------------------------------------------------
  const renderAnswer = (cell) => {
    byId("answer-title").textContent = cell.headline;
    byId("sentence").textContent = cell.sentence;
    byId("plan").textContent = cell.plan + ".";
    const unit = cell.unit;
    const total = cell.memory.reduce((sum, m) => sum + (text(m[0]) === "reserve" ? 0 : m[1]), 0);
    const spare = cell.spare_bytes;
    const tile = (name, value, more, warn) => make("div", {}, make("dt", {}, name), make("dd", { class: warn ? "warn" : null }, value, make("small", {}, more)));
    const [low, best, high] = cell.time_s;
    byId("tiles").replaceChildren(
      tile(`${unit}s per second`, cell.possible ? digits(cell.tokens / best) : "–", cell.possible ? `${digits(cell.tokens / high)} to ${digits(cell.tokens / low)} (90 %)` : "does not run"),
      tile("time per step", cell.possible ? seconds(best) : "–", cell.possible ? `bound by ${text(cell.bound)}` : ""),
      tile("memory", bytes(total), cell.fits ? `fits, ${bytes(Math.max(0, spare))} to spare` : `${bytes(Math.max(0, -spare))} too much`, !cell.fits),
      tile("arithmetic used", percent(cell.used[0]), `${cell.arithmetic}; memory bandwidth ${percent(cell.used[1])}`),
      tile(`energy per million ${unit}s`, cell.joules_per_token === null ? "–" : joules(cell.joules_per_token * 1e6), cell.joules_per_token === null ? "power unknown" : digits(cell.joules_per_token * 1e6 / 3.6e6) + " kWh"),
      tile(`cost per million ${unit}s`, cell.usd_per_token === null ? "–" : money(cell.usd_per_token * 1e6), cell.usd_per_token === null ? "price unknown" : text(cell.price_basis) + " of the chip alone"));
  };

  const renderMoves = (cell) => {
    const list = byId("moves");
    const best = cell.moves.filter((m) => m[2] > 0 && m[2] < 0.9995);
    if (!best.length) { list.replaceChildren(make("li", {}, "Nothing that was tried makes it faster.")); return; }
    list.replaceChildren(...best.map(([hardware, knob, time, energy, cost, note]) => {
      const more = [cell.joules_per_token !== null && change(energy) ? `energy ${change(energy)}` : null, cell.usd_per_token !== null && change(cost) ? `cost ${change(cost)}` : null, text(note) || null].filter(Boolean).join(" · ");
      return make("li", { class: hardware ? "hardware" : null },
        make("div", { class: "row" }, make("span", { class: "knob" }, text(knob), hardware ? make("span", { class: "tag" }, "hardware") : null), make("span", { class: "gain" }, gain(time))),
        make("div", { class: "bar", role: "presentation" }, make("i", { style: `width: ${Math.max(0, (1 - time) * 100).toFixed(1)}%` })),
        make("div", { class: "more" }, more));
    }));
  };

  const roleColours = { weight: "#0072b2", kv_cache: "#e69f00", activation: "#009e73", gradient: "#cc79a7", optimizer_state: "#56b4e9", input: "#d55e00", output: "#f0e442", reserve: "#8a8a8a" };
  const renderMemory = (cell) => {
    const total = cell.memory.reduce((sum, m) => sum + m[1], 0);
    const capacity = cell.capacity_bytes;
    const full = Math.max(total, capacity);
    const machine = data.axes.machine[cell.at[0]];
    byId("memory-note").textContent = `${bytes(total)} with the reserve, against ${bytes(capacity)} of ${machine.memory_name}.`;
    const stack = make("div", { class: "stack", role: "img", "aria-label": cell.memory.map((m) => `${words(text(m[0]))} ${bytes(m[1])}`).join(", ") },
      ...cell.memory.map((m) => make("i", { style: `width: ${(m[1] / full * 100).toFixed(2)}%; background: ${roleColours[text(m[0])] || "#999"}`, title: `${words(text(m[0]))} ${bytes(m[1])}` })),
      total > capacity ? make("b", { style: `left: ${(capacity / full * 100).toFixed(2)}%` }) : null);
    const at = capacity / full * 100;
    const scale = make("div", { class: "scale", "aria-hidden": "true" },
      total > capacity && at < 75 ? make("span", { style: `left: ${at.toFixed(1)}%; transform: translateX(-${at < 20 ? 0 : 50}%)` }, `holds ${bytes(capacity)}`) : make("span", { style: "right: 0" }, total > capacity ? `holds ${bytes(capacity)} (dashed)` : bytes(capacity)));
    const table = make("table", {}, make("tbody", {}, ...cell.memory.map((m) => make("tr", {},
      make("td", {}, make("i", { class: "swatch", style: `background: ${roleColours[text(m[0])] || "#999"}` }), words(text(m[0]))),
      make("td", {}, bytes(m[1])), make("td", { class: "middle" }, percent(m[1] / total)), make("td", { class: "left" }, text(m[2]))))));
    byId("memory").replaceChildren(stack, scale, table);
  };

  const renderMachines = (cell) => {
    const section = byId("machines-section");
    section.hidden = data.axes.machine.length < 2;
    if (section.hidden) return;
    const rows = data.axes.machine.map((machine, i) => ({ machine, i, cell: cellAt([i, ...cell.at.slice(1)]) }));
    const rate = (c) => c && c.possible ? c.tokens / c.time_s[1] : 0;
    const most = Math.max(...rows.map((r) => r.cell && r.cell.possible ? r.cell.tokens / r.cell.time_s[0] : 0));
    const unit = cell.unit;
    const head = make("tr", {}, make("th", {}, "machine"), make("th", { class: "left" }, `${unit}s/s`), make("th", {}, ""), make("th", { class: "wide" }, "time"),
      make("th", { class: "middle" }, "J per Mtoken"), make("th", {}, "$ per Mtoken"), make("th", { class: "left middle" }, "bound"), make("th", { class: "left wide" }, "memory"));
    const body = rows.sort((a, b) => rate(b.cell) - rate(a.cell)).map((r) => {
      const button = make("button", { type: "button", "aria-pressed": r.i === cell.at[0] }, r.machine.name);
      button.addEventListener("click", () => { choose("machine", r.i); byId("answer-title").focus({ preventScroll: true }); byId("answer-title").scrollIntoView({ block: "center" }); });
      const c = r.cell;
      const possible = c && c.possible;
      const bar = make("div", {});
      if (possible) {
        const low = c.tokens / c.time_s[2] / most * 100, high = c.tokens / c.time_s[0] / most * 100;
        bar.append(make("i", { style: `width: ${(rate(c) / most * 100).toFixed(2)}%` }), make("u", { style: `left: ${low.toFixed(2)}%; width: ${Math.max(0, high - low).toFixed(2)}%` }));
      }
      return make("tr", { class: r.i === cell.at[0] ? "here" : null }, make("td", {}, button), make("td", { class: "bar" }, bar), make("td", {}, possible ? digits(rate(c)) : "–"),
        make("td", { class: "wide" }, possible ? seconds(c.time_s[1]) : "–"), make("td", { class: "middle" }, possible && c.joules_per_token !== null ? joules(c.joules_per_token * 1e6) : "–"),
        make("td", {}, possible && c.usd_per_token !== null ? money(c.usd_per_token * 1e6) : "–"), make("td", { class: "left middle" }, possible ? text(c.bound) : "–"),
        make("td", { class: "left wide" }, c ? c.fits ? "fits" : possible ? "spills" : "does not fit" : "not offered"));
    });
    byId("machines").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  };

  const renderOperators = (cell) => {
    const operators = operatorsOf(cell);
    const blocks = [];
    for (const o of operators) {
      const key = o.block + (o.repeat > 1 ? ` ×${o.repeat}` : "") + (o.pass && !o.block.includes(o.pass) ? `, ${o.pass}` : "");
      let block = blocks.find((b) => b.key === key);
      if (!block) blocks.push(block = { key, members: [] });
      block.members.push(o);
    }
    const head = make("tr", {}, make("th", {}, "operator"), make("th", { class: "left wide" }, "kind"), make("th", {}, "time"), make("th", {}, "share"), make("th", { class: "wide" }, "work"),
      make("th", { class: "middle" }, "traffic"), make("th", { class: "middle" }, "intensity", make("small", {}, "FLOP/byte")), make("th", { class: "wide" }, "reaches"), make("th", { class: "left" }, "bound"), make("th", { class: "left wide" }, "moves most"));
    const body = [];
    for (const block of blocks) {
      const sum = (f) => block.members.reduce((s, o) => s + f(o), 0);
      const work = sum((o) => o.flop), traffic = sum((o) => o.dram);
      body.push(make("tr", { class: "group" }, make("td", {}, block.key), make("td", { class: "wide" }), make("td", {}, seconds(sum((o) => o.time))), make("td", {}, percent(sum((o) => o.share))),
        make("td", { class: "wide" }, flop(work)), make("td", { class: "middle" }, bytes(traffic)), make("td", { class: "middle" }, traffic > 0 && work > 0 ? digits(work / traffic) : "–"), make("td", { class: "wide" }), make("td", {}), make("td", { class: "wide" })));
      for (const o of block.members) {
        const row = make("tr", { class: "op", "data-operator": o.index }, make("td", {}, o.name), make("td", { class: "left wide" }, words(o.kind)), make("td", {}, seconds(o.time)), make("td", {}, percent(o.share)),
          make("td", { class: "wide" }, flop(o.flop)), make("td", { class: "middle" }, bytes(o.dram)), make("td", { class: "middle" }, o.x === null ? "–" : digits(o.x)), make("td", { class: "wide" }, o.y === null ? "–" : flopPerSecond(o.y)),
          make("td", { class: "left" }, mark(groupOf(o.bound)), o.bound), make("td", { class: "left wide" }, o.move || ""));
        row.addEventListener("pointerenter", () => light(o.index, true));
        row.addEventListener("pointerleave", () => light(o.index, false));
        body.push(row);
      }
    }
    for (const [what, time] of [["host software", cell.host_time_s], ["waiting for host memory or disk", cell.transfer_time_s]]) {
      if (!(time > 0)) continue;
      body.push(make("tr", { class: "group" }, make("td", {}, what), make("td", { class: "wide" }), make("td", {}, seconds(time)), make("td", {}, percent(time / cell.time_s[1])),
        make("td", { class: "wide" }), make("td", { class: "middle" }), make("td", { class: "middle" }), make("td", { class: "wide" }), make("td", {}), make("td", { class: "wide" })));
    }
    byId("operators").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  };

  const renderNotes = (cell) => {
    byId("notes-section").hidden = cell.notes.length === 0;
    byId("notes").replaceChildren(...cell.notes.map((n) => make("li", {}, text(n))));
  };

  // --- Heat map -----------------------------------------------------------------------------------------------------------------
  // Cividis' ends and middle (Nunez, Anderton, Renslow 2018), readable with any colour vision and in grey.
  const cividis = [[0, 32, 76], [64, 77, 107], [124, 123, 120], [188, 174, 108], [255, 233, 69]];
  const colourAt = (t) => {
    const p = Math.max(0, Math.min(1, t)) * (cividis.length - 1);
    const i = Math.min(cividis.length - 2, Math.floor(p));
    return `rgb(${cividis[i].map((c, k) => Math.round(c + (cividis[i + 1][k] - c) * (p - i))).join(" ")})`;
  };
  let heatMetric = 0;
  const heatMetrics = [
    { label: "tokens/s", value: (c) => c[0], show: (v) => digits(v) + " tokens/s", short: digits, better: 1 },
    { label: "$ per Mtoken", value: (c) => c[2] === null ? null : c[2] * 1e6, show: (v) => money(v) + " per Mtoken", short: money, better: -1 },
    { label: "J per token", value: (c) => c[1], show: (v) => joules(v) + " per token", short: joules, better: -1 },
    { label: "power", value: (c) => c[3], show: (v) => digits(v) + " W", short: (v) => digits(v) + " W", better: -1 },
  ];
  const drawHeatMap = () => {
    const map = data.heat_map;
    const offered = heatMetrics.filter((m) => map.cells.some((c) => m.value(c) !== null));
    if (!offered.includes(heatMetrics[heatMetric])) heatMetric = heatMetrics.indexOf(offered[0]);
    const metric = heatMetrics[heatMetric];
    const figure = byId("heat");
    const nx = map.x.values.length, ny = map.y.values.length;
    const width = Math.max(300, Math.floor(figure.clientWidth));
    const small = width < 620;
    const size = small ? 11 : 12.5;
    const margin = { left: Math.ceil(Math.max(...map.y.texts.map((t) => widthOf(t, size)))) + 14, right: 12, top: 18, bottom: 78 };
    const cw = (width - margin.left - margin.right) / nx;
    const ch = Math.max(16, Math.min(44, cw * 0.7));
    const height = margin.top + ch * ny + margin.bottom;
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": `${map.title}: ${metric.label} over ${map.x.label} and ${map.y.label}. Use the arrow keys to walk through the cells.` });
    const pattern = draw("pattern", { id: "hatch", width: 6, height: 6, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" });
    pattern.append(draw("rect", { width: 6, height: 6, fill: "var(--card)" }), draw("line", { x1: 0, y1: 0, x2: 0, y2: 6, stroke: "var(--hatch)", "stroke-width": 2 }));
    svg.append(pattern);
    const values = map.cells.filter((c) => c[4]).map(metric.value).filter((v) => v !== null && v > 0).map(Math.log);
    const low = Math.min(...values), high = Math.max(...values);
    const shade = (v) => { const t = high > low ? (Math.log(v) - low) / (high - low) : 0.5; return metric.better > 0 ? t : 1 - t; };
    const nodes = [];
    map.cells.forEach((c, i) => {
      const ix = i % nx, iy = Math.floor(i / nx);
      const x = margin.left + ix * cw, y = margin.top + (ny - 1 - iy) * ch;
      const v = metric.value(c);
      const usable = c[4] && v !== null && v > 0;
      const verdict = !c[4] ? "does not fit" : !c[5] ? "over the budget" : usable ? metric.show(v) : "unknown";
      const node = draw("g", { class: "point", tabindex: i === 0 ? 0 : -1, role: "img", "aria-label": `${map.x.texts[ix]}, ${map.y.texts[iy]}: ${verdict}` });
      node.append(draw("path", { d: `M${x} ${y}h${cw - 1}v${ch - 1}h${-(cw - 1)}Z`, fill: usable ? colourAt(shade(v)) : "url(#hatch)", "fill-opacity": usable && !c[5] ? 0.28 : 1 }));
      if (usable && cw > widthOf(metric.short(v), size - 1.5) + 6) {
        node.append(draw("text", { x: x + (cw - 1) / 2, y: y + ch / 2 + 4, "text-anchor": "middle", "font-size": size - 1.5, "pointer-events": "none",
                                   style: `fill: ${!c[5] ? "var(--ink)" : shade(v) > 0.55 ? "#111" : "#fff"}` }, metric.short(v)));
      }
      if (i === map.best) node.append(draw("rect", { x: x + 1.5, y: y + 1.5, width: cw - 4, height: ch - 4, fill: "none", stroke: "var(--compute)", "stroke-width": 3 }));
      const enter = () => showTip([make("b", {}, `${map.x.texts[ix]} × ${map.y.texts[iy]}`), pairs([
        ["tokens/s", c[4] ? digits(c[0]) : "–"], ["bound by", c[4] ? c[6] : "–"], ["J per token", c[1] === null ? "–" : joules(c[1])], ["$ per Mtoken", c[2] === null ? "–" : money(c[2] * 1e6)],
        ["power", c[3] === null ? "–" : digits(c[3]) + " W"], ["chip area", c[7] === null ? "–" : digits(c[7]) + " mm²"], ["parts", c[8] === null ? "–" : money(c[8])], ["", !c[4] ? "does not fit" : c[5] ? "" : "over the budget"]].filter(([k, t]) => k || t))], node);
      node.addEventListener("pointerenter", enter);
      node.addEventListener("pointerleave", hideTip);
      node.addEventListener("focus", enter);
      node.addEventListener("blur", hideTip);
      node.addEventListener("click", () => node.focus());
      node.addEventListener("keydown", (event) => {
        const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
        if (!move) return;
        event.preventDefault();
        const tx = ix + move[0], ty = iy + move[1];
        if (tx < 0 || ty < 0 || tx >= nx || ty >= ny) return;
        node.setAttribute("tabindex", -1);
        nodes[ty * nx + tx].setAttribute("tabindex", 0);
        nodes[ty * nx + tx].focus();
      });
      nodes.push(node);
      svg.append(node);
    });
    const axis = draw("g", { "aria-hidden": "true" });
    let lastEnd = -1e9;
    map.x.texts.forEach((t, i) => {
      const x = margin.left + (i + 0.5) * cw, w = widthOf(t, size);
      if (x - w / 2 < lastEnd + 8 || x + w / 2 > width - 2) return;
      lastEnd = x + w / 2;
      axis.append(draw("text", { class: "axis", x, y: margin.top + ny * ch + 16, "text-anchor": "middle", "font-size": size }, t));
    });
    const every = Math.max(1, Math.ceil((size + 4) / ch));
    map.y.texts.forEach((t, i) => {
      if (i % every === 0) axis.append(draw("text", { class: "axis", x: margin.left - 7, y: margin.top + (ny - 0.5 - i) * ch + 4, "text-anchor": "end", "font-size": size }, t));
    });
    axis.append(draw("text", { class: "axis", x: (margin.left + width - margin.right) / 2, y: margin.top + ny * ch + 34, "text-anchor": "middle", "font-size": size }, map.x.label + (small ? "" : " →")));
    axis.append(draw("text", { class: "axis", x: 6, y: 11, "font-size": size }, "↑ " + map.y.label));
    // Colour scale.
    const barWidth = Math.min(260, width - margin.left - margin.right - 150), barY = height - 24;
    const stops = draw("linearGradient", { id: "scale" });
    for (let i = 0; i <= 8; ++i) stops.append(draw("stop", { offset: `${i * 12.5}%`, "stop-color": colourAt(metric.better > 0 ? i / 8 : 1 - i / 8) }));
    if (values.length) {
      const lowText = metric.short(Math.exp(low)), highText = metric.short(Math.exp(high)) + (metric.label === "tokens/s" ? " tokens/s" : "");
      const barX = margin.left + widthOf(lowText, size) + 6;
      axis.append(stops, draw("rect", { x: barX, y: barY, width: barWidth, height: 10, rx: 3, fill: "url(#scale)" }),
        draw("text", { class: "axis", x: barX - 6, y: barY + 9, "text-anchor": "end", "font-size": size }, lowText),
        draw("text", { class: "axis", x: barX + barWidth + 6, y: barY + 9, "font-size": size }, highText));
    }
    svg.append(axis);
    figure.replaceChildren(svg);
    byId("heat-title").textContent = map.title;
    const over = map.cells.some((c) => c[4] && !c[5]);
    byId("heat-note").textContent = "Hatched: does not fit." + (map.budget && over ? ` Pale: over the budget of ${map.budget}.` : "") + (map.best >= 0 ? ` Framed: the fastest${map.budget ? " within the budget" : ""}.` : "");
    const form = byId("heat-switch");
    if (!form.children.length) {
      form.append(radios("metric", "colour shows", offered.map((m) => m.label), offered.indexOf(metric), (k) => { heatMetric = heatMetrics.indexOf(offered[k]); drawHeatMap(); }));
      form.addEventListener("submit", (event) => event.preventDefault());
    }
  };

  // --- All together -------------------------------------------------------------------------------------------------------------
  const render = () => {
    hideTip();
    if (data.heat_map) { byId("heat-section").hidden = false; drawHeatMap(); }
    if (!data.cells.length) return;
    byId("report").hidden = false;
    let cell = cellAt(state);
    if (!cell) {
      // Not every combination exists; take the nearest that shares the most switches.
      const close = (c) => c.at.reduce((sum, v, i) => sum + (v === state[i] ? 1 : 0), 0);
      cell = [...data.cells].sort((a, b) => close(b) - close(a))[0];
      state.splice(0, 4, ...cell.at);
    }
    syncSwitches();
    renderAnswer(cell);
    drawRoofline(cell);
    renderMoves(cell);
    renderMemory(cell);
    renderMachines(cell);
    renderOperators(cell);
    renderNotes(cell);
  };
  readAddress();
  if (data.cells.length) buildSwitches();
  render();
  let drawn = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    if (document.documentElement.clientWidth === drawn) return;
    drawn = document.documentElement.clientWidth;
    render();
  });
})();
