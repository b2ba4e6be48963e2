/*
 * A map sheared so that its mixed second moment is zero: each row moves in proportion to its
 * height above the centre of mass. Mass is what lies above a channel's smallest number. Places
 * are in units of 1/65536, shares in 1/256.
 */
static void deskew(const uint8_t *in, struct map shape, uint8_t *out)
{
    const int places = shape.height * shape.width, channels = shape.channels;
    int64_t total = 0, sum_x = 0, sum_y = 0, sum_xy = 0, sum_yy = 0;
    int32_t least = 0;
    for (int c = 0; c < channels; c++) {
        uint8_t smallest = in[c];
        for (int p = 1; p < places; p++)
            smallest = in[p * channels + c] < smallest ? in[p * channels + c] : smallest;
        least += smallest;
    }
    for (int y = 0, i = 0; y < shape.height; y++) {
        int64_t row = 0, along = 0;
        for (int x = 0; x < shape.width; x++) {
            int32_t mass = -least;
            for (int c = 0; c < channels; c++)
                mass += in[i++];
            row += mass;
            along += (int64_t)mass * x;
        }
        total += row;
        sum_x += along;
        sum_y += row * y;
        sum_xy += along * y;
        sum_yy += row * y * y;
    }
    int64_t mixed = total * sum_xy - sum_x * sum_y, spread = total * sum_yy - sum_y * sum_y;
    const int64_t most = (int64_t)1 << 46;
    while (mixed >= most || mixed <= -most) {
        mixed /= 2;
        spread /= 2;
    }
    const int64_t steepest = 256 * 65536, farthest = (int64_t)shape.width * 65536;
    int64_t slope = spread ? mixed * 65536 / spread : 0;
    slope = slope > steepest ? steepest : slope < -steepest ? -steepest : slope;
    for (int y = 0; y < shape.height; y++, in += shape.width * channels) {
        int64_t moved = total ? slope * (total * y - sum_y) / total : 0;
        moved = moved > farthest ? farthest : moved < -farthest ? -farthest : moved;
        for (int x = 0; x < shape.width; x++) {
            int32_t source = x * 65536 + (int32_t)moved, last = (shape.width - 1) * 65536;
            source = source < 0 ? 0 : source > last ? last : source;
            const int left = source >> 16, right = left + 1 < shape.width ? left + 1 : left;
            const int share = source >> 8 & 255;
            for (int c = 0; c < channels; c++) {
                const int a = in[left * channels + c], b = in[right * channels + c];
                *out++ = (uint8_t)((a * (256 - share) + b * share + 128) >> 8);
            }
        }
    }
}
