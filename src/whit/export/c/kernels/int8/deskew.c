/*
 * Moment-based deskewing: each row is sheared in proportion to its height above the center of mass,
 * by the slope mu11 / mu02, so that mu11 of the result is zero. The mass of a pixel is its value
 * above the minimum of its channel, summed over channels. Positions are in units of 1/65536 pixel,
 * interpolation weights in 1/256.
 */
static void deskew(const uint8_t *in, struct shape shape, uint8_t *out)
{
    const int pixels = shape.height * shape.width, channels = shape.channels;
    int64_t total = 0, sum_x = 0, sum_y = 0, sum_xy = 0, sum_yy = 0;
    int32_t minimum = 0;
    for (int c = 0; c < channels; c++) {
        uint8_t channel_minimum = in[c];
        for (int p = 1; p < pixels; p++)
            if (in[p * channels + c] < channel_minimum)
                channel_minimum = in[p * channels + c];
        minimum += channel_minimum;
    }
    for (int y = 0, i = 0; y < shape.height; y++) {
        int64_t row_mass = 0, row_x = 0;
        for (int x = 0; x < shape.width; x++) {
            int32_t mass = -minimum;
            for (int c = 0; c < channels; c++)
                mass += in[i++];
            row_mass += mass;
            row_x += (int64_t)mass * x;
        }
        total += row_mass;
        sum_x += row_x;
        sum_y += row_mass * y;
        sum_xy += row_x * y;
        sum_yy += row_mass * y * y;
    }
    /* Both moments times the total mass; only their ratio counts. */
    int64_t mu11 = total * sum_xy - sum_x * sum_y, mu02 = total * sum_yy - sum_y * sum_y;
    const int64_t limit = (int64_t)1 << 46;
    while (mu11 >= limit || mu11 <= -limit) {
        mu11 /= 2;
        mu02 /= 2;
    }
    const int64_t max_slope = 256 * 65536, max_offset = (int64_t)shape.width * 65536;
    int64_t slope = mu02 ? mu11 * 65536 / mu02 : 0;
    slope = slope > max_slope ? max_slope : slope < -max_slope ? -max_slope : slope;
    for (int y = 0; y < shape.height; y++, in += shape.width * channels) {
        int64_t offset = total ? slope * (total * y - sum_y) / total : 0;
        offset = offset > max_offset ? max_offset : offset < -max_offset ? -max_offset : offset;
        for (int x = 0; x < shape.width; x++) {
            int32_t source = x * 65536 + (int32_t)offset, last = (shape.width - 1) * 65536;
            source = source < 0 ? 0 : source > last ? last : source;
            const int left = source >> 16, right = left + 1 < shape.width ? left + 1 : left;
            const int fraction = source >> 8 & 255;
            for (int c = 0; c < channels; c++) {
                const int a = in[left * channels + c], b = in[right * channels + c];
                *out++ = (uint8_t)((a * (256 - fraction) + b * fraction + 128) >> 8);
            }
        }
    }
}
