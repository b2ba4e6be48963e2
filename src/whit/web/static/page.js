// The page: three views of the runs, updated while the server runs.

import { DrawView } from "./draw.js";
import { ErrorsView } from "./errors.js";
import { RunsView } from "./runs.js";
import { Store } from "./store.js";

const section = (name) => document.getElementById(name);

const status = document.getElementById("state");
const store = new Store((problem) => {
  status.textContent = problem || "";
  status.classList.toggle("bad", Boolean(problem));
});
const draw = new DrawView(section("draw"), store);
const errors = new ErrorsView(section("errors"), store, (...image) => {
  draw.show(...image);
  location.hash = "draw";
});
const runs = new RunsView(section("runs"), store, (view, id) => {
  if (view === "draw") draw.choose(draw.sides[0], id);
  else errors.choose(id);
});
const VIEWS = { draw, runs, errors };
const currentView = () => (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "draw");
// Only the visible view is refreshed; another one when it becomes visible.
store.onChange = () => VIEWS[currentView()].refresh();

function showView() {
  const name = currentView();
  for (const view of Object.keys(VIEWS)) {
    section(view).hidden = view !== name;
    const link = document.querySelector(`nav a[href="#${view}"]`);
    if (view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `whit: ${name}`;
  VIEWS[name].refresh();
}

addEventListener("hashchange", () => {
  if (location.hash === "#view") return;
  showView();
  document.getElementById("view").focus({ preventScroll: true });
});
showView();
store.begin();
