// The page of one network, in one file: a sheet, and the network that reads it.

import { Network } from "./network.js";
import { Panel } from "./panel.js";
import { Sheet } from "./sheet.js";

const network = new Network(JSON.parse(document.getElementById("network").textContent));
const panel = new Panel(document.getElementById("panel"));
const [, rows, columns] = network.imageShape;
let waiting = false;

function read() {
  waiting = false;
  const { image, empty } = sheet.imageFor(rows, columns);
  panel.show(image, empty);
}

const sheet = new Sheet(document.getElementById("desk"), () => {
  if (!waiting) requestAnimationFrame(read);
  waiting = true;
});
panel.use(network);
read();
