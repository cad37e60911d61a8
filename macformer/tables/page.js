// Sorting by a column, and hiding rows, in the tables of a sweep's page.
// Without this script the page is whole, and as static as it is on paper.
"use strict";

const NUMBER = /([-+\u2212]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)([KMG])?/;
const UNITS = { K: 1e3, M: 1e6, G: 1e9 };
const OPPOSITE = { ascending: "descending", descending: "ascending" };
const words = new Intl.Collator("en", { numeric: true });

// The first number of an entry: of "37.1 ± 0.5*", "1.20K (0.9×)" or "<1e-05"; NaN where there is none.
function numberOf(text) {
  const match = NUMBER.exec(text);
  if (!match) return NaN;
  return Number(match[1].replaceAll(",", "").replace("\u2212", "-")) * (UNITS[match[2]] ?? 1);
}

// Compare entries of a column; blanks, and words among numbers, come last in either order.
function comparison(header, order) {
  const sign = order === "descending" ? -1 : 1;
  const column = header.cellIndex;
  const textOf = (row) => row.cells[column].textContent.trim();
  if (header.classList.contains("text")) {
    return (a, b) => {
      const [x, y] = [textOf(a), textOf(b)];
      return !x - !y || sign * words.compare(x, y);
    };
  }
  return (a, b) => {
    const [x, y] = [numberOf(textOf(a)), numberOf(textOf(b))];
    return Number.isNaN(x) - Number.isNaN(y) || (Number.isNaN(x) ? 0 : sign * (x - y));
  };
}

// A column's numbers fall first and its words rise first; a third click restores the page's order.
function nextOrder(header) {
  const first = header.classList.contains("text") ? "ascending" : "descending";
  const now = header.getAttribute("aria-sort");
  if (!now) return first;
  return now === first ? OPPOSITE[first] : null;
}

// Sort each section of a table by itself: results, floors, published rows.
function sortBy(header) {
  const table = header.closest("table");
  const order = nextOrder(header);
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  if (order) header.setAttribute("aria-sort", order);
  const compare = order ? comparison(header, order) : (a, b) => a.dataset.place - b.dataset.place;
  for (const body of table.tBodies) body.append(...[...body.rows].sort(compare));
}

function makeSortable(table) {
  for (const body of table.tBodies) [...body.rows].forEach((row, place) => (row.dataset.place = place));
  const names = [...table.tHead.rows].at(-1);
  for (const header of names.querySelectorAll("th")) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...header.childNodes);
    button.addEventListener("click", () => sortBy(header));
    header.append(button);
  }
}

// A row is shown if its box is checked and its name has every word of the filter.
function showRows(controls) {
  const wanted = controls.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const boxes = [...controls.querySelectorAll("input[type=checkbox]")];
  const hidden = boxes.filter((box) => {
    const name = box.value.toLowerCase();
    return !box.checked || !wanted.every((word) => name.includes(word));
  });
  const names = new Set(hidden.map((box) => box.value));
  for (const row of document.querySelectorAll("tr[data-row]")) row.hidden = names.has(row.dataset.row);
  const text = names.size ? `${names.size} of ${boxes.length} rows hidden` : "";
  for (const output of document.querySelectorAll("output")) output.value = text;
  controls.all.hidden = !names.size;
}

function checkBox(name) {
  const label = document.createElement("label");
  const box = document.createElement("input");
  Object.assign(box, { type: "checkbox", value: name, defaultChecked: true });
  label.append(box, ` ${name}`);
  return label;
}

function openControls(controls) {
  const names = new Set([...document.querySelectorAll("tr[data-row]")].map((row) => row.dataset.row));
  controls.querySelector("fieldset").append(...[...names].map(checkBox));
  controls.addEventListener("input", () => showRows(controls));
  controls.addEventListener("reset", () => setTimeout(() => showRows(controls)));
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
}

// Fade the side of a box on which there is more to see.
function watchEdges(box) {
  const update = () => {
    box.classList.toggle("more-left", box.scrollLeft > 1);
    box.classList.toggle("more-right", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  };
  box.addEventListener("scroll", update, { passive: true });
  new ResizeObserver(update).observe(box);
}

// The list of rows lies over the tables; a click elsewhere, or Escape, puts it away.
function closeLists(event) {
  for (const list of document.querySelectorAll("#controls details[open]")) {
    if (event.key === "Escape") list.querySelector("summary").focus();
    if (event.key === "Escape" || (event.type === "click" && !list.contains(event.target))) list.open = false;
  }
}

document.querySelectorAll("main table").forEach(makeSortable);
document.querySelectorAll(".scroll").forEach(watchEdges);
openControls(document.getElementById("controls"));
document.addEventListener("click", closeLists);
document.addEventListener("keydown", closeLists);
