// What the pages do beyond showing. All of it goes through the person's own session.
"use strict";

const ROOT = document.body.dataset.root;
const DAG = document.body.dataset.dag;

// A link to Airflow itself, in the window and not in our frame: as if it stood in Airflow's page.
function openOutside(address) {
  if (window.parent === window) {
    window.location.assign(address);
    return;
  }
  const link = window.parent.document.createElement("a");
  link.href = address;
  window.parent.document.body.append(link);
  link.click();
  link.remove();
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-outside]");
  if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
    event.preventDefault();
    openOutside(link.href);
  }
});

// What a chart says of a point, below everything: a title is shown to a mouse alone.
const CHARTS = "svg.chart, svg.strip";
const readout = document.getElementById("readout");

function tell(point) {
  document.querySelectorAll(".point.told").forEach((one) => one.classList.remove("told"));
  readout.textContent = "";
  if (point) {
    point.classList.add("told");
    const [of, says] = [point.closest("svg"), point].map((one) => one.querySelector("title").textContent);
    readout.textContent = `${of}: ${says}`;
  }
}

function tellWhatIsUnder(event) {
  // What a finger does goes on being told to where it came down.
  const drawn = document.elementFromPoint(event.clientX, event.clientY);
  const point = drawn && drawn.closest(".point");
  if (point || event.pointerType === "mouse") {
    tell(point);
  }
}

// To the one before or after it; where none is told, to the last.
function tellNext(event, step) {
  const chart = event.target.closest(CHARTS);
  const points = chart ? [...chart.querySelectorAll(".point")] : [];
  if (points.length) {
    const told = points.findIndex((one) => one.classList.contains("told"));
    const next = told < 0 ? points.length - 1 : told + step;
    tell(points[Math.min(Math.max(next, 0), points.length - 1)]);
  }
}

document.addEventListener("pointerdown", tellWhatIsUnder);
document.addEventListener("pointermove", tellWhatIsUnder);
document.addEventListener("focusin", (event) => tellNext(event, 0));
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step && event.target.closest(CHARTS)) {
    event.preventDefault();
    tellNext(event, step);
  }
});

// JSON, which no form of another site can send; the cookie goes to our own origin alone.
async function post(address, body) {
  const answer = await fetch(address, {
    method: "POST",
    credentials: "same-origin",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) {
    let detail = text;
    try {
      detail = JSON.parse(text).detail;
    } catch (error) {
      // It is plain text.
    }
    throw new Error(typeof detail === "string" ? detail : JSON.stringify(detail));
  }
  return JSON.parse(text);
}

// Airflow's own API decides whether the person may.
async function trigger(button) {
  const said = document.querySelector(".said");
  button.disabled = true;
  said.textContent = "Triggering …";
  try {
    const conf = { date: button.dataset.trigger };
    // As many nights as the page has shown as missing.
    if ("fromStart" in button.dataset) conf.from_start = true;
    const address = `${ROOT}/api/v2/dags/${encodeURIComponent(DAG)}/dagRuns`;
    const run = await post(address, { logical_date: null, conf: conf });
    openOutside(`${ROOT}/dags/${encodeURIComponent(DAG)}/runs/${encodeURIComponent(run.dag_run_id)}`);
  } catch (error) {
    said.textContent = `Not triggered: ${error.message}`;
    button.disabled = false;
  }
}

for (const button of document.querySelectorAll("button[data-trigger]")) {
  button.addEventListener("click", () => trigger(button));
}

// Hide the rows of a table that do not have the words.
for (const input of document.querySelectorAll("input[data-search]")) {
  const table = document.getElementById(input.dataset.search);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

// The dictionary: show the tables and columns that have the words, and open the table that a link means.
const finder = document.getElementById("find");

function find() {
  const words = finder.value.toLowerCase().split(/\s+/).filter((word) => word);
  const has = (text) => words.every((word) => text.toLowerCase().includes(word));
  let columns = 0;
  for (const table of document.querySelectorAll(".described")) {
    const name = table.querySelector("summary").textContent;
    const isMeant = has(name);
    const rows = [...table.querySelector(".columns").rows];
    const found = rows.filter((row) => has(`${name} ${row.textContent}`));
    rows.forEach((row) => (row.hidden = !isMeant && !found.includes(row)));
    table.hidden = !isMeant && !found.length;
    table.open = words.length > 0 && !isMeant && found.length > 0;
    columns += found.length;
  }
  const said = columns === 1 ? "1 column" : `${columns} columns`;
  document.getElementById("found").textContent = words.length ? said : "";
}

function openMeant() {
  const meant = document.getElementById(decodeURIComponent(window.location.hash.slice(1)));
  if (meant && meant.matches(".described")) {
    meant.open = true;
    meant.scrollIntoView();
  }
}

if (finder) {
  finder.addEventListener("input", find);
  window.addEventListener("hashchange", openMeant);
  openMeant();
}

// A decision about a model, with the person's reason. The server asks whether they may.
async function decide(form, what) {
  const said = document.querySelector(".said");
  const fields = new FormData(form);
  const body = { what: what, why: fields.get("why"), version: form.dataset.version || fields.get("to") };
  if (form.dataset.serves) body.serves = form.dataset.serves;
  // Asked twice, the refusal of the second would stand in the place of what the first has done.
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => (button.disabled = true));
  said.textContent = "…";
  try {
    const answer = await post(`${ROOT}/nightshift/pages/${encodeURIComponent(DAG)}/models`, body);
    said.textContent = answer.says;
  } catch (error) {
    said.textContent = `Not done: ${error.message}`;
    buttons.forEach((button) => (button.disabled = false));
  }
}

for (const form of document.querySelectorAll("form.decide")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    decide(form, event.submitter.value);
  });
}

