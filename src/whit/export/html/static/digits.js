// Converts a drawing to a network input by the preprocessing of MNIST: the bounding box of the ink
// is scaled to 20/28 of the image, keeping its aspect ratio, and shifted by whole pixels so that its
// center of mass is the pixel right of and below the center (LeCun et al., 1998; verified on the
// images).

/** The smallest box around all ink, or null where there is none. `ink` is 0..255, row by row. */
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

/** A drawing as an image of `rows` x `columns`, 0..255, scaled and centered like MNIST. */
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

/** A drawing as an image of `rows` x `columns`, 0..255, resampled without centering. */
export function asItStands(ink, width, height, rows, columns) {
  return resampled(ink, width, height, { left: 0, top: 0, width, height }, rows, columns);
}
