// A picture file as an input of a network: read in the browser, not sent anywhere.

const LIGHT = 128; // a mean grey of the border from here on is a light background

/** Decode a file to pixels 0..255 of `channels` x `rows` x `columns`, channel by channel.
 *
 * It is scaled as a whole; a picture of other proportions is extended by the colour of its border.
 * `isInk` tells that the network reads light ink on black: a dark drawing on a light ground is
 * inverted. `isExact` in the result: the file has the size of the network's images.
 */
export async function readPicture(file, channels, rows, columns, isInk) {
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name}: not an image that this browser can read.`);
  });
  const isExact = bitmap.width === columns && bitmap.height === rows;
  const border = borderColour(bitmap);
  const canvas = new OffscreenCanvas(columns, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = `rgb(${border.join(" ")})`;
  context.fillRect(0, 0, columns, rows);
  context.imageSmoothingQuality = "high";
  const scale = Math.min(columns / bitmap.width, rows / bitmap.height);
  const [width, height] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (columns - width) / 2, (rows - height) / 2, width, height);
  const { data } = context.getImageData(0, 0, columns, rows);
  const plane = rows * columns;
  const pixels = new Float64Array(channels * plane);
  const isInverted = isInk && channels === 1 && grey(border) >= LIGHT;
  for (let i = 0; i < plane; i++) {
    const colour = data.slice(4 * i, 4 * i + 3);
    if (channels === 1) pixels[i] = isInverted ? 255 - grey(colour) : grey(colour);
    else for (let channel = 0; channel < 3; channel++) pixels[channel * plane + i] = colour[channel];
  }
  return { pixels, isExact };
}

/** The grey of a colour, 0..255, with the weights of ITU-R BT.601. */
const grey = ([red, green, blue]) => Math.round(0.299 * red + 0.587 * green + 0.114 * blue);

/** The mean colour of the outermost pixels of a picture, white where it is transparent. */
function borderColour(bitmap) {
  const side = 16;
  const canvas = new OffscreenCanvas(side, side);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, side, side);
  context.drawImage(bitmap, 0, 0, side, side);
  const { data } = context.getImageData(0, 0, side, side);
  const sums = [0, 0, 0];
  let count = 0;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) {
      if (x > 0 && x < side - 1 && y > 0 && y < side - 1) continue;
      for (let channel = 0; channel < 3; channel++) sums[channel] += data[4 * (y * side + x) + channel];
      count++;
    }
  }
  return sums.map((sum) => Math.round(sum / count));
}
