// What was stored, how fast, by whom, and how large it is.

const LIES = { files: "a file each", shards: "in tar shards", array: "rows of an array", table: "rows of a table",
  objects: "several in a file", unknown: "not recorded, since a function (path, value) wrote it" };

const section = (title, ...children) => make("section", {}, make("h2", {}, title), ...children);
const soft = (text) => make("p", { class: "soft" }, text);
const tile = (figure, text, isBad) => make("div", { class: "tile" }, make("b", isBad ? { class: "bad" } : {}, figure), make("span", {}, text));

function drawOverview(data) {
  const box = byId("overview");
  const bytes = data.outputs.reduce((sum, one) => sum + one.bytes, 0);
  const lacking = data.missing.reduce((sum, one) => sum + one.length - one.done, 0);
  const ran = data.runs.reduce((sum, run) => sum + (secondsOf(run) || 0), 0);
  const atWork = data.runs.some((run) => run.at_work);
  box.append(make("div", { class: "tiles" },
    tile(countText(data.samples), data.samples === 1 ? "sample stored" : "samples stored"),
    tile(bytesText(bytes), "in " + counted(data.outputs.reduce((sum, one) => sum + one.objects, 0), "file")),
    tile(countText(data.runs.length), (data.runs.length === 1 ? "run" : "runs") + (atWork ? ", at work when this was made" : "")),
    tile(spanText(ran), "of recording in all"),
    tile(countText(data.failed), "failed and kept", data.failed > 0),
    data.missing.length ? tile(countText(lacking), "of the data set not stored", lacking > 0) : null));
  box.append(rateSection(data.runs));
  box.append(section("Outputs and sizes", data.outputs.length ? table([
    ["Output", (one) => isolated(outputName(one.writer, one.key))],
    ["Suffix", (one) => isolated(one.suffix || "-")],
    ["Where", (one) => LIES[one.lies]],
    ["Count", (one) => countText(one.count), "n"],
    ["Bytes", (one) => (one.lies === "unknown" ? "?" : bytesText(one.bytes)), "n"],
    ["Smallest / median / largest", (one) => (one.sizes.length ? [one.least, one.middle, one.most].map(bytesText).join(" / ") : "?"), "n"],
    ["Sizes, from small to large", (one) => sizeBars(one.sizes)],
    ["Values", (one) => isolated(one.kinds[0].join(", ") + (one.kinds[1] ? " and " + one.kinds[1] + " more" : "") || "-")],
  ], data.outputs) : soft("Nothing is stored."),
  data.superseded ? soft(counted(data.superseded, "output") +
    " of earlier runs left out: a run began anew after them, without resume=True.") : null));
  if (data.missing.length) box.append(section("Data sets", table([
    ["Output", (one) => isolated(outputName(one.writer, one.key))],
    ["Loader", (one) => String(one.loader), "n"],
    ["Stored", (one) => countText(one.done) + " of " + countText(one.length), "n"],
    ["", (one) => meter(one.done / Math.max(1, one.length))],
  ], data.missing)));
  box.append(runsSection(data.runs));
  box.append(ranksSection(data.runs));
  box.append(section("What the records do not hold", soft(
    "How full the queue was, how long the loop waited for it, and how long encoding and storing took are counted while a run goes " +
    "on and are not recorded: BackgroundWriter.stats() and the line at the end of a run give them. The gaps between recordings, in the table " +
    "of ranks, show where storing stood still. Failures are known from the values that were kept (on_error='continue').")));
}

const secondsOf = (run) => (run.last === null || run.began === null ? null : Math.max(0, run.last - run.began));

function meter(part) {
  const filled = make("i");
  filled.style.width = 100 * part + "%";
  return make("span", { class: "meter", title: (100 * part).toFixed(1) + " %" }, filled);
}

function rateSection(runs) {
  const drawn = runs.filter((run) => run.rate).reverse();
  if (!drawn.length) return section("Throughput over time", soft("Nothing is recorded."));
  const choice = make("select", { "aria-label": "Run" }, ...drawn.map((run, place) =>
    make("option", { value: place },
      "Run " + run.sequence + ", " + timeText(run.began === null ? run.rate.start : run.began) + ", " + counted(run.samples, "sample"))));
  const chart = make("div", { class: "chart" });
  let what = "samples";
  const buttons = ["samples", "bytes"].map((one) => make("button", { onclick: () => { what = one; draw(); } }, one + "/s"));
  const draw = () => {
    buttons.forEach((button, place) => button.setAttribute("aria-pressed", String((place ? "bytes" : "samples") === what)));
    if (chart.clientWidth) drawRate(chart, drawn[choice.value].rate, what);
  };
  choice.addEventListener("change", draw);
  let width = 0;
  new ResizeObserver(() => {
    if (chart.clientWidth !== width) requestAnimationFrame(draw);
    width = chart.clientWidth;
  }).observe(chart);
  return section("Throughput over time",
    make("div", { class: "controls" }, choice, make("span", { class: "choice", role: "group", "aria-label": "Unit" }, ...buttons)), chart,
    soft("By when samples were recorded, which is after they were stored. What a later run has stored again counts there alone."));
}

