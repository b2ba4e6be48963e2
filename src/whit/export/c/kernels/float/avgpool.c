/* Average pooling; padding counts as zeros if `count_include_pad`. */
static void avgpool(const float *in, struct shape src, struct window window, int count_include_pad,
                    float *out, struct shape dst)
{
    for (int y = 0; y < dst.height; y++)
        for (int x = 0; x < dst.width; x++, out += dst.channels)
            for (int c = 0; c < dst.channels; c++) {
                float sum = 0;
                int count = 0;
                for (int ky = 0; ky < window.height; ky++)
                    for (int kx = 0; kx < window.width; kx++) {
                        const int in_y = y * window.stride_y - window.padding_y + ky;
                        const int in_x = x * window.stride_x - window.padding_x + kx;
                        const int inside = in_y >= 0 && in_y < src.height && in_x >= 0 &&
                                           in_x < src.width;
                        if (inside)
                            sum += in[(in_y * src.width + in_x) * src.channels + c];
                        count += inside || count_include_pad;
                    }
                out[c] = sum / (float)count;
            }
}
