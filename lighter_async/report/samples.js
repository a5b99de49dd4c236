// The samples, of which only those in sight are drawn.

const CELL = { width: 164, height: 188 }, ROW = 30, LABEL = 23; // pixels, and characters: the end of a name tells most

class Samples {
  constructor(data) {
    this.list = data.listing;
    this.base = data.base;
    this.runs = new Map(data.runs.map((run) => [run.run, run.sequence]));
    this.rows = []; // places in the listing's columns that are shown
    this.drawn = new Map(); // from a place in `rows` to its element
    this.chosen = 0;
    this.lower = null;
    this.hasImages = this.list.alike.some((one) => one.image === "file") || Object.keys(this.list.embedded).length > 0;
    this.asImages = this.hasImages;
    this.scroll = byId("scroll");
    this.space = byId("space");
    this.outputs = [...new Set(this.list.alike.map((one) => JSON.stringify([one.writer, one.key])))];
    this.pictured = new Set(this.list.alike.filter((one) => one.image).map((one) => JSON.stringify([one.writer, one.key]))).size;
    this.prepare();
    this.filter();
  }

  prepare() {
    const choice = byId("output");
    choice.append(make("option", { value: "" }, "All outputs"));
    this.outputs.forEach((one, place) => choice.append(make("option", { value: place }, shown(outputName(...JSON.parse(one))))));
    choice.hidden = this.outputs.length < 2;
    choice.addEventListener("change", () => this.filter());
    let waiting = 0;
    byId("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => this.filter(), 60); });
    byId("as-images").addEventListener("click", () => this.show(true));
    byId("as-list").addEventListener("click", () => this.show(false));
    let isAsked = false;
    const later = () => {
      if (!isAsked) requestAnimationFrame(() => { isAsked = false; this.draw(); });
      isAsked = true;
    };
    this.scroll.addEventListener("scroll", later, { passive: true });
    new ResizeObserver(() => requestAnimationFrame(() => this.lay())).observe(this.scroll);
    this.space.addEventListener("click", (event) => {
      const item = event.target.closest(".item");
      if (item) { this.choose(Number(item.dataset.place)); this.open(); }
    });
    byId("head").append(...["Name", "Output", "Bytes", "Value", "Rank", "Recorded"].map((text, place) =>
      make("span", place === 2 || place === 4 ? { class: "n" } : {}, text)));
    this.buttons();
  }

  buttons() {
    byId("as-images").setAttribute("aria-pressed", String(this.asImages));
    byId("as-list").setAttribute("aria-pressed", String(!this.asImages));
    byId("as-images").disabled = !this.hasImages;
    byId("head").hidden = this.asImages;
  }

  show(asImages) {
    this.asImages = asImages;
    this.buttons();
    this.filter();
  }

  filter() {
    const { sample, of, names, alike, embedded } = this.list;
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const output = byId("output").value;
    const isWanted = alike.map((one) =>
      (!output || this.outputs[output] === JSON.stringify([one.writer, one.key])) && (!this.asImages || one.image !== ""));
    let fits = null;
    if (words.length) {
      this.lower = this.lower || names.map((name) => name.toLowerCase());
      fits = this.lower.map((name) => words.every((word) => name.includes(word)));
    }
    this.rows = [];
    for (let row = 0; row < of.length; row += 1)
      if (isWanted[of[row]] && (fits === null || fits[sample[row]]) && (!this.asImages || alike[of[row]].image === "file" || embedded[row]))
        this.rows.push(row);
    const all = this.list.total > of.length ? " of the first " + countText(of.length) + " of " + countText(this.list.total) : "";
    const some = this.asImages && alike.some((one) => one.image === "data") ? ", with a few of those that lie in files with others" : "";
    byId("found").textContent = counted(this.rows.length, this.asImages ? "image" : "output") + all + some;
    this.chosen = 0;
    this.scroll.scrollTop = 0;
    this.lay();
  }

  // How many stand beside each other, and how high all are.
  lay() {
    const width = this.scroll.clientWidth;
    if (!width) return;
    const first = this.across ? Math.floor(this.scroll.scrollTop / this.high) * this.across : 0;
    this.across = this.asImages ? Math.max(1, Math.floor(width / CELL.width)) : 1;
    this.high = this.asImages ? CELL.height : ROW;
    this.space.style.height = Math.ceil(this.rows.length / this.across) * this.high + "px";
    this.scroll.scrollTop = Math.floor(first / this.across) * this.high;
    this.space.replaceChildren();
    this.drawn.clear();
    this.draw();
  }

  draw() {
    if (!this.across) return;
    const top = this.scroll.scrollTop, height = this.scroll.clientHeight;
    const first = Math.max(0, Math.floor(top / this.high) - 2) * this.across;
    const end = Math.min(this.rows.length, (Math.ceil((top + height) / this.high) + 2) * this.across);
    for (const [place, item] of this.drawn)
      if (place < first || place >= end) { item.remove(); this.drawn.delete(place); }
    for (let place = first; place < end; place += 1)
      if (!this.drawn.has(place)) {
        const item = this.asImages ? this.cell(this.rows[place]) : this.row(this.rows[place]);
        item.dataset.place = place;
        item.id = "item-" + place;
        item.setAttribute("role", "option");
        item.classList.add("item");
        item.style.top = Math.floor(place / this.across) * this.high + "px";
        item.style.height = this.high + "px";
        item.style.width = 100 / this.across + "%";
        item.style.left = ((place % this.across) * 100) / this.across + "%";
        this.drawn.set(place, item);
        this.space.append(item);
      }
    for (const [place, item] of this.drawn) {
      item.classList.toggle("chosen", place === this.chosen);
      item.setAttribute("aria-selected", String(place === this.chosen));
    }
    this.scroll.setAttribute("aria-activedescendant", "item-" + this.chosen);
  }

  name(row) { return this.list.names[this.list.sample[row]]; }
  about(row) { return this.list.alike[this.list.of[row]]; }

  file(row) {
    const about = this.about(row), name = this.name(row);
    if (about.suffix === null) return about.object;
    return name.endsWith(about.suffix) ? name : name + about.suffix;
  }

  picture(row) {
    const about = this.about(row);
    const address = about.image === "file" ? addressOf(this.base, this.file(row)) : this.list.embedded[row];
    if (!about.image || !address) return make("span", {}, about.image ? "in " + shown(about.object || "") : "no image");
    const image = make("img", { loading: "lazy", decoding: "async", alt: "" });
    image.addEventListener("error", () => image.replaceWith("not found, or not readable"), { once: true });
    image.src = address;
    return image;
  }

  cell(row) {
    const label = shown(this.name(row)) + (this.pictured > 1 ? " " + shown(this.about(row).key || this.about(row).writer) : "");
    return make("div", { class: "cell" }, make("div", { class: "frame" }, this.picture(row)), 
      make("bdi", { class: "name", title: label }, label.length > LABEL ? "\u2026" + label.slice(1 - LABEL) : label));
  }

  row(row) {
    const about = this.about(row);
    return make("div", { class: "row" }, isolated(this.name(row)), isolated(outputName(about.writer, about.key)),
      make("span", { class: "n" }, bytesText(this.list.bytes[row])), isolated(this.value(about)), make("span", { class: "n" }, String(about.rank)),
      make("span", {}, timeText(this.list.start + this.list.time[row] / 1000)));
  }

  value(about) { return about.dtype === null ? "-" : about.dtype + " " + ((about.shape || []).join(" x ") || "scalar"); }

  choose(place) {
    if (!this.rows.length) return;
    this.chosen = Math.max(0, Math.min(this.rows.length - 1, place));
    const top = Math.floor(this.chosen / this.across) * this.high;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    else if (top + this.high > this.scroll.scrollTop + this.scroll.clientHeight) this.scroll.scrollTop = top + this.high - this.scroll.clientHeight;
    this.draw();
  }

  // By how many places a key moves on; 0 if it does not.
  step(key) {
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / this.high)) * this.across;
    const steps = { ArrowUp: -this.across, ArrowDown: this.across, PageUp: -page, PageDown: page, Home: -this.rows.length, End: this.rows.length };
    return (this.across > 1 || byId("detail").open ? { ArrowLeft: -1, ArrowRight: 1, ...steps } : steps)[key] || 0;
  }

  open() {
    if (!this.rows.length) return;
    const dialog = byId("detail"), row = this.rows[this.chosen], about = this.about(row), list = this.list;
    const line = (title, content) => make("tr", {}, make("th", { scope: "row" }, title), make("td", {}, content));
    const others = [];
    for (let other = 0; other < list.of.length; other += 1)
      if (other !== row && list.sample[other] === list.sample[row]) others.push(other);
    const run = this.runs.get(about.run);
    dialog.replaceChildren(
      make("button", { class: "close", onclick: () => dialog.close(), "aria-label": "Close" }, "\u00d7"),
      make("h2", {}, isolated(this.name(row))),
      about.image ? make("div", { class: "picture" }, this.picture(row)) : "",
      make("table", {}, make("tbody", {},
        line("File", isolated(this.file(row) === null ? "not recorded" : this.file(row))),
        line("Output", isolated(outputName(about.writer, about.key))),
        line("Bytes", bytesText(list.bytes[row]) + (list.bytes[row] >= 1000 ? " (" + countText(list.bytes[row]) + ")" : "")),
        line("Value", isolated(this.value(about))),
        line("Index", list.index[row] === null ? "not known" : String(list.index[row]) + (about.loader ? " of loader " + about.loader : "")),
        line("Stored by", "rank " + about.rank + (run === undefined ? "" : " of run " + run)),
        line("Recorded", timeText(list.start + list.time[row] / 1000)),
        others.length ? line("Other outputs", make("span", {}, ...others.slice(0, 64).map((other) =>
          make("div", {}, isolated(outputName(this.about(other).writer, this.about(other).key)), ": ", bytesText(list.bytes[other]))))) : "")));
    if (!dialog.open) dialog.showModal();
  }
}
