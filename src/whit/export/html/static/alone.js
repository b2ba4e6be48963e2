// The page of one network, in one file: a sheet to draw on, and the network that classifies it.

import { Network } from "./network.js";
import { Panel } from "./panel.js";
import { Sheet } from "./sheet.js";

const network = new Network(JSON.parse(document.getElementById("network").textContent));
const panel = new Panel(document.getElementById("panel"));
let isScheduled = false;

function classify() {
  isScheduled = false;
  const { image, empty } = sheet.imageFor(network.imageShape);
  panel.show(image, empty);
}

const sheet = new Sheet(document.getElementById("desk"), () => {
  if (!isScheduled) requestAnimationFrame(classify);
  isScheduled = true;
});
panel.use(network);
sheet.use(network);
classify();