// Why a prediction came out so: every feature with its pull, below its row.
function pullOf(value, most) {
  const bar = document.createElement("span");
  bar.className = value < 0 ? "pull down" : "pull";
  bar.style.width = `${Math.round((120 * Math.abs(value)) / most)}px`;
  return bar;
}

// Four digits tell enough; all of them are in the table of the command.
function short(value) {
  return typeof value === "number" ? Number(value.toPrecision(4)) : value;
}

// Of a smaller pull, as of a label in a small unit, three decimals would leave nothing.
function pull(value) {
  return Math.abs(value) < 0.01 ? short(value) : value.toFixed(3);
}

function explained(features) {
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const name of ["feature", "value", "usually", "pull", "", "meaning"]) {
    const cell = document.createElement("th");
    cell.textContent = name;
    head.append(cell);
  }
  const most = Math.max(...features.map((one) => Math.abs(one.attribution)), Number.MIN_VALUE);
  const body = table.createTBody();
  for (const one of features) {
    const line = body.insertRow();
    const values = [one.feature, short(one.value), short(one.base), pull(one.attribution)];
    for (const value of values) {
      line.insertCell().textContent = value === null ? "" : text(value);
    }
    line.insertCell().append(pullOf(one.attribution, most));
    line.insertCell().textContent = one.meaning;
  }
  return table;
}

async function explain(button, table) {
  const row = button.closest("tr");
  const open = row.nextElementSibling;
  if (open && open.classList.contains("explained")) {
    open.remove();
    return;
  }
  const columns = JSON.parse(table.dataset.columns);
  const values = JSON.parse(button.dataset.why);
  const key = {};
  for (const name of JSON.parse(table.dataset.key)) {
    key[name] = values[columns.indexOf(name)];
  }
  const line = document.createElement("tr");
  line.className = "explained";
  const cell = line.insertCell();
  cell.colSpan = columns.length + 1;
  cell.className = "why";
  cell.textContent = "Asking the model …";
  row.after(line);
  button.disabled = true;
  try {
    const address = `${ROOT}/nightshift/pages/${encodeURIComponent(DAG)}/explanation`;
    const features = await post(address, { night: table.dataset.night, key: key });
    cell.replaceChildren(explained(features));
  } catch (error) {
    cell.textContent = error.message;
  }
  button.disabled = false;
}

