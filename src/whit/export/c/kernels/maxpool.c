/* The largest of each window; what lies outside the map never wins. */
static void maxpool(const $number *in, struct map from, struct window window, $number *out,
                    struct map to)
{
    for (int y = 0; y < to.height; y++)
        for (int x = 0; x < to.width; x++, out += to.channels) {
            int seen = 0;
            for (int ky = 0; ky < window.height; ky++)
                for (int kx = 0; kx < window.width; kx++) {
                    const int from_y = y * window.step_y - window.around_y + ky * window.apart_y;
                    const int from_x = x * window.step_x - window.around_x + kx * window.apart_x;
                    if (from_y < 0 || from_y >= from.height || from_x < 0 || from_x >= from.width)
                        continue;
                    const $number *read = in + (from_y * from.width + from_x) * from.channels;
                    for (int c = 0; c < to.channels; c++)
                        out[c] = seen && out[c] > read[c] ? out[c] : read[c];
                    seen = 1;
                }
        }
}