function runsSection(runs) {
  return section("Runs", longTable([
    ["Run", (run) => String(run.sequence), "n"],
    ["Began", (run) => timeText(run.began), "t"],
    ["Last recorded", (run) => (run.last === null ? "-" : timeText(run.last)), "t"],
    ["Took", (run) => (secondsOf(run) === null ? "-" : spanText(secondsOf(run))), "n"],
    ["Samples", (run) => countText(run.samples), "n"],
    ["Bytes", (run) => bytesText(run.bytes), "n"],
    ["Samples/s", (run) => (secondsOf(run) > 0 ? countText(run.samples / secondsOf(run)) : "-"), "n"],
    ["Ranks", (run) => run.ranks.length + " of " + run.world_size, "n"],
    ["", (run) =>
      [run.at_work ? "at work" : "", run.resume ? "resumed" : "", run.counts ? "" : "superseded", run.durability].filter(Boolean).join(", ")],
    ["Stores", (run) => isolated(run.series.map(([writer, key]) => outputName(writer, key)).join(", "))],
    ["Id and config", (run) => make("span", {}, isolated(run.run),
      run.config ? make("details", {}, make("summary", {}, "config"), make("pre", {}, shown(run.config))) : "")],
  ], runs.slice().reverse(), 50), soft("A run took from when it began to the last sample that it recorded. That it ended is not recorded."));
}

function ranksSection(runs) {
  const rows = runs.slice().reverse().flatMap((run) => run.ranks.map((rank) => ({ run, ...rank })));
  if (!rows.length) return null;
  return section("Ranks", longTable([
    ["Run", (one) => String(one.run.sequence), "n"],
    ["Rank", (one) => String(one.rank), "n"],
    ["Samples", (one) => countText(one.samples), "n"],
    ["Bytes", (one) => bytesText(one.bytes), "n"],
    ["First recorded", (one) => timeText(one.first), "t"],
    ["Last recorded", (one) => timeText(one.last), "t"],
    ["Gap, median", (one) => (one.middle_gap === null ? "-" : spanText(one.middle_gap)), "n"],
    ["Gap, longest", (one) => (one.longest_gap === null ? "-" : spanText(one.longest_gap)), "n"],
    ["Longest from", (one) => (one.longest_gap === null ? "-" : timeText(one.longest_gap_at)), "t"],
  ], rows, 32), soft("A gap is the time from one recording to the next."));
}

function drawFailures(data) {
  const box = byId("failures");
  const notes = [];
  if (data.torn) notes.push(soft(counted(data.torn, "line") + " of the manifest not whole, as a crash or a writer at work leaves them."));
  if (data.damaged.length)
    notes.push(section("Found damaged, and not stored again", longTable([["File", (file) => isolated(file)]], data.damaged, 100)));
  if (!data.failed) {
    box.append(section("Failures", soft("No value is kept that could not be written."), ...notes));
    return;
  }
  box.append(section("Causes", longTable([
    ["Count", (one) => countText(one.count), "n"],
    ["Cause", (one) => make("span", {}, isolated(one.text), one.traceback ? make("details", {},
      make("summary", {}, "traceback of one"), make("pre", {}, shownLines(one.traceback))) : "")],
  ], data.causes, 50)));
  box.append(section("Values that could not be written", longTable([
    ["Sample", (one) => isolated(one.name)],
    ["Writer", (one) => isolated(one.writer)],
    ["Error", (one) => isolated(one.error)],
    ["Attempts", (one) => String(one.attempts), "n"],
    ["Rank", (one) => String(one.rank), "n"],
    ["When", (one) => timeText(one.time), "t"],
    ["", (one) => (one.stored_later ? "stored since" : "")],
  ], data.failures, 100),
  data.failed > data.failures.length ? soft("The first " + countText(data.failures.length) + " of " + countText(data.failed) + " are listed.") : null,
  soft("lighter-async replay writes them.")), ...notes);
}

const shownLines = (text) => text.split("\n").map(shown).join("\n");
