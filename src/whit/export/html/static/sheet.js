// The pad with its buttons, and the image that the networks classify.

import { asItStands, centred, resampled } from "./digits.js";
import { Pad } from "./pad.js";
import { element, isDigits, readsHandwriting } from "./panel.js";
import { readPicture } from "./picture.js";

const FAINT = 40; // of 255: noise and shadows on a photographed sheet of paper, not ink

/** What to draw for a network, in a few words. */
export function subjectOf(network) {
  if (isDigits(network)) return "a digit";
  const { classes } = network;
  const names = classes.map((name) => (name.length > 20 ? `${name.slice(0, 19)}…` : name));
  return names.length > 8 ? `one of ${names.length} classes` : `one of: ${names.join(", ")}`;
}

export class Sheet {
  /** `changed` is called after every change; `imageFor` then gives the image for a network. */
  constructor(root, changed) {
    this.changed = changed;
    this.network = null; // whose images the sheet is for
    this.canvas = element("canvas", {
      class: "sheet", role: "application", "aria-roledescription": "sheet to draw on",
      "aria-label": "Draw here", "aria-describedby": "how-to-draw",
    });
    this.centring = element("input", { type: "checkbox", checked: true });
    this.centringText = element("span");
    this.message = element("p", { class: "note", role: "status" });
    const thickness = element("input", { type: "range", min: 6, max: 40, value: 22 });
    const eraser = element("button", { type: "button", "aria-pressed": "false" }, "Eraser");
    const undo = element("button", { type: "button" }, "Undo");
    const clear = element("button", { type: "button" }, "Clear");
    const file = element("input", { type: "file", accept: "image/*" });
    root.append(
      element("div", { class: "paper" }, this.canvas),
      element("div", { class: "buttons" }, clear, undo, eraser,
        element("label", {}, "Pen width ", thickness),
        element("label", {}, this.centring, this.centringText),
        element("label", { class: "file" }, "Image file ", file)),
      this.message,
    );
    // A sibling of the drawing, so that a narrow page can place it below the result.
    root.parentElement.append(element("p", { class: "note how-to-draw", id: "how-to-draw" },
      "Draw with mouse, pen or touch. Keyboard: arrow keys move the pen (Shift: in small steps), the space bar lowers or lifts it, Backspace undoes, Delete clears. An image file is read in this browser and not sent anywhere."));
    this.pad = new Pad(this.canvas, changed);
    thickness.addEventListener("input", () => (this.pad.thickness = Number(thickness.value)));
    eraser.addEventListener("click", () => {
      this.pad.erasing = !this.pad.erasing;
      eraser.setAttribute("aria-pressed", String(this.pad.erasing));
    });
    undo.addEventListener("click", () => this.pad.undo());
    clear.addEventListener("click", () => {
      this.message.textContent = "";
      this.resetCentring();
      this.pad.clear();
    });
    this.centring.addEventListener("change", changed);
    file.addEventListener("change", async () => {
      if (file.files.length) await this.open(file.files[0]);
      file.value = ""; // the same file may be opened again
    });
  }

  /** Adapt the sheet to the images and classes of a network. */
  use(network) {
    const isNew = !this.network || subjectOf(network) !== subjectOf(this.network);
    this.network = network;
    const [, rows, columns] = network.imageShape;
    this.canvas.setAttribute("aria-label", `Draw ${subjectOf(network)}`);
    this.centringText.textContent = readsHandwriting(network) ? "Centre and scale as in MNIST" : "Centre and scale";
    if (isNew) this.resetCentring();
    this.pad.resize(rows, columns);
  }

  resetCentring() {
    this.centring.checked = !this.network || readsHandwriting(this.network);
  }

  /** Put an image of a data set on the sheet, to be classified without any change. */
  show(pixels, channels, rows, columns) {
    this.centring.checked = false;
    this.message.textContent = "";
    if (channels === 1 && !readsHandwriting(this.network)) {
      // Grey as a picture: as ink it would look like a negative.
      const planes = new Float64Array(3 * pixels.length);
      for (let channel = 0; channel < 3; channel++) planes.set(pixels, channel * pixels.length);
      this.pad.show(planes, 3, rows, columns);
    } else {
      this.pad.show(pixels, channels, rows, columns);
    }
  }

  /** Put a picture file on the sheet. */
  async open(file) {
    if (!this.network) {
      this.message.textContent = "Select a network first.";
      return;
    }
    const [channels, rows, columns] = this.network.imageShape;
    const isInk = readsHandwriting(this.network);
    try {
      const { pixels, isExact } = await readPicture(file, channels, rows, columns, isInk);
      if (isExact || !isInk) {
        this.show(pixels, channels, rows, columns);
      } else {
        // At the resolution of the pad, to be centred and scaled like a drawing.
        const { width, height } = this.pad;
        const { pixels: ink } = await readPicture(file, 1, height, width, isInk);
        this.pad.show(ink.map((value) => (value < FAINT ? 0 : value)), 1, height, width);
        this.centring.checked = true;
        this.changed();
      }
      this.message.textContent = `Image file: ${file.name}`;
    } catch (error) {
      this.message.textContent = error.message;
    }
  }

  /** The image for a network, 0..255, channel by channel and line by line, and whether it is empty. */
  imageFor([channels, rows, columns]) {
    const { picture } = this.pad;
    if (picture) return { image: fromPicture(picture, channels, rows, columns), empty: false };
    const { ink, width, height } = this.pad.ink;
    const read = this.centring.checked ? centred : asItStands;
    const plane = read(ink, width, height, rows, columns);
    const image = new Float64Array(channels * rows * columns);
    for (let channel = 0; channel < channels; channel++) image.set(plane, channel * rows * columns);
    return { image, empty: !ink.some((value) => value > 0) };
  }
}

/** A colour picture at the size of a network's images; its mean for a network of one channel. */
function fromPicture({ pixels, rows: height, columns: width }, channels, rows, columns) {
  const box = { left: 0, top: 0, width, height };
  const planes = [0, 1, 2].map((channel) =>
    resampled(pixels.subarray(channel * height * width, (channel + 1) * height * width), width, height, box, rows, columns));
  const image = new Float64Array(channels * rows * columns);
  for (let i = 0; i < rows * columns; i++) {
    if (channels === 1) image[i] = (planes[0][i] + planes[1][i] + planes[2][i]) / 3;
    else planes.forEach((plane, channel) => (image[channel * rows * columns + i] = plane[i]));
  }
  return image;
}
