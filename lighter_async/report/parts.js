// Elements and texts. Whatever comes from outside becomes text, never markup.

const byId = (id) => document.getElementById(id);

function make(tag, about, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(about || {})) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== null && value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// A text as a reader can see it: what controls or hides, and halves of characters, by their numbers.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|\p{Surrogate}/gu;

function shown(text) {
  return text.replace(UNSEEN, (one) => "\\u" + one.charCodeAt(0).toString(16).padStart(4, "0"));
}

const isolated = (text, about) => make("bdi", about || {}, shown(text));

function bytesText(count) {
  if (count < 0) return "?";
  if (count < 1000) return count + " B";
  const units = ["kB", "MB", "GB", "TB", "PB", "EB"];
  let place = -1;
  do { count /= 1000; place += 1; } while (count >= 999.5 && place < units.length - 1);
  return (count < 10 ? count.toFixed(2) : count < 100 ? count.toFixed(1) : count.toFixed(0)) + " " + units[place];
}

const countText = (count) => count.toLocaleString("en-US", { maximumFractionDigits: count < 10 ? 2 : count < 100 ? 1 : 0 });

const counted = (count, noun) => countText(count) + " " + noun + (count === 1 ? "" : "s");

function timeText(seconds, withDate = true) {
  const date = new Date(seconds * 1000);
  if (seconds === null || Number.isNaN(date.getTime())) return "?";
  const two = (number) => String(number).padStart(2, "0");
  const day = date.getFullYear() + "-" + two(date.getMonth() + 1) + "-" + two(date.getDate());
  const clock = two(date.getHours()) + ":" + two(date.getMinutes()) + ":" + two(date.getSeconds());
  return withDate ? day + " " + clock : clock;
}

function spanText(seconds) {
  if (seconds === null || seconds < 0) return "?";
  if (seconds < 1) return Math.round(seconds * 1000) + " ms";
  if (seconds < 60) return seconds.toFixed(1) + " s";
  const whole = Math.round(seconds);
  if (whole < 3600) return Math.floor(whole / 60) + " min " + (whole % 60) + " s";
  if (whole < 86400) return Math.floor(whole / 3600) + " h " + Math.floor((whole % 3600) / 60) + " min";
  return Math.floor(whole / 86400) + " d " + Math.floor((whole % 86400) / 3600) + " h";
}

// The address of a file below the results. Bytes that are not UTF-8 come as surrogates from U+DC80 on.
function addressOf(base, file) {
  let address = base;
  for (const character of file) {
    const code = character.codePointAt(0);
    if (character === "/") address += "/";
    else if (code >= 0xdc80 && code <= 0xdcff) address += "%" + (code - 0xdc00).toString(16);
    else if (code >= 0xd800 && code <= 0xdfff) address += "%EF%BF%BD";
    else address += encodeURIComponent(character);
  }
  return address;
}

// Columns: [heading, content of a row, "n" for numbers or "t" for times]
function table(columns, rows) {
  const kind = (name) => (name ? { class: name } : {});
  const head = make("tr", {}, ...columns.map(([title, , name]) => make("th", { scope: "col", ...kind(name) }, title)));
  const body = rows.map((row) => make("tr", {}, ...columns.map(([, content, name]) => make("td", kind(name), content(row)))));
  return make("div", { class: "wide" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

// A table that may be long: some rows, and the others when they are asked for.
function longTable(columns, rows, most) {
  const box = make("div");
  const show = (count) => {
    box.replaceChildren(table(columns, rows.slice(0, count)));
    if (rows.length > count) {
      const more = make("button", { onclick: () => show(count * 4) }, "Show more of " + countText(rows.length));
      box.append(make("p", {}, more));
    }
  };
  show(most);
  return box;
}

const outputName = (writer, key) => (key ? key + " (" + writer + ")" : writer);
