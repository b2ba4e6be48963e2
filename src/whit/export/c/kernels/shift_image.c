/* Shift an image by pixels; the edge pixels are repeated to fill the gap. */
static void shift_image(const uint8_t *in, int height, int width, int channels, int right, int down,
                 uint8_t *out)
{
    for (int y = 0; y < height; y++) {
        int row = y < down ? 0 : y - down < height ? y - down : height - 1;
        for (int x = 0; x < width; x++) {
            int column = x < right ? 0 : x - right < width ? x - right : width - 1;
            for (int c = 0; c < channels; c++)
                *out++ = in[(row * width + column) * channels + c];
        }
    }
}
