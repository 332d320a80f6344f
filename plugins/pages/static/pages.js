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
    const night = { logical_date: null, conf: { date: button.dataset.trigger } };
    const address = `${ROOT}/api/v2/dags/${encodeURIComponent(DAG)}/dagRuns`;
    const run = await post(address, night);
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

// A decision about a model, with the person's reason. The server asks whether they may.
async function decide(form, what) {
  const said = document.querySelector(".said");
  const fields = new FormData(form);
  const body = { what: what, why: fields.get("why"), version: form.dataset.version || fields.get("to") };
  said.textContent = "…";
  try {
    const answer = await post(`${ROOT}/nightshift/pages/${encodeURIComponent(DAG)}/models`, body);
    said.textContent = answer.says;
    form.querySelectorAll("button").forEach((button) => (button.disabled = true));
  } catch (error) {
    said.textContent = `Not done: ${error.message}`;
  }
}

for (const form of document.querySelectorAll("form.decide")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    decide(form, event.submitter.value);
  });
}