const foretold = document.getElementById("predictions");
if (foretold) {
  foretold.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-why]");
    if (button) {
      explain(button, foretold);
    }
  });
}

// SQL. Past statements stay in this browser, and are shown to the person who wrote them.
const form = document.getElementById("query");
const HISTORY = form && `nightshift-sql-history:${form.dataset.person}`;
const REMEMBERED = 50;

function past() {
  try {
    return JSON.parse(localStorage.getItem(HISTORY)) || [];
  } catch (error) {
    return [];
  }
}

function remember(statement) {
  const kept = [statement, ...past().filter((one) => one !== statement)].slice(0, REMEMBERED);
  try {
    // Of everybody's, as it was once.
    localStorage.removeItem("nightshift-sql-history");
    localStorage.setItem(HISTORY, JSON.stringify(kept));
  } catch (error) {
    // It is full, or a frame without an origin has none: the rows matter more.
  }
  listPast();
}

function listPast() {
  const select = document.getElementById("history");
  select.replaceChildren(new Option("…", ""), ...past().map((one) => new Option(one.slice(0, 80), one)));
}

function text(value) {
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value);
}

function showRows(answer) {
  const table = document.getElementById("result");
  table.replaceChildren();
  const head = table.createTHead().insertRow();
  for (const name of answer.columns) {
    const cell = document.createElement("th");
    cell.textContent = name;
    head.append(cell);
  }
  const body = table.createTBody();
  for (const row of answer.rows) {
    const line = body.insertRow();
    for (const value of row) {
      const cell = line.insertCell();
      cell.textContent = value === null ? "" : text(value);
      cell.className = typeof value === "number" ? "number" : "";
    }
  }
}

// To a spreadsheet a text that begins so is a formula, unless it is a number.
const FORMULA = /^[=+\-@\t\r]/;
const NUMBER = /^[+-]?\d+(\.\d+)?(e[+-]?\d+)?$/i;

function asCsv(answer) {
  const quoted = (value) => {
    if (value === null) {
      return "";
    }
    const told = text(value);
    const written = FORMULA.test(told) && !NUMBER.test(told) ? `'${told}` : told;
    // Unquoted, an empty text would be a value that is unknown; some separate with other signs.
    return written === "" || /[",;\t\n\r]/.test(written) ? `"${written.replaceAll('"', '""')}"` : written;
  };
  return [answer.columns, ...answer.rows].map((row) => row.map(quoted).join(",") + "\n").join("");
}

function download(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
  link.download = name;
  link.click();
  URL.revokeObjectURL(link.href);
}

async function query(isForFile) {
  const said = document.querySelector(".said");
  const buttons = document.querySelectorAll("#query button");
  const statement = document.getElementById("statement").value;
  const began = performance.now();
  said.textContent = "Running …";
  // One that fails too: it is corrected.
  remember(statement);
  buttons.forEach((button) => (button.disabled = true));
  try {
    const asked = { statement: statement, is_for_file: isForFile };
    const answer = await post(`${ROOT}/nightshift/pages/sql`, asked);
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    const count = answer.rows.length;
    const rows = count === 1 ? "1 row" : `${count} rows`;
    const told = `${rows}${answer.is_cut ? ", and more" : ""} in ${seconds} s`;
    said.textContent = answer.notes ? `${told}. ${answer.notes}` : told;
    if (isForFile) {
      download(asCsv(answer), "nightshift.csv");
    } else {
      showRows(answer);
    }
  } catch (error) {
    said.textContent = error.message;
  }
  buttons.forEach((button) => (button.disabled = false));
}

if (form) {
  listPast();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    query(false);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      query(false);
    }
  });
  document.getElementById("csv").addEventListener("click", () => query(true));
  document.getElementById("history").addEventListener("change", (event) => {
    document.getElementById("statement").value = event.target.value || document.getElementById("statement").value;
  });
}
