/*
 * A map sheared so that its mixed second moment is zero: each row moves in proportion to its
 * height above the centre of mass. Mass is what lies above a channel's smallest number.
 */
static float mass_at(const float *in, int channels, float least)
{
    float mass = -least;
    for (int c = 0; c < channels; c++)
        mass += in[c];
    return mass;
}

static void deskew(const float *in, struct map shape, float *out)
{
    const int places = shape.height * shape.width, channels = shape.channels;
    float least = 0, total = 0, sum_x = 0, sum_y = 0, mixed = 0, spread = 0;
    for (int c = 0; c < channels; c++) {
        float smallest = in[c];
        for (int p = 1; p < places; p++)
            smallest = in[p * channels + c] < smallest ? in[p * channels + c] : smallest;
        least += smallest;
    }
    for (int p = 0; p < places; p++) {
        const float mass = mass_at(in + p * channels, channels, least);
        total += mass;
        sum_x += mass * (p % shape.width);
        sum_y += mass * (p / shape.width);
    }
    total = total > 1e-6f ? total : 1e-6f;
    for (int p = 0; p < places; p++) {
        const float mass = mass_at(in + p * channels, channels, least);
        const float from_y = p / shape.width - sum_y / total;
        mixed += mass * (p % shape.width - sum_x / total) * from_y;
        spread += mass * from_y * from_y;
    }
    spread = spread > 1e-6f ? spread : 1e-6f;
    for (int y = 0; y < shape.height; y++, in += shape.width * channels) {
        const float moved = mixed / spread * (y - sum_y / total);
        for (int x = 0; x < shape.width; x++) {
            float source = x + moved;
            source = source < 0 ? 0 : source > shape.width - 1 ? shape.width - 1 : source;
            const int left = (int)source, right = left + 1 < shape.width ? left + 1 : left;
            const float share = source - left;
            for (int c = 0; c < channels; c++)
                *out++ = in[left * channels + c] * (1 - share) + in[right * channels + c] * share;
        }
    }
}
