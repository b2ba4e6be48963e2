// The pad with its buttons, and the image that the networks read.

import { asItStands, centred } from "./digits.js";
import { Pad } from "./pad.js";
import { element } from "./panel.js";

export class Sheet {
  /** `changed` is called after every change; `imageFor` then gives the image for a network. */
  constructor(root, changed) {
    this.canvas = element("canvas", {
      class: "sheet", role: "application", "aria-roledescription": "sheet to draw on",
      "aria-label": "Draw here", "aria-describedby": "how-to-draw",
    });
    this.centring = element("input", { type: "checkbox", checked: true });
    const thickness = element("input", { type: "range", min: 6, max: 40, value: 22 });
    const eraser = element("button", { type: "button", "aria-pressed": "false" }, "Eraser");
    const undo = element("button", { type: "button" }, "Undo");
    const clear = element("button", { type: "button" }, "Clear");
    root.append(
      element("div", { class: "paper" }, this.canvas),
      element("div", { class: "buttons" }, clear, undo, eraser,
        element("label", {}, "Pen ", thickness),
        element("label", {}, this.centring, " Centre and scale as MNIST was")),
      element("p", { class: "note", id: "how-to-draw" },
        "Mouse, pen or touch. By keyboard: arrows move the pen (with Shift: a little), the space bar sets it down and lifts it, Backspace undoes, Delete clears."),
    );
    this.pad = new Pad(this.canvas, changed);
    thickness.addEventListener("input", () => (this.pad.thickness = Number(thickness.value)));
    eraser.addEventListener("click", () => {
      this.pad.erasing = !this.pad.erasing;
      eraser.setAttribute("aria-pressed", String(this.pad.erasing));
    });
    undo.addEventListener("click", () => this.pad.undo());
    clear.addEventListener("click", () => {
      this.centring.checked = true;
      this.pad.clear();
    });
    this.centring.addEventListener("change", changed);
  }

  /** Put an image of a data set on the sheet, to be read exactly as it stands. */
  show(pixels, rows, columns) {
    this.centring.checked = false;
    this.pad.show(pixels, rows, columns);
  }

  /** The drawing as `rows` x `columns` pixels, 0..255, and whether there is any ink. */
  imageFor(rows, columns) {
    const { ink, width, height } = this.pad.ink;
    const read = this.centring.checked ? centred : asItStands;
    const image = read(ink, width, height, rows, columns);
    return { image, empty: !ink.some((value) => value > 0) };
  }
}
