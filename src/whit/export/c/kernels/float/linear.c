/* Fully connected layer. weight[number read][number made], bias[number made]. */
static void linear(const float *in, int reads, const float *weight, const float *bias, float *out,
                   int makes)
{
    for (int o = 0; o < makes; o++)
        out[o] = bias[o];
    for (int i = 0; i < reads; i++)
        for (int o = 0; o < makes; o++)
            out[o] += in[i] * weight[i * makes + o];
}
