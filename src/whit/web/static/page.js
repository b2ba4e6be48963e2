// The page: three views in one, and what the server knows, kept fresh.

import { DrawView } from "./draw.js";
import { ErrorsView } from "./errors.js";
import { RunsView } from "./runs.js";
import { Store } from "./store.js";

const section = (name) => document.getElementById(name);

const state = document.getElementById("state");
const store = new Store((problem) => {
  state.textContent = problem || "";
  state.classList.toggle("bad", Boolean(problem));
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
const named = () => (location.hash.slice(1) in VIEWS ? location.hash.slice(1) : "draw");
// Only what is seen is made anew; a view that comes into sight catches up.
store.changed = () => VIEWS[named()].refresh();

function turnTo() {
  const name = named();
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
  turnTo();
  document.getElementById("view").focus({ preventScroll: true });
});
turnTo();
store.begin();
