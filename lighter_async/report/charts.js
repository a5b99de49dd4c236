// Curves over time, and sizes as bars.

function svg(tag, about, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(about)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

// Round numbers from 0 on, about four of them, the last one at least as large as `most`.
function ticksTo(most) {
  if (!(most > 0)) return [0, 1];
  const rough = most / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  return Array.from({ length: Math.ceil(most / step - 1e-9) + 1 }, (_, place) => place * step);
}

// What was recorded in each second, over a run's time.
function drawRate(box, rate, what) {
  const width = Math.max(260, box.clientWidth), height = 220, left = 72, bottom = 24, top = 10;
  const perSecond = rate[what].map((count) => count / rate.step);
  const text = (value) => (what === "bytes" ? bytesText(Math.round(value)) : countText(value)) + "/s";
  const ticks = ticksTo(Math.max(...perSecond));
  const most = ticks[ticks.length - 1];
  const x = (place) => left + ((width - left - 8) * place) / perSecond.length;
  const y = (value) => top + (height - top - bottom) * (1 - value / most);
  const drawing = svg("svg", { height, viewBox: "0 0 " + width + " " + height, role: "img" });
  drawing.setAttribute("aria-label", "What was recorded a second, over the time of the run");
  for (const tick of ticks) {
    drawing.append(svg("line", { class: "grid", x1: left, x2: width - 8, y1: y(tick), y2: y(tick) }));
    drawing.append(svg("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, text(tick)));
  }
  let path = "M" + x(0) + "," + y(0);
  perSecond.forEach((value, place) => { path += "V" + y(value).toFixed(1) + "H" + x(place + 1).toFixed(1); });
  drawing.append(svg("path", { class: "area", d: path + "V" + y(0) + "Z" }));
  const end = rate.start + rate.step * perSecond.length;
  const withDate = end - rate.start > 43200 && width > 600;
  for (const [part, anchor] of [[0, "start"], [0.5, "middle"], [1, "end"]]) {
    const about = { x: x(part * perSecond.length), y: height - 6, "text-anchor": anchor };
    drawing.append(svg("text", about, timeText(rate.start + part * (end - rate.start), withDate || (part === 0 && width > 600))));
  }
  const mark = svg("line", { class: "mark", y1: top, y2: height - bottom, visibility: "hidden" });
  drawing.append(mark);
  const tip = make("div", { class: "tip", hidden: true });
  drawing.addEventListener("pointermove", (event) => {
    const at = ((event.clientX - drawing.getBoundingClientRect().left) * width) / drawing.clientWidth;
    const place = Math.floor(((at - left) / (width - left - 8)) * perSecond.length);
    const isInside = place >= 0 && place < perSecond.length;
    tip.hidden = !isInside;
    mark.setAttribute("visibility", isInside ? "visible" : "hidden");
    if (!isInside) return;
    mark.setAttribute("x1", x(place + 0.5));
    mark.setAttribute("x2", x(place + 0.5));
    tip.textContent = timeText(rate.start + place * rate.step, false) + ": " + text(perSecond[place]) + ", " +
      (what === "bytes" ? bytesText(rate.bytes[place]) : counted(rate.samples[place], "sample")) + " in " + spanText(rate.step);
    tip.style.left = Math.min(Math.max(0, x(place)), Math.max(0, width - tip.offsetWidth - 4)) + "px";
  });
  drawing.addEventListener("pointerleave", () => { tip.hidden = true; mark.setAttribute("visibility", "hidden"); });
  box.replaceChildren(drawing, tip);
}

// How many outputs have which size; each bar stands for sizes up to twice as large as its smallest.
function sizeBars(sizes) {
  if (!sizes.length) return make("span", { class: "soft" }, "not known");
  const counts = new Map(sizes);
  const least = sizes[0][0], last = sizes[sizes.length - 1][0];
  const most = Math.max(...counts.values());
  const bars = [];
  for (let power = least; power <= last; power += 1) {
    const count = counts.get(power) || 0;
    const range = power < 0 ? "empty" : bytesText(2 ** power) + " to " + bytesText(2 ** (power + 1));
    const bar = make("i", { title: range + ": " + countText(count) });
    bar.style.height = (100 * count) / most + "%";
    if (!count) bar.style.visibility = "hidden";
    bars.push(bar);
  }
  return make("div", { class: "bars", role: "img", "aria-label": "Sizes" }, ...bars);
}
