// From a drawing to what the network sees, in the way the MNIST digits were made: the ink's
// bounding box is scaled into a box of 20/28 of the image, keeping its proportions, and the
// result is moved so that its centre of mass lies on the pixel right and below the middle, by whole
// pixels (LeCun et al., 1998, and what the images themselves show).

/** The smallest box around all ink, or null where there is none. `ink` is 0..255, line by line. */
export function boundingBox(ink, width, height) {
  let left = width, right = -1, top = height, bottom = -1;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (ink[y * width + x] > 0) {
        left = Math.min(left, x);
        right = Math.max(right, x);
        top = Math.min(top, y);
        bottom = Math.max(bottom, y);
      }
    }
  }
  return right < 0 ? null : { left, top, width: right + 1 - left, height: bottom + 1 - top };
}

/** Mean of `ink` over each cell of a grid of `rows` x `columns` laid over `box`. */
export function resampled(ink, width, height, box, rows, columns) {
  const out = new Float64Array(rows * columns);
  const across = box.width / columns;
  const down = box.height / rows;
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      out[row * columns + column] = meanOver(
        ink, width, height,
        box.left + column * across, box.left + (column + 1) * across,
        box.top + row * down, box.top + (row + 1) * down,
      );
    }
  }
  return out;
}

function meanOver(ink, width, height, left, right, top, bottom) {
  let sum = 0;
  for (let y = Math.max(0, Math.floor(top)); y < Math.min(height, bottom); y++) {
    const inside = Math.min(y + 1, bottom) - Math.max(y, top);
    for (let x = Math.max(0, Math.floor(left)); x < Math.min(width, right); x++) {
      sum += inside * (Math.min(x + 1, right) - Math.max(x, left)) * ink[y * width + x];
    }
  }
  return sum / ((right - left) * (bottom - top));
}

/** A drawing as one image of `rows` x `columns`, 0..255: centred and scaled as MNIST was. */
export function centred(ink, width, height, rows, columns) {
  const out = new Float64Array(rows * columns);
  const box = boundingBox(ink, width, height);
  if (!box) return out;
  const scale = Math.min(
    Math.round((columns * 20) / 28) / box.width,
    Math.round((rows * 20) / 28) / box.height,
  );
  const across = Math.max(1, Math.round(box.width * scale));
  const down = Math.max(1, Math.round(box.height * scale));
  const small = resampled(ink, width, height, box, down, across);
  let mass = 0, sumX = 0, sumY = 0;
  for (let y = 0; y < down; y++) {
    for (let x = 0; x < across; x++) {
      const weight = small[y * across + x];
      mass += weight;
      sumX += weight * x;
      sumY += weight * y;
    }
  }
  const left = Math.round(columns / 2 - sumX / mass);
  const top = Math.round(rows / 2 - sumY / mass);
  for (let y = 0; y < down; y++) {
    for (let x = 0; x < across; x++) {
      if (y + top >= 0 && y + top < rows && x + left >= 0 && x + left < columns) {
        out[(y + top) * columns + x + left] = small[y * across + x];
      }
    }
  }
  return out;
}

/** A drawing as one image of `rows` x `columns`, 0..255, exactly where it stands. */
export function asItStands(ink, width, height, rows, columns) {
  return resampled(ink, width, height, { left: 0, top: 0, width, height }, rows, columns);
}
